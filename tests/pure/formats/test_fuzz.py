"""Whatever the bytes, parsing ends in exchanges, in Unscored or in Unreadable."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.pure.formats.access import load
from proxy.pure.formats.registry import FORMATS, parse
from proxy.words.errors import UNSCORED_CAUSES, Unreadable, Unscored
from proxy.words.exchange import ENDS, BoundedCopy, Capture, Exchange
from tests.corpus import Case, cases, encode
from tests.pure.formats.profile import STEADY

CASES = cases()
CONTENT_TYPES = (
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
    "application/stream+json; charset=utf-8",
    "text/html",
    "audio/mpeg",
    "",
    ";;;",
)
ENCODINGS = (
    "",
    "identity",
    "gzip",
    "deflate",
    "br",
    "zstd",
    "gzip, br",
    "nonsense",
    ",,,",
    "gzip,gzip,gzip,gzip",
)


def vocabulary(value: Any) -> set[str]:
    """Every key and every short string in a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(vocabulary, value.values()))
    if isinstance(value, list):
        return set().union(*map(vocabulary, value))
    return {value} if isinstance(value, str) and len(value) < 40 else set()


def jsons(case: Case) -> list[Any]:
    """The JSON values in a case's bodies."""
    found = []
    for text in (case.request_body, case.plain_body, *case.plain_body.replace(b"data:", b"\n").splitlines()):
        try:
            found.append(load(text))
        except Unreadable:
            continue
    return found


# Keys and values of every dialect, so that random JSON goes deep instead of failing at the door.
WORDS = sorted(set().union(*(vocabulary(value) for case in CASES for value in jsons(case))))
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
)
ANY_JSON = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=25,
)


def attempt(capture: Capture) -> tuple[list[Exchange], Unscored | None]:
    try:
        return parse(capture), None
    except Unscored as error:
        return [], error


def check(capture: Capture) -> list[Exchange]:
    exchanges, error = attempt(capture)
    if error is not None:
        assert error.cause in UNSCORED_CAUSES
        return []
    assert exchanges
    for exchange in exchanges:
        exchange.response.encode()  # no half surrogates
        exchange.prompt.encode()
        assert isinstance(exchange.model, str)
        assert exchange.input_tokens is None or exchange.input_tokens >= 0
        for message in exchange.conversation:
            message.text.encode()
    return exchanges


def built(
    case: Case,
    *,
    request: bytes | None = None,
    response: bytes | None = None,
    content_type: str | None = None,
    encoding: str | None = None,
    **more: Any,
) -> Capture:
    made = case.capture(response=response)
    if request is not None:
        made.request = BoundedCopy(request, b"", len(request))
    if content_type is not None:
        made.response_content_type = content_type
    if encoding is not None:
        made.response_content_encoding = encoding
    for key, value in more.items():
        setattr(made, key, value)
    return made


@settings(STEADY, max_examples=500)
@given(
    case=st.sampled_from(CASES),
    request=st.none() | st.binary(max_size=200),
    response=st.binary(max_size=400),
    content_type=st.sampled_from(CONTENT_TYPES),
    encoding=st.sampled_from(ENCODINGS),
    status=st.sampled_from((0, 101, 200, 204, 301, 400, 429, 500)),
    end=st.sampled_from(ENDS),
)
def test_random_bytes(case: Case, response: bytes, **more: Any) -> None:
    check(built(case, response=response, **more))


def mixed(value: Any, other: Any, draw: random.Random) -> Any:
    """`value` with some of its inner values replaced by `other`: the right shape with wrong types in it."""
    if draw.random() < 0.1:
        return other
    if isinstance(value, dict):
        return {key: mixed(item, other, draw) for key, item in value.items() if draw.random() > 0.03}
    if isinstance(value, list):
        return [mixed(item, other, draw) for item in value]
    return value


@settings(STEADY, max_examples=700)
@given(case=st.sampled_from(CASES), request=ANY_JSON, response=ANY_JSON, status=st.sampled_from((200, 400)))
def test_random_json(case: Case, request: Any, response: Any, status: int) -> None:
    check(built(case, response=json.dumps(response).encode(), encoding="", status=status))
    check(built(case, request=json.dumps(request).encode()))
    events = [response, request, *(response if isinstance(response, list) else ())]
    stream = "".join(f"event: {json.dumps(event)[:20]}\ndata: {json.dumps(event)}\n\n" for event in events)
    check(built(case, response=stream.encode(), encoding="", content_type="text/event-stream"))


@settings(STEADY, max_examples=700)
@given(case=st.sampled_from(CASES), other=ANY_JSON, draw=st.randoms(use_true_random=False))
def test_json_of_the_right_shape_with_wrong_types_in_it(case: Case, other: Any, draw: random.Random) -> None:
    values = [mixed(value, other, draw) for value in jsons(case)]
    request, *responses = [json.dumps(value).encode() for value in values]
    check(built(case, request=request))
    whole = responses[0] if responses else b"{}"
    check(built(case, response=whole, encoding="", content_type="application/json"))
    stream = b"".join(b"data: " + text + b"\n\n" for text in responses)
    check(built(case, response=stream, encoding="", content_type="text/event-stream", format=case.format))
    check(built(case, response=b"\n".join(responses), encoding="", content_type="application/x-ndjson"))


def mutated(body: bytes, other: bytes, draw: random.Random) -> bytes:
    """Bit flips, cuts, repetitions and splices."""
    out = bytearray(body)
    for _ in range(draw.randint(1, 4)):
        at, to = sorted((draw.randint(0, len(out)), draw.randint(0, len(out))))
        match draw.randint(0, 4):
            case 0 if out:
                out[at % len(out)] ^= 1 << draw.randint(0, 7)
            case 1:
                del out[at:]
            case 2:
                del out[at:to]
            case 3:
                out[at:at] = out[at:to]
            case _:
                out[at:to] = other[: draw.randint(0, 80)]
    return bytes(out)


@settings(STEADY, max_examples=1500)
@given(case=st.sampled_from(CASES), other=st.sampled_from(CASES), draw=st.randoms(use_true_random=False))
def test_mutated_corpus(case: Case, other: Case, draw: random.Random) -> None:
    response = mutated(case.response_body, other.response_body, draw)
    check(built(case, response=response, end=draw.choice(ENDS)))
    check(built(case, request=mutated(case.request_body, other.request_body, draw)))
    check(
        built(
            case, response=mutated(case.plain_body, other.plain_body, draw), encoding="", format=other.format
        )
    )
    head, tail = draw.randint(0, len(response)), draw.randint(0, len(response))
    made = built(case)
    made.response = BoundedCopy(
        response[:head], response[len(response) - tail :], head + tail + draw.randint(0, 5)
    )
    check(made)


@pytest.mark.parametrize("name", FORMATS)
def test_every_case_read_as_every_other_format(name: str) -> None:
    for case in CASES:
        check(built(case, format=name))


HOSTILE = {
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "closed nesting": b'{"messages":' + b"[" * 900 + b"]" * 900 + b"}",
    "nested content": b'{"messages":[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]}",
    "a huge number": b'{"messages":[],"n":' + b"9" * 100_000 + b"}",
    "infinity": b'{"messages":[],"prompt":"x","n":1e999,"choices":[{"index":1e999}]}',
    "a negative index": b'{"messages":[],"choices":[{"index":-1,"message":{"content":"x"}}]}',
    "half surrogates": b'{"messages":[{"role":"user","content":"\\ud800 \\udc00 \\ud83d\\ude00"}]}',
    "a UTF-16 body": '{"messages":[]}'.encode("utf-16"),
    "NaN": b'{"messages":[],"choices":[{"logprob":NaN}]}',
    "newlines": b"\n" * 200_000,
    "carriage returns": b"data: {}\r" * 20_000,
    "empty data": b"data:\n\n" * 20_000,
    "many backslashes": b'{"messages":"' + b"\\" * 100_001 + b'"}',
    "many choices": b'{"messages":[],"choices":['
    + b",".join([b'{"index":%d}' % i for i in range(5000)])
    + b"]}",
    "an unclosed array": b'[{"candidates":[{"content":"' + b'[{\\"' * 50_000,
    "zero preludes": b"\0" * 100_000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("name", FORMATS)
def test_hostile_bodies_are_read_quickly_and_calmly(name: str, body: bytes) -> None:
    case = next(case for case in CASES if case.format == name and case.status == 200 and case.expected)
    started = time.process_time()
    check(built(case, request=body))
    for content_type in CONTENT_TYPES[:4]:
        check(built(case, response=body, encoding="", content_type=content_type))
        cut = BoundedCopy(body[: len(body) // 2], body[-1000:], len(body) + 1)
        made = built(case, encoding="", content_type=content_type)
        made.response = cut
        check(made)
    assert time.process_time() - started < 5


def test_many_choices_are_bounded() -> None:
    case = next(case for case in CASES if case.name == "openai_chat/plain")
    assert len(check(built(case, response=HOSTILE["many choices"]))) == 1024


def test_many_choices_with_a_long_conversation_share_it() -> None:
    """1024 choices times 20 000 turns would be a gigabyte."""
    case = next(case for case in CASES if case.name == "openai_chat/plain")
    request = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}] * 20_000})
    exchanges = parse(built(case, request=request, response=HOSTILE["many choices"]))
    assert exchanges[0].conversation is exchanges[-1].conversation


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br"])
def test_a_bomb_on_either_side_is_truncated(encoding: str) -> None:
    case = next(case for case in CASES if case.name == "openai_chat/plain")
    bomb = encode(b"[" * (64 << 20), encoding)
    made = built(case, response=bomb, encoding=encoding)
    with pytest.raises(Unscored) as caught:
        parse(made)
    assert caught.value.cause == "truncated"
    made = built(case, request=bomb, request_content_encoding=encoding)
    with pytest.raises(Unscored) as caught:
        parse(made)
    assert caught.value.cause == "truncated"


def test_details_hold_no_text_of_the_body() -> None:
    case = next(case for case in CASES if case.name == "openai_chat/plain")
    for secret in (b"my-secret", b'{"my-secret": 1}', b'{"messages": "my-secret"}', b'["my-secret"]'):
        for capture in (built(case, request=secret), built(case, response=secret), built(case, status=500)):
            assert "my-secret" not in str(attempt(capture)[1])


def test_a_multipart_request_is_no_conversation() -> None:
    case = next(case for case in CASES if case.name == "openai_chat/plain")
    with pytest.raises(Unscored) as caught:
        parse(built(case, request=b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'))
    assert caught.value.cause == "not_a_conversation"


@pytest.mark.parametrize("name", ["", "soap", "openai"])
def test_an_unknown_format_is_no_conversation(name: str) -> None:
    with pytest.raises(Unscored) as caught:
        parse(built(CASES[0], format=name))
    assert caught.value.cause == "not_a_conversation"
