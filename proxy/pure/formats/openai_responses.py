"""OpenAI responses.

Both sides are lists of items: messages, calls, call outputs, reasoning. A stream tells how the `response`
object grows, by names like `response.output_text.delta`, and repeats all of it in its last event; that
last word counts, because it is whole even where the bounded copy left out the middle.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pure.formats import openai_errors
from proxy.pure.formats.access import as_dict, as_int, as_list, as_str, dicts, text_of
from proxy.pure.formats.neutral import Asked, Format, Kind, Reply, Turn, error_of, split_system
from proxy.pure.formats.openai_chat import SYSTEM_ROLES, turn
from proxy.pure.formats.paths import deployment
from proxy.words.errors import Unreadable

INCOMPLETE_SIGNALS: Final[dict[str, Kind]] = {"content_filter": "provider_block"}
_ENOUGH: Final = ("input", "prompt", "previous_response_id", "conversation")
_UNFINISHED: Final = frozenset({"queued", "in_progress", "cancelled"})
_LAST: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
REFUSAL: Final = "content.type=refusal"


def asked(body: dict[str, Any], path: str) -> Asked:
    if not any(body.get(key) for key in _ENOUGH):
        raise Unreadable("the request has no input")
    given = body.get("input")
    turns = [Turn("user", given, asking=True)] if isinstance(given, str) else list(map(_turn, dicts(given)))
    system, rest = split_system([turn for turn in turns if turn.role], SYSTEM_ROLES, _instructions(body))
    return Asked(as_str(body.get("model")) or deployment(path), system, rest)


def _instructions(body: dict[str, Any]) -> str:
    given = body.get("instructions")
    return text_of(given) or "\n\n".join(turn(item).text for item in dicts(given))


def _turn(item: dict[str, Any]) -> Turn:
    kind = as_str(item.get("type"))
    if kind in ("", "message"):
        return turn(item)
    if kind.endswith("_call_output"):
        return Turn("tool", text_of(item.get("output")))
    return Turn("", "")  # reasoning, calls, references: no turns


class ResponsesReply(Reply):
    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._begun: set[tuple[object, object]] = set()  # content parts that had a delta

    def whole(self, body: dict[str, Any]) -> None:
        if isinstance(body.get("output"), list) or as_dict(body.get("error")):
            self._response(body)

    def event(self, name: str, data: dict[str, Any]) -> None:
        kind = as_str(data.get("type")) or name
        choice = self.choice()
        if kind == "response.output_text.delta":
            self._begun.add(_part(data))
            choice.say(as_str(data.get("delta")))
        elif kind == "response.refusal.delta":
            self._begun.add(_part(data))
            choice.decline(as_str(data.get("delta")), REFUSAL)
        elif kind == "response.output_text.done" and _part(data) not in self._begun:
            choice.say(as_str(data.get("text")))
        elif kind == "response.refusal.done" and _part(data) not in self._begun:
            choice.decline(as_str(data.get("refusal")), REFUSAL)
        elif kind == "response.output_item.added":
            self._item({**as_dict(data.get("item")), "content": []}, data.get("output_index"))
        elif kind == "error":
            error = error_of(data)
            self.fail(openai_errors.blocked(error or data))
        elif kind in _LAST:
            self.done = True
            self._response(as_dict(data.get("response")))
        else:
            self.named(as_dict(data.get("response")).get("model"))

    def _response(self, body: dict[str, Any]) -> None:
        choice = self.choice()
        self.named(body.get("model"))
        output = as_list(body.get("output"))
        if any(item.get("type") == "message" for item in dicts(output)):
            choice.restart()
        for place, item in enumerate(output):
            self._item(as_dict(item), place)
        for verdict in dicts(body.get("content_filters")):  # Azure
            if verdict.get("blocked") is True:
                harms = openai_errors.filtered(verdict.get("content_filter_results"))
                choice.signal("provider_block", "content_filters", harms or "")
        usage = as_dict(body.get("usage"))
        self.used(as_int(usage.get("input_tokens")), as_int(usage.get("output_tokens")))
        status = as_str(body.get("status"))
        if error := error_of(body):
            self.fail(openai_errors.blocked(error))
        elif status in _UNFINISHED:
            self.unfinished = True
        else:
            choice.finish = status
        reason = as_dict(body.get("incomplete_details")).get("reason")
        choice.finished(reason, INCOMPLETE_SIGNALS, "incomplete_details.reason")

    def _item(self, item: dict[str, Any], place: object) -> None:
        choice, kind = self.choice(), as_str(item.get("type"))
        if kind == "message":
            choice.pause()
            for part in dicts(item.get("content")):
                if part.get("type") == "refusal":
                    choice.decline(as_str(part.get("refusal")), REFUSAL)
                else:
                    choice.say(text_of(part))
        elif kind.endswith("_call") or kind == "mcp_approval_request":
            choice.call(place, item.get("id"))


def _part(data: dict[str, Any]) -> tuple[object, object]:
    return as_int(data.get("output_index")), as_int(data.get("content_index"))


FORMAT: Final = Format("openai_responses", "chat", "openai", asked, ResponsesReply, openai_errors.blocked)
