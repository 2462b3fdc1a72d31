"""What a response means beyond its JSON: status, content type, keep-alives, precedence of signals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.pure.formats import anthropic, bedrock, gemini, openai_chat, openai_errors, openai_responses
from proxy.pure.formats.registry import FORMATS, parse
from proxy.words.errors import Unreadable, Unscored
from proxy.words.exchange import BoundedCopy, Capture, Exchange, NativeSignal

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
OK = {"model": "m", "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}


def capture(response: bytes | dict[str, Any], request: Any = None, **more: Any) -> Capture:
    body = response if isinstance(response, bytes) else json.dumps(response).encode()
    asked = json.dumps(REQUEST if request is None else request).encode()
    made = Capture(
        id="1",
        route="r",
        format="openai_chat",
        path="/v1/chat/completions",
        status=200,
        response_content_type="application/json",
        request=BoundedCopy(asked, b"", len(asked)),
        response=BoundedCopy(body, b"", len(body)),
    )
    for key, value in more.items():
        setattr(made, key, value)
    return made


def cause(made: Capture) -> str:
    with pytest.raises(Unscored) as caught:
        parse(made)
    return caught.value.cause


def stream(*data: str, **more: Any) -> list[Exchange]:
    body = "".join(f"data: {item}\n\n" for item in data).encode()
    return parse(capture(body, response_content_type="text/event-stream", **more))


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def test_every_format_names_itself_and_its_telemetry_words() -> None:
    for name, form in FORMATS.items():
        assert form.name == name
        assert form.operation in ("chat", "text_completion", "generate_content")
        assert form.provider


@pytest.mark.parametrize("status", [101, 204, 301, 304, 400, 404, 500, 599])
def test_a_status_that_is_no_success_is_the_upstreams_error(status: int) -> None:
    expected = "unreadable" if status == 204 else "upstream_error"
    assert cause(capture(b"", status=status)) == expected


def test_no_response_at_all_is_truncated() -> None:
    assert cause(capture(b"", status=0, end="client_gone")) == "truncated"
    assert cause(capture(b"", status=0)) == "upstream_error"


@pytest.mark.parametrize(
    "content_type", ["audio/mpeg", "image/png", "Video/mp4", "multipart/mixed; boundary=x"]
)
def test_a_response_that_is_no_text_is_no_conversation(content_type: str) -> None:
    assert cause(capture(b"\x00\x01", response_content_type=content_type)) == "not_a_conversation"


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/octet-stream", "APPLICATION/JSON; x"]
)
def test_json_is_recognised_under_any_other_content_type(content_type: str) -> None:
    assert parse(capture(OK, response_content_type=content_type))[0].response == "Hello"


@pytest.mark.parametrize(
    "response", [b"[]", b"5", b"null", b'{"foo": 1}', b'{"choices": []}', b'{"choices": null}']
)
def test_json_without_what_the_format_has_is_unreadable(response: bytes) -> None:
    assert cause(capture(response)) == "unreadable"


@pytest.mark.parametrize("request_body", [[], 5, {}, {"messages": None}, {"messages": {"role": "user"}}])
def test_a_request_without_what_the_format_needs_is_unreadable(request_body: Any) -> None:
    assert cause(capture(OK, request=request_body)) == "unreadable"


def test_a_null_request_is_unreadable() -> None:
    made = capture(OK)
    made.request = BoundedCopy(b"null", b"", 4)
    assert cause(made) == "unreadable"


def test_keep_alives_that_are_no_json_are_passed_over() -> None:
    (exchange,) = stream(
        "ping", chunk({"content": "Hel"}), "", "2026-01-01", chunk({"content": "lo"}, "stop")
    )
    assert exchange.response == "Hello"
    named = (
        b"event: heartbeat\ndata: {not json\n\ndata: " + chunk({"content": "x"}, "stop").encode() + b"\n\n"
    )
    assert parse(capture(named, response_content_type="text/event-stream"))[0].response == "x"
    with pytest.raises(Unreadable):
        stream("ping", "pong")


@pytest.mark.parametrize("name", ["ping", "keep-alive", "keepalive", "heartbeat"])
def test_events_whose_name_says_keep_alive_may_hold_anything(name: str) -> None:
    event = f"event: {name}\ndata: {{not json\n\ndata: " + chunk({"content": "x"}, "stop") + "\n\n"
    assert parse(capture(event.encode(), response_content_type="text/event-stream"))[0].response == "x"


def test_broken_json_in_the_middle_of_a_stream_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        stream(chunk({"content": "Hel"}), '{"choices": [', chunk({"content": "lo"}, "stop"))


def test_an_error_object_of_vllm_is_an_error() -> None:
    with pytest.raises(Unscored) as caught:
        stream('{"object": "error", "message": "x", "code": 400}', "[DONE]")
    assert caught.value.cause == "upstream_error"


def test_a_prompt_filter_that_fired_blocks_every_choice() -> None:
    results = {"prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]}
    exchanges = parse(capture({**OK, **results, "choices": [{"index": 0}, {"index": 1}]}))
    signal = NativeSignal("provider_block", "prompt_filter_results", "hate")
    assert [exchange.native for exchange in exchanges] == [signal, signal]


def test_a_block_outranks_a_refusal() -> None:
    message = {"content": None, "refusal": "No."}
    (exchange,) = parse(capture({"choices": [{"message": message, "finish_reason": "content_filter"}]}))
    assert exchange.native == NativeSignal("provider_block", "finish_reason=content_filter")
    assert exchange.response == "No."
    error = json.dumps({"error": {"code": "content_filter", "message": "blocked"}})
    (exchange,) = stream(chunk({"content": "No"}, "refusal"), error)
    assert exchange.native == NativeSignal("provider_block", "error.code=content_filter", text="blocked")
    assert exchange.complete


def test_text_beside_a_refusal_stays_the_response() -> None:
    message = {"content": "Here is a part.", "refusal": "The rest not."}
    (exchange,) = parse(capture({"choices": [{"message": message, "finish_reason": "stop"}]}))
    assert exchange.response == "Here is a part."
    assert exchange.native == NativeSignal("model_refusal", "message.refusal", text="The rest not.")


@pytest.mark.parametrize("end", ["client_gone", "upstream_broke", "upstream_silent"])
def test_an_end_marker_makes_complete_whatever_became_of_the_connection(end: str) -> None:
    assert stream(chunk({"content": "x"}, "stop"), end=end)[0].complete
    assert stream(chunk({"content": "x"}), "[DONE]", end=end)[0].complete
    assert not stream(chunk({"content": "x"}), end=end)[0].complete
    assert parse(capture(OK, end=end))[0].complete
    assert not parse(capture({"choices": [{"message": {"content": "x"}}]}, end=end))[0].complete


def test_a_stream_that_ends_cleanly_without_a_marker_is_not_complete() -> None:
    assert not stream(chunk({"content": "x"}))[0].complete


def test_tool_calls_are_counted_once_whatever_the_server_repeats() -> None:
    def call(**more: Any) -> str:
        return chunk({"tool_calls": [more]})

    assert stream(call(index=0, id="a"), call(index=0), call(index=0, id=""), "[DONE]")[0].tool_calls == 1
    assert stream(call(index=0, id="a"), call(index=0, id="a"), "[DONE]")[0].tool_calls == 1
    assert stream(call(index=0, id="a"), call(index=0, id="b"), "[DONE]")[0].tool_calls == 2
    assert stream(call(index=0), call(index=0), call(index=1), "[DONE]")[0].tool_calls == 2
    calls: dict[str, Any] = {"content": None, "tool_calls": [{"function": {}}, {"function": {}}]}
    assert parse(capture({"choices": [{"message": calls}]}))[0].tool_calls == 2


def test_an_empty_answer_is_an_exchange_for_the_monitor_to_judge() -> None:
    (exchange,) = parse(capture({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}))
    assert exchange.response == ""
    assert exchange.native is None
    assert exchange.complete


def test_thoughts_in_the_text_are_cut_off_only_at_its_start() -> None:
    def said(text: str) -> str:
        return parse(capture({"choices": [{"message": {"content": text}}]}))[0].response

    assert said("\n<think>no</think>\n\nYes.") == "Yes."
    assert said("<think>never closed") == ""
    assert said("The tag <think>x</think> hides.") == "The tag <think>x</think> hides."


BLOCKS = [
    *(("openai_chat", reason) for reason in openai_chat.FINISH_SIGNALS if reason != "refusal"),
    *(("gemini", reason) for reason in gemini.FINISH_SIGNALS),
    *(("bedrock", reason) for reason in bedrock.STOP_SIGNALS),
]


def test_the_words_of_the_design_are_all_in_the_tables() -> None:
    """The table of DESIGN.md, section 4, word by word."""
    assert {"content_filter", "refusal"} <= openai_chat.FINISH_SIGNALS.keys()
    assert gemini.FINISH_SIGNALS.keys() >= {"SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION"}
    assert bedrock.STOP_SIGNALS.keys() == {"guardrail_intervened", "content_filtered"}
    assert anthropic.STOP_SIGNALS == {"refusal": "model_refusal"}
    assert openai_responses.INCOMPLETE_SIGNALS == {"content_filter": "provider_block"}
    assert "content_filter" in openai_errors.BLOCK_CODES


@pytest.mark.parametrize("code", sorted(openai_errors.BLOCK_CODES))
@pytest.mark.parametrize("name", ["openai_chat", "openai_completions", "openai_responses"])
def test_an_error_by_status_with_a_blocks_code_is_a_block(name: str, code: str) -> None:
    request = {"messages": [], "prompt": "Hi", "input": "Hi"}
    error = {"error": {"code": code, "message": "Flagged."}}
    (exchange,) = parse(capture(error, request=request, format=name, status=400))
    assert exchange.native == NativeSignal("provider_block", f"error.code={code}", text="Flagged.")
    assert exchange.response == ""
    assert exchange.complete


@pytest.mark.parametrize(("name", "reason"), BLOCKS)
def test_a_stop_reason_of_a_filter_is_a_block(name: str, reason: str) -> None:
    request: dict[str, list[object]] = {"messages": [], "contents": []}
    response = {
        "choices": [{"message": {"content": "x"}, "finish_reason": reason}],
        "candidates": [{"finishReason": reason}],
        "stopReason": reason,
    }
    (exchange,) = parse(capture(response, request=request, format=name))
    assert exchange.native is not None
    assert exchange.native.kind == "provider_block"
    assert exchange.native.marker.endswith("=" + reason)
    assert exchange.finish_reason == reason
