"""Anthropic messages.

Content is a list of typed blocks on both sides. A stream opens each block, adds deltas and closes it; text
blocks that touch are one text (citations split sentences), anything between them starts a new line. A
`fallback` block marks where a second model took over after the first had refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from proxy.pure.formats.access import (
    as_dict,
    as_int,
    as_list,
    as_str,
    dicts,
    need_list,
    part_text,
    text_of,
    total,
)
from proxy.pure.formats.neutral import Asked, Choice, Format, Kind, Reply, Turn, error_of
from proxy.words.exchange import NativeSignal

STOP_SIGNALS: Final[dict[str, Kind]] = {"refusal": "model_refusal"}
# The output filter has no code of its own: it is an invalid_request_error with this message.
BLOCK_MESSAGES: Final = frozenset({"Output blocked by content filtering policy"})


def asked(body: dict[str, Any], path: str) -> Asked:  # noqa: ARG001 - the same signature for all formats
    turns = tuple(turn for message in dicts(need_list(body, "messages")) for turn in _turns(message))
    return Asked(as_str(body.get("model")), _blank_lines(body.get("system")), turns)


def _blank_lines(system: object) -> str:
    if isinstance(system, list):
        return "\n\n".join(filter(None, map(part_text, system)))
    return text_of(system)


def _turns(message: dict[str, Any]) -> Iterator[Turn]:
    """Tool results come in a user's message, before what the user says; they are a turn of their own."""
    role, content = as_str(message.get("role")), message.get("content")
    results = [
        text_of(block.get("content")) for block in dicts(content) if block.get("type") == "tool_result"
    ]
    if results:
        yield Turn(role, "\n".join(filter(None, results)))
    text = text_of(content)
    if text or not results:
        yield Turn(role, text, asking=role == "user")


def blocked(error: dict[str, Any]) -> NativeSignal | None:
    message = as_str(error.get("message"))
    if message in BLOCK_MESSAGES:
        return NativeSignal("provider_block", "error.message", text=message)
    return None


class MessagesReply(Reply):
    def whole(self, body: dict[str, Any]) -> None:
        if (error := error_of(body)) or body.get("type") == "error":
            self.fail(blocked(error))
        elif isinstance(body.get("content"), list):
            self._message(body)
            self._stopped(body)

    def event(self, name: str, data: dict[str, Any]) -> None:
        kind = as_str(data.get("type")) or name
        if kind == "message_start":
            self._message(as_dict(data.get("message")))
        elif kind == "content_block_start":
            self._block(self.choice(), as_dict(data.get("content_block")), data.get("index"))
        elif kind == "content_block_delta":
            delta = as_dict(data.get("delta"))
            if delta.get("type") == "text_delta":
                self.choice().say(as_str(delta.get("text")))
        elif kind == "message_delta":
            self._stopped(as_dict(data.get("delta")))
            self._usage(data.get("usage"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "error":
            self.fail(blocked(error_of(data)))

    def _message(self, message: dict[str, Any]) -> None:
        self.named(message.get("model"))
        self._usage(message.get("usage"))
        choice = self.choice()
        for place, block in enumerate(as_list(message.get("content"))):
            self._block(choice, as_dict(block), place)

    def _block(self, choice: Choice, block: dict[str, Any], place: object) -> None:
        kind = as_str(block.get("type"))
        if kind == "text":
            choice.say(as_str(block.get("text")))
            return
        choice.pause()
        if kind.endswith("tool_use"):  # also server_tool_use and mcp_tool_use
            choice.call(place, block.get("id"))
        elif kind == "fallback":
            category = as_str(as_dict(block.get("trigger")).get("category"))
            choice.signal("model_refusal", "content.type=fallback", category)

    def _stopped(self, delta: dict[str, Any]) -> None:
        choice, details = self.choice(), as_dict(delta.get("stop_details"))
        choice.finished(delta.get("stop_reason"), STOP_SIGNALS, "stop_reason")
        if details.get("type") == "refusal":
            category, text = as_str(details.get("category")), as_str(details.get("explanation"))
            choice.signal("model_refusal", "stop_reason=refusal", category, text)

    def _usage(self, given: object) -> None:
        """All input counts: what was read from the cache and what was written to it are apart."""
        usage = as_dict(given)
        cached = (usage.get("cache_creation_input_tokens"), usage.get("cache_read_input_tokens"))
        fresh = as_int(usage.get("input_tokens"))
        self.used(None if fresh is None else total(fresh, *cached), as_int(usage.get("output_tokens")))


FORMAT: Final = Format("anthropic", "chat", "anthropic", asked, MessagesReply, blocked)
