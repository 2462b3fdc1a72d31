"""What the scripted chatbot puts on the wire: the two dialects, whole and streamed. No I/O, no clock.

Shapes follow the providers' published schemas closely enough that their own SDKs read them; the tests do so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from proxy.assembly.demo.script import Native

Api = Literal["openai", "anthropic"]
_PIECE: Final = re.compile(r"\s*\S{1,7}|\s+\Z")
_REFUSAL_TEXT: Final = "I'm sorry, but I can't assist with that request."
_BLOCKED_MESSAGE: Final = (
    "The response was filtered due to the prompt triggering the content management policy. "
    "Please modify your prompt and retry."
)


@dataclass(frozen=True, slots=True)
class Reply:
    """Everything that a rendering needs; `number` makes the ids, `created` is Unix time."""

    text: str
    model: str
    number: int
    created: int
    input_tokens: int
    native: Native | None = None
    include_usage: bool = False

    @property
    def output_tokens(self) -> int:
        return max(1, len(pieces(self.text)))


def pieces(text: str) -> list[str]:
    """Split a text into pieces of a token's size; joined, they are the text."""
    return _PIECE.findall(text)


def count_tokens(text: str) -> int:
    return len(pieces(text))


# --- OpenAI chat completions


def openai_whole(reply: Reply) -> dict[str, Any]:
    content, refusal, finish = _openai_content(reply)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": refusal, "annotations": []}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    if finish == "content_filter":
        choice["content_filter_results"] = _FILTERED
    return {**_openai_head(reply, "chat.completion"), "choices": [choice], "usage": _openai_usage(reply)}


def openai_events(reply: Reply) -> Iterator[bytes]:
    """The stream's events, each ready to be sent."""
    content, refusal, finish = _openai_content(reply)
    head = _openai_head(reply, "chat.completion.chunk")
    if reply.include_usage:
        head["usage"] = None

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None}
        choice["finish_reason"] = finish_reason
        if finish_reason == "content_filter":
            choice["content_filter_results"] = _FILTERED
        return _data({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": "" if refusal is None else None, "refusal": None})
    for piece in pieces(content or ""):
        yield chunk({"content": piece})
    for piece in pieces(refusal or ""):
        yield chunk({"refusal": piece})
    yield chunk({}, finish)
    if reply.include_usage:
        yield _data({**head, "choices": [], "usage": _openai_usage(reply)})
    yield b"data: [DONE]\n\n"


_FILTERED: Final = {
    "hate": {"filtered": False, "severity": "safe"},
    "self_harm": {"filtered": False, "severity": "safe"},
    "sexual": {"filtered": False, "severity": "safe"},
    "violence": {"filtered": True, "severity": "high"},
}


def openai_prompt_filter() -> dict[str, Any]:
    """The body of the HTTP 400 with which a prompt filter answers."""
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _FILTERED}
    return {
        "error": {
            "message": _BLOCKED_MESSAGE,
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": inner,
        }
    }


def _openai_content(reply: Reply) -> tuple[str | None, str | None, str]:
    """Content, refusal and finish reason."""
    if reply.native == "message_refusal":
        return None, reply.text, "stop"
    if reply.native == "content_filter":
        return "", None, "content_filter"
    return reply.text, None, "stop"


def _openai_head(reply: Reply, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-D{reply.number:028d}",
        "object": kind,
        "created": reply.created,
        "model": reply.model,
        "service_tier": "default",
        "system_fingerprint": "fp_5ca1ab1e00",
    }


def _openai_usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def openai_error(kind: str, message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


# --- Anthropic messages


def anthropic_whole(reply: Reply) -> dict[str, Any]:
    refused = reply.native == "stop_refusal"
    content = [] if refused else [{"type": "text", "text": reply.text}]
    usage = {**_anthropic_input(reply), "output_tokens": reply.output_tokens}
    return {**_anthropic_head(reply), "content": content, **_stop(reply), "usage": usage}


def anthropic_events(reply: Reply) -> Iterator[bytes]:
    """The stream's events, each ready to be sent."""
    start = {**_anthropic_head(reply), "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = {**_anthropic_input(reply), "output_tokens": 1}
    yield _event("message_start", {"message": start})
    if reply.native != "stop_refusal":
        yield _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
        yield _event("ping", {})
        for piece in pieces(reply.text):
            yield _event("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": piece}})
        yield _event("content_block_stop", {"index": 0})
    yield _event("message_delta", {"delta": _stop(reply), "usage": {"output_tokens": reply.output_tokens}})
    yield _event("message_stop", {})


def anthropic_error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_demo"}


def _anthropic_head(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_01D{reply.number:021d}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
    }


def _anthropic_input(reply: Reply) -> dict[str, Any]:
    return {
        "input_tokens": reply.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "service_tier": "standard",
    }


def _stop(reply: Reply) -> dict[str, Any]:
    if reply.native != "stop_refusal":
        return {"stop_reason": "end_turn", "stop_sequence": None}
    details = {"type": "refusal", "category": None, "explanation": _REFUSAL_TEXT}
    return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _event(name: str, value: dict[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + _data({"type": name, **value})


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
