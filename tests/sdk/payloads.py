"""What the scripted API answers, in the vendors' own shapes: one table a dialect, by the model's name.

A reply holds both forms, the whole body and the events of a stream; the request picks one. Every text is cut
into several deltas, every tool's arguments too, because that is where a stream can go wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Json = dict[str, Any]
ANSWER: Final = "Boil the pasta for nine minutes, then drain it. Grüße aus Köln! 🍝"
REFUSAL: Final = "I'm sorry, but I can't help with that."
HALF: Final = "First you take the"
RECIPE: Final = '{"title": "Pasta", "minutes": 9}'
ARGUMENTS: Final = '{"city": "Paris", "unit": "celsius"}'
INPUT_TOKENS, OUTPUT_TOKENS = 25, 7
CREATED: Final = 1_760_000_000


@dataclass(frozen=True)
class Reply:
    """One scripted answer. `after` is what follows the last event of a stream."""

    body: Json = field(default_factory=dict)
    events: tuple[bytes, ...] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: Literal["end", "cut"] = "end"


def pieces(text: str, size: int = 11) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def data(value: Json) -> bytes:
    """An event without a name, as in chat completions."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def named(value: Json) -> bytes:
    """An event named after its type, as in responses and messages."""
    return f"event: {value['type']}\n".encode() + data(value)


# --- OpenAI chat completions


def chat(*messages: Json, finish: str = "stop", model: str = "chat") -> Reply:
    """One message a choice."""
    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    whole = [
        {
            "index": index,
            "message": {"role": "assistant", "content": None, "refusal": None, **message},
            "logprobs": None,
            "finish_reason": finish,
        }
        for index, message in enumerate(messages)
    ]
    head = {"id": "chatcmpl-1", "created": CREATED, "model": model, "system_fingerprint": "fp_1"}
    body = {**head, "object": "chat.completion", "choices": whole, "usage": usage}
    chunk = {**head, "object": "chat.completion.chunk"}
    events = [
        data({**chunk, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]})
        for index, message in enumerate(messages)
        for delta, reason in _chat_deltas(message, finish)
    ]
    events += [data({**chunk, "choices": [], "usage": usage}), b"data: [DONE]\n\n"]
    return Reply(body, tuple(events))


def _chat_deltas(message: Json, finish: str) -> Iterator[tuple[Json, str | None]]:
    yield {"role": "assistant", "content": "", "refusal": None}, None
    for key in ("content", "refusal"):
        for piece in pieces(message.get(key) or ""):
            yield {key: piece}, None
    for place, call in enumerate(message.get("tool_calls", ())):
        name = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{"index": place, "id": call["id"], "type": "function", "function": name}]}, None
        for piece in pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}, None
    yield {}, finish


_CHAT_CALL: Final = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": ARGUMENTS},
}

# --- OpenAI responses


def responses(item: Json, *, status: str = "completed", why: str | None = None) -> Reply:
    head = {
        "id": "resp_1",
        "object": "response",
        "created_at": CREATED,
        "model": "responses",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    reason = {"reason": why} if why else None
    body = {**head, "status": status, "output": [item], "usage": usage, "incomplete_details": reason}
    begun = {**head, "status": "in_progress", "output": [], "usage": None}
    steps: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *(_message_steps(item) if item["type"] == "message" else _call_steps(item)),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": f"response.{status}", "response": body},
    ]
    return Reply(body, tuple(named({**step, "sequence_number": n}) for n, step in enumerate(steps)))


def _message_steps(item: Json) -> Iterator[Json]:
    yield {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**item, "status": "in_progress", "content": []},
    }
    (part,) = item["content"]
    key = "refusal" if part["type"] == "refusal" else "text"
    kind = "response.refusal" if key == "refusal" else "response.output_text"
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    logprobs: Json = {} if key == "refusal" else {"logprobs": []}
    yield {"type": "response.content_part.added", **at, "part": {**part, key: ""}}
    for piece in pieces(part[key]):
        yield {"type": f"{kind}.delta", **at, "delta": piece, **logprobs}
    yield {"type": f"{kind}.done", **at, key: part[key], **logprobs}
    yield {"type": "response.content_part.done", **at, "part": part}


def _call_steps(item: Json) -> Iterator[Json]:
    at = {"item_id": item["id"], "output_index": 0}
    added = {**item, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": 0, "item": added}
    for piece in pieces(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
    yield {
        "type": "response.function_call_arguments.done",
        **at,
        "name": item["name"],
        "arguments": item["arguments"],
    }


def _spoken(part: Json, status: str = "completed") -> Json:
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": [part]}


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


_RESPONSES_CALL: Final = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "get_weather",
    "arguments": ARGUMENTS,
}

# --- Anthropic messages


def messages(*blocks: Json, stop: str = "end_turn", details: Json | None = None) -> Reply:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "messages"}
    ended = {"stop_reason": stop, "stop_sequence": None, **({"stop_details": details} if details else {})}
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    begun: Json = {**head, "content": [], "stop_reason": None, "stop_sequence": None}
    steps: list[Json] = [
        {"type": "message_start", "message": {**begun, "usage": {**usage, "output_tokens": 1}}},
        {"type": "ping"},
    ]
    for index, block in enumerate(blocks):
        steps += _block_steps(index, block)
    steps += [
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": OUTPUT_TOKENS}},
        {"type": "message_stop"},
    ]
    body = {**head, "content": list(blocks), **ended, "usage": usage}
    return Reply(body, tuple(map(named, steps)))


def _block_steps(index: int, block: Json) -> Iterator[Json]:
    tool = block["type"] == "tool_use"
    empty = {**block, "input": {}} if tool else {**block, "text": ""}
    yield {"type": "content_block_start", "index": index, "content_block": empty}
    text = json.dumps(block["input"]) if tool else block["text"]
    kind, key = ("input_json_delta", "partial_json") if tool else ("text_delta", "text")
    for piece in pieces(text):
        yield {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: piece}}
    yield {"type": "content_block_stop", "index": index}


_TOOL_USE: Final = {
    "type": "tool_use",
    "id": "toolu_1",
    "name": "get_weather",
    "input": json.loads(ARGUMENTS),
}
_DECLINED: Final = {"type": "refusal", "category": "cyber", "explanation": "The request was flagged."}

# --- errors, and streams that end badly


def _openai_error(status: int, code: str) -> Json:
    return {"error": {"message": f"scripted {status}", "type": "scripted", "param": None, "code": code}}


def _anthropic_error(status: int, kind: str) -> Json:
    return {
        "type": "error",
        "error": {"type": kind, "message": f"scripted {status}"},
        "request_id": "req_scripted",
    }


_OPENAI_ERRORS: Final = {400: "invalid_value", 401: "invalid_api_key", 429: "rate_limit", 500: "server_error"}
_ANTHROPIC_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
WAIT: Final = {"retry-after": "1", "retry-after-ms": "20", "x-should-retry": "true"}


def _broken(reply: Reply, error: bytes) -> Reply:
    return Reply(reply.body, (*reply.events[:4], error))


def _cut(reply: Reply) -> Reply:
    return Reply(reply.body, reply.events[:4], after="cut")


_CHAT_PLAIN: Final = chat({"content": ANSWER})
_MESSAGES_PLAIN: Final = messages({"type": "text", "text": ANSWER})
_RESPONSES_PLAIN: Final = responses(_spoken(_text(ANSWER)))

REPLIES: Final[dict[str, dict[str, Reply]]] = {
    "/v1/chat/completions": {
        "plain": _CHAT_PLAIN,
        "two": chat({"content": ANSWER}, {"content": ANSWER.upper()}),
        "tools": chat({"tool_calls": [_CHAT_CALL]}, finish="tool_calls"),
        "json": chat({"content": RECIPE}),
        "refused": chat({"refusal": REFUSAL}),
        "filtered": chat({"content": HALF}, finish="content_filter"),
        "blocked": Reply(_openai_error(400, "content_filter"), status=400),
        "broken": _broken(_CHAT_PLAIN, data(_openai_error(500, "server_error"))),
        "cut": _cut(_CHAT_PLAIN),
        **{f"status-{n}": Reply(_openai_error(n, code), status=n) for n, code in _OPENAI_ERRORS.items()},
        "busy": Reply(_openai_error(429, "rate_limit"), status=429, headers=WAIT),
    },
    "/v1/responses": {
        "plain": _RESPONSES_PLAIN,
        "tools": responses(_RESPONSES_CALL),
        "json": responses(_spoken(_text(RECIPE))),
        "refused": responses(_spoken({"type": "refusal", "refusal": REFUSAL})),
        "filtered": responses(_spoken(_text(HALF), "incomplete"), status="incomplete", why="content_filter"),
        "broken": _broken(
            _RESPONSES_PLAIN,
            named(
                {
                    "type": "error",
                    "code": "server_error",
                    "message": "scripted",
                    "param": None,
                    "sequence_number": 4,
                }
            ),
        ),
    },
    "/v1/messages": {
        "plain": _MESSAGES_PLAIN,
        "tools": messages({"type": "text", "text": "Let me look."}, _TOOL_USE, stop="tool_use"),
        "json": messages({"type": "text", "text": RECIPE}),
        "refused": messages({"type": "text", "text": REFUSAL}, stop="refusal", details=_DECLINED),
        "broken": _broken(_MESSAGES_PLAIN, named(_anthropic_error(529, "overloaded_error"))),
        "cut": _cut(_MESSAGES_PLAIN),
        **{
            f"status-{n}": Reply(_anthropic_error(n, kind), status=n) for n, kind in _ANTHROPIC_ERRORS.items()
        },
        "busy": Reply(_anthropic_error(429, "rate_limit_error"), status=429, headers=WAIT),
    },
}

# --- what is no conversation

_MODEL: Final = {"id": "plain", "object": "model", "created": CREATED, "owned_by": "tests"}
_ANTHROPIC_MODEL: Final = {
    "id": "plain",
    "type": "model",
    "display_name": "Plain",
    "created_at": "2025-01-01T00:00:00Z",
}
PLAIN_PATHS: Final[dict[tuple[str, str], Json]] = {
    ("GET", "/v1/models"): {"object": "list", "data": [_MODEL], "has_more": False},
    ("GET", "/anthropic/v1/models"): {
        "data": [_ANTHROPIC_MODEL],
        "first_id": "plain",
        "last_id": "plain",
        "has_more": False,
    },
    ("POST", "/v1/embeddings"): {
        "object": "list",
        "model": "embed",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 1.0]}],
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    },
    ("POST", "/v1/messages/count_tokens"): {"input_tokens": INPUT_TOKENS},
}
