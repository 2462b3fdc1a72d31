"""Gemini's generateContent, on Google AI and on Vertex.

A stream is the same object again and again, each with the next parts: as SSE with `alt=sse`, otherwise as
elements of one JSON array. A blocked prompt is answered with status 200 and no candidate at all.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pure.formats.access import as_dict, as_str, dicts, need_list, total
from proxy.pure.formats.neutral import Asked, Choice, Format, Kind, Reply, Turn, error_of
from proxy.pure.formats.paths import gemini_model
from proxy.words.exchange import NativeSignal

FINISH_SIGNALS: Final[dict[str, Kind]] = {
    "SAFETY": "provider_block",
    "PROHIBITED_CONTENT": "provider_block",
    "BLOCKLIST": "provider_block",
    "SPII": "provider_block",
    "RECITATION": "provider_block",
    "MODEL_ARMOR": "provider_block",
    "IMAGE_SAFETY": "provider_block",
    "IMAGE_PROHIBITED_CONTENT": "provider_block",
    "IMAGE_RECITATION": "provider_block",
}
_PRESENT: Final = ("candidates", "promptFeedback", "usageMetadata", "modelVersion")


def asked(body: dict[str, Any], path: str) -> Asked:
    turns = tuple(_turn(content) for content in dicts(need_list(body, "contents")))
    system = body.get("systemInstruction", body.get("system_instruction"))
    return Asked(gemini_model(path), _text(as_dict(system), "\n\n"), turns)


def _turn(content: dict[str, Any]) -> Turn:
    role = as_str(content.get("role")) or "user"
    if text := _text(content, "\n"):
        return Turn(role, text, asking=role == "user")
    return Turn(role, "\n".join(filter(None, map(_result, dicts(content.get("parts"))))))


def _text(content: dict[str, Any], separator: str) -> str:
    parts = [
        as_str(part.get("text")) for part in dicts(content.get("parts")) if part.get("thought") is not True
    ]
    return separator.join(filter(None, parts))


def _result(part: dict[str, Any]) -> str:
    """What a called function gave back; its values have names of its own."""
    response = part.get("functionResponse", part.get("function_response"))
    values = as_dict(as_dict(response).get("response")).values()
    return "\n".join(filter(None, map(as_str, values)))


class GenerateReply(Reply):
    def whole(self, body: dict[str, Any]) -> None:
        if not error_of(body) and any(key in body for key in _PRESENT):
            self.choice()  # no candidate and no reason happens, too
        self.event("", body)

    def event(self, name: str, data: dict[str, Any]) -> None:
        if error_of(data):
            self.fail()
        self.named(data.get("modelVersion"))
        self._feedback(as_dict(data.get("promptFeedback")))
        for candidate in dicts(data.get("candidates")):
            self._candidate(self.choice(candidate.get("index")), candidate)
        usage = as_dict(data.get("usageMetadata"))
        self.used(
            total(usage.get("promptTokenCount"), usage.get("toolUsePromptTokenCount")),
            total(usage.get("candidatesTokenCount"), usage.get("thoughtsTokenCount")),
        )

    def _feedback(self, feedback: dict[str, Any]) -> None:
        if reason := as_str(feedback.get("blockReason")):
            text = as_str(feedback.get("blockReasonMessage"))
            marker = f"promptFeedback.blockReason={reason}"
            self.fail(NativeSignal("provider_block", marker, _harms(feedback), text))

    def _candidate(self, choice: Choice, candidate: dict[str, Any]) -> None:
        for part in dicts(as_dict(candidate.get("content")).get("parts")):
            if "text" in part and part.get("thought") is not True:
                choice.say(as_str(part.get("text")))
            elif call := as_dict(part.get("functionCall")):
                choice.call(None, call.get("id"))
            else:
                choice.pause()
        choice.finished(candidate.get("finishReason"), FINISH_SIGNALS, "finishReason")
        if choice.native is not None:
            text = as_str(candidate.get("finishMessage"))
            choice.signal("provider_block", choice.native.marker, _harms(candidate), text)


def _harms(rated: dict[str, Any]) -> str:
    ratings = dicts(rated.get("safetyRatings"))
    return ",".join(sorted({as_str(item.get("category")) for item in ratings if item.get("blocked") is True}))


FORMAT: Final = Format("gemini", "generate_content", "gcp.gemini", asked, GenerateReply)
