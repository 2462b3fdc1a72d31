"""What a bounded copy leaves of a long stream: its beginning, its end, and a mark between."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.pure.formats.neutral import GAP
from proxy.pure.formats.registry import parse
from proxy.words.errors import Unreadable, Unscored
from proxy.words.exchange import BoundedCopy, Capture
from tests.corpus import encode, frame
from tests.pure.formats.profile import STEADY

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Tell me a long story."}]}
WORDS = [f"w{number} " for number in range(60)]
FULL = "".join(WORDS)


def sse(items: list[dict[str, object]], end: str = "\n") -> bytes:
    events = "".join(
        f"event: {item.get('type', 'x')}{end}data: {json.dumps(item)}{end}{end}" for item in items
    )
    return events.encode()


def openai(end: str = "\n") -> bytes:
    chunks: list[dict[str, object]] = [
        {"choices": [{"index": 0, "delta": {"content": word}}]} for word in WORDS
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return sse(chunks, end)


def anthropic() -> bytes:
    chunks: list[dict[str, object]] = [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}} for word in WORDS
    ]
    end: dict[str, object] = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 60},
    }
    return sse([*chunks, end, {"type": "message_stop"}])


def ollama() -> bytes:
    lines = [{"message": {"content": word}, "done": False} for word in WORDS]
    return b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, {"done": True}])


def bedrock() -> bytes:
    def event(kind: str, payload: object) -> bytes:
        return frame({":event-type": kind, ":message-type": "event"}, json.dumps(payload).encode())

    deltas = [event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in WORDS]
    return b"".join([*deltas, event("messageStop", {"stopReason": "end_turn"})])


STREAMS = {
    "openai_chat": ("/v1/chat/completions", "text/event-stream", openai()),
    "openai_chat with CRLF": ("/v1/chat/completions", "text/event-stream", openai("\r\n")),
    "anthropic": ("/v1/messages", "text/event-stream", anthropic()),
    "ollama_chat": ("/api/chat", "application/x-ndjson", ollama()),
    "bedrock": ("/model/m/converse-stream", "application/vnd.amazon.eventstream", bedrock()),
}


def capture(name: str, copy: BoundedCopy, **more: object) -> Capture:
    path, content_type, _ = STREAMS[name]
    request = json.dumps(
        {**CHAT, "messages": [{"role": "user", "content": "Tell me a long story."}]}
    ).encode()
    if name == "bedrock":
        request = request.replace(b'"Tell me a long story."', b'[{"text": "Tell me a long story."}]')
    made = Capture(
        id="1",
        route="r",
        format=name.partition(" ")[0],
        path=path,
        status=200,
        response_content_type=content_type,
        request=BoundedCopy(request, b"", len(request)),
        response=copy,
    )
    for key, value in more.items():
        setattr(made, key, value)
    return made


@settings(STEADY, max_examples=300)
@given(name=st.sampled_from(sorted(STREAMS)), head=st.integers(150, 1500), tail=st.integers(150, 1500))
def test_head_and_tail_are_joined_with_a_mark(name: str, head: int, tail: int) -> None:
    body = STREAMS[name][2]
    assume(head + tail < len(body))
    (exchange,) = parse(capture(name, BoundedCopy(body[:head], body[-tail:], len(body))))
    first, mark, last = exchange.response.partition(GAP)
    if mark:
        assert FULL.startswith(first)
        assert FULL.endswith(last)
    else:  # nothing came before the gap or after it, or nothing was left out
        assert first in FULL
    assert exchange.complete  # the end marker stands in the last 150 bytes of each
    assert exchange.streamed


def test_the_end_marker_in_the_tail_makes_it_complete() -> None:
    body = openai()
    (exchange,) = parse(capture("openai_chat", BoundedCopy(body[:400], body[-400:], len(body))))
    assert exchange.complete
    assert exchange.finish_reason == "stop"
    assert exchange.response.startswith("w0 w1 ")
    assert exchange.response.endswith("w59 ")
    assert exchange.response.count(GAP) == 1


def test_without_a_tail_the_head_is_read_and_is_not_complete() -> None:
    body = openai()
    (exchange,) = parse(capture("openai_chat", BoundedCopy(body[:400], b"", len(body))))
    assert not exchange.complete
    assert exchange.response.startswith("w0 w1 ")
    assert FULL.startswith(exchange.response)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_of_a_compressed_stream_only_the_head_is_read(encoding: str) -> None:
    plain = b"".join(
        b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n' % (i * i) for i in range(9000)
    )
    body = encode(plain, encoding)
    copy = BoundedCopy(body[: len(body) // 2], body[-20:], len(body))
    (exchange,) = parse(capture("openai_chat", copy, response_content_encoding=encoding))
    assert exchange.response.startswith("0 1 4 9 16 ")
    assert not exchange.complete
    assert GAP not in exchange.response


def test_the_last_event_of_a_responses_stream_holds_all_of_the_text() -> None:
    final = {"type": "message", "content": [{"type": "output_text", "text": FULL}]}
    chunks: list[dict[str, object]] = [
        {"type": "response.output_text.delta", "delta": word} for word in WORDS
    ]
    chunks.append({"type": "response.completed", "response": {"status": "completed", "output": [final]}})
    body = sse(chunks)
    made = capture("openai_chat", BoundedCopy(body[:200], body[-1000:], len(body)))
    made.format, made.request = "openai_responses", BoundedCopy(b'{"input":"Hi"}', b"", 14)
    (exchange,) = parse(made)
    assert exchange.response == FULL
    assert exchange.complete


def test_json_with_something_missing_is_truncated() -> None:
    body = b'{"choices":[{"message":{"content":"' + b"x" * 2000 + b'"}}]}'
    copy = BoundedCopy(body[:900], body[-900:], len(body))
    with pytest.raises(Unscored) as caught:
        parse(capture("openai_chat", copy, response_content_type="application/json"))
    assert caught.value.cause == "truncated"


def test_a_request_with_something_missing_is_truncated() -> None:
    made = capture("openai_chat", BoundedCopy(openai(), b"", len(openai())))
    made.request = BoundedCopy(made.request.head[:10], made.request.head[-10:], len(made.request.head))
    with pytest.raises(Unscored) as caught:
        parse(made)
    assert caught.value.cause == "truncated"


@pytest.mark.parametrize("encoding", ["", "gzip", "br", "zstd"])
def test_a_body_over_the_limit_counts_as_truncated(encoding: str) -> None:
    body = b'{"choices":[{"message":{"content":"' + b"x" * 5000 + b'"}}]}'
    packed = encode(body, encoding)
    made = capture(
        "openai_chat",
        BoundedCopy(packed, b"", len(packed)),
        response_content_type="application/json",
        response_content_encoding=encoding,
    )
    assert len(parse(made, inflated_limit=len(body))[0].response) == 5000
    with pytest.raises(Unscored) as caught:
        parse(made, inflated_limit=len(body) - 1)
    assert caught.value.cause == "truncated"


@pytest.mark.parametrize("end", ["client_gone", "upstream_broke", "upstream_silent"])
def test_json_that_broke_off_is_truncated_and_not_unreadable(end: str) -> None:
    copy = BoundedCopy(b'{"choices":[{"mess', b"", 18)
    with pytest.raises(Unscored) as caught:
        parse(capture("openai_chat", copy, response_content_type="application/json", end=end))
    assert caught.value.cause == "truncated"


def test_a_stream_that_broke_before_its_first_event_is_truncated() -> None:
    with pytest.raises(Unscored) as caught:
        parse(capture("openai_chat", BoundedCopy(b"", b"", 0), end="upstream_broke"))
    assert caught.value.cause == "truncated"
    with pytest.raises(Unreadable):
        parse(capture("openai_chat", BoundedCopy(b"", b"", 0)))


def test_a_stream_that_broke_in_the_middle_is_not_complete() -> None:
    body = openai()[:600]
    (exchange,) = parse(capture("openai_chat", BoundedCopy(body, b"", len(body)), end="client_gone"))
    assert exchange.response.startswith("w0 w1 ")
    assert not exchange.complete
