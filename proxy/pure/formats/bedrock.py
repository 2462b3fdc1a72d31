"""Bedrock's Converse, in one piece or as a binary event stream.

A content block is an object with one key that says what it is (`text`, `toolUse`, `reasoningContent`, …).
The model stands in the path only. A guardrail answers in the model's place, with a text of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from proxy.pure.formats.access import as_dict, as_int, as_str, dicts, need_list, total
from proxy.pure.formats.neutral import Asked, Format, Kind, Reply, Turn
from proxy.pure.formats.paths import bedrock_model

STOP_SIGNALS: Final[dict[str, Kind]] = {
    "guardrail_intervened": "provider_block",
    "content_filtered": "provider_block",
}
# Where a guardrail's trace says what it blocked: policy, list, and the key of a name without user text.
_POLICIES: Final = (
    ("topicPolicy", "topics", "name"),
    ("contentPolicy", "filters", "type"),
    ("wordPolicy", "managedWordLists", "type"),
    ("wordPolicy", "customWords", ""),
    ("sensitiveInformationPolicy", "piiEntities", "type"),
    ("sensitiveInformationPolicy", "regexes", "name"),
    ("contextualGroundingPolicy", "filters", "type"),
)


def asked(body: dict[str, Any], path: str) -> Asked:
    messages = [] if "promptVariables" in body else need_list(body, "messages")  # a stored prompt has its own
    turns = tuple(turn for message in dicts(messages) for turn in _turns(message))
    system = "\n\n".join(filter(None, map(_text, dicts(body.get("system")))))
    return Asked(bedrock_model(path), system, turns)


def _turns(message: dict[str, Any]) -> Iterator[Turn]:
    """As with Anthropic: tool results are a turn of their own, before what the user says."""
    role, blocks = as_str(message.get("role")), list(dicts(message.get("content")))
    results = [as_dict(block["toolResult"]) for block in blocks if "toolResult" in block]
    if results:
        told = [_text(item) for result in results for item in dicts(result.get("content"))]
        yield Turn(role, "\n".join(filter(None, told)))
    text = "\n".join(filter(None, map(_text, blocks)))
    if text or not results:
        yield Turn(role, text, asking=role == "user")


def _text(block: dict[str, Any]) -> str:
    guarded = as_dict(as_dict(block.get("guardContent")).get("text"))
    return as_str(block.get("text")) or as_str(guarded.get("text"))


class ConverseReply(Reply):
    def whole(self, body: dict[str, Any]) -> None:
        if "output" not in body and "stopReason" not in body:
            return
        message = as_dict(as_dict(body.get("output")).get("message"))
        for place, block in enumerate(dicts(message.get("content"))):
            self._block(block, place)
        self.choice().finished(body.get("stopReason"), STOP_SIGNALS, "stopReason")
        self._metadata(body)

    def event(self, name: str, data: dict[str, Any]) -> None:
        place = data.get("contentBlockIndex")
        if name == "contentBlockStart":
            self._block(as_dict(data.get("start")), place)
        elif name == "contentBlockDelta":
            self._block(as_dict(data.get("delta")), place)
        elif name == "messageStop":
            self.done = True
            self.choice().finished(data.get("stopReason"), STOP_SIGNALS, "stopReason")
        elif name == "metadata":
            self._metadata(data)
        elif name.startswith("exception:"):
            self.fail()

    def _block(self, block: dict[str, Any], place: object) -> None:
        choice = self.choice()
        if text := as_str(block.get("text")):
            choice.say(text)
        elif "toolUse" in block:
            choice.call(place)  # a call's start and its deltas share their place
        elif block:
            choice.pause()

    def _metadata(self, data: dict[str, Any]) -> None:
        usage = as_dict(data.get("usage"))
        fresh = as_int(usage.get("inputTokens"))
        cached = (usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens"))
        self.used(None if fresh is None else total(fresh, *cached), as_int(usage.get("outputTokens")))
        choice = self.choice()
        if choice.native is not None:
            harms = ",".join(sorted(set(_blocked(as_dict(as_dict(data.get("trace")).get("guardrail"))))))
            choice.signal(choice.native.kind, choice.native.marker, harms)


def _blocked(guardrail: dict[str, Any]) -> Iterator[str]:
    for side in ("inputAssessment", "outputAssessments"):
        for by_guardrail in as_dict(guardrail.get(side)).values():
            for assessment in dicts(by_guardrail):
                for policy, items, key in _POLICIES:
                    for item in dicts(as_dict(assessment.get(policy)).get(items)):
                        if item.get("action") == "BLOCKED":
                            yield as_str(item.get(key)) or "custom_word"


FORMAT: Final = Format("bedrock", "chat", "aws.bedrock", asked, ConverseReply)
