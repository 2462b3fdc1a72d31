"""Cohere's chat, version 2.

Messages are like OpenAI's, replies like Anthropic's: typed content, and a stream that opens, fills and
closes each block. The reply names no model. A `tool_plan` is the model thinking aloud, not its answer.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pure.formats.access import as_dict, as_int, as_str, dicts, need_list, part_text
from proxy.pure.formats.neutral import Asked, Format, Reply, error_of, split_system
from proxy.pure.formats.openai_chat import SYSTEM_ROLES, turn

_FAILED: Final = frozenset({"ERROR", "TIMEOUT"})


def asked(body: dict[str, Any], path: str) -> Asked:  # noqa: ARG001 - the same signature for all formats
    turns = [turn(message) for message in dicts(need_list(body, "messages"))]
    system, rest = split_system(turns, SYSTEM_ROLES)
    return Asked(as_str(body.get("model")), system, rest)


class CohereReply(Reply):
    def whole(self, body: dict[str, Any]) -> None:
        message = as_dict(body.get("message"))
        if not message and "finish_reason" not in body:
            return
        choice = self.choice()
        for part in dicts(message.get("content")):
            self._part(part)
        choice.say(as_str(message.get("content")))
        for place, call in enumerate(dicts(message.get("tool_calls"))):
            choice.call(place, call.get("id"))
        self._end(body)

    def event(self, name: str, data: dict[str, Any]) -> None:
        kind = as_str(data.get("type")) or name
        delta = as_dict(data.get("delta"))
        message = as_dict(delta.get("message"))
        if kind in ("content-start", "content-delta"):
            self._part(as_dict(message.get("content")))
        elif kind == "tool-call-start":
            for call in dicts(message.get("tool_calls")):
                self.choice().call(data.get("index"), call.get("id"))
        elif kind == "message-end":
            self.done = True
            self._end(delta)
        elif kind == "error" or error_of(data):
            self.fail()

    def _part(self, part: dict[str, Any]) -> None:
        choice = self.choice()
        if "thinking" in part:
            choice.pause()
        else:
            choice.say(part_text(part))

    def _end(self, end: dict[str, Any]) -> None:
        choice = self.choice()
        choice.finish = as_str(end.get("finish_reason"))
        if choice.finish in _FAILED or end.get("error"):
            self.fail()
        usage = as_dict(end.get("usage"))
        for counts in (as_dict(usage.get("billed_units")), as_dict(usage.get("tokens"))):
            self.used(as_int(counts.get("input_tokens")), as_int(counts.get("output_tokens")))


FORMAT: Final = Format("cohere", "chat", "cohere", asked, CohereReply)
