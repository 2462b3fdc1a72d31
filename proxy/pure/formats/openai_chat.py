"""OpenAI chat completions, and all who speak it: Azure, vLLM, Mistral, Groq, Together, LiteLLM, OpenRouter.

A stream's `delta` has the shape of a `message`, so both go through one function. Reasoning travels under
names of its own (`reasoning_content`, `reasoning`) and is never looked at.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pure.formats import gemini, openai_errors
from proxy.pure.formats.access import as_dict, as_int, as_str, dicts, need_list, text_of
from proxy.pure.formats.neutral import Asked, Choice, Format, Kind, Reply, Turn, error_of, split_system
from proxy.pure.formats.paths import deployment
from proxy.words.exchange import NativeSignal

SYSTEM_ROLES: Final = frozenset({"system", "developer"})
FINISH_SIGNALS: Final[dict[str, Kind]] = {
    "content_filter": "provider_block",
    "refusal": "model_refusal",
    **gemini.FINISH_SIGNALS,  # Google's OpenAI dialect passes its own words on
}
_PROMPT_FILTERS: Final = frozenset({"prompt_filter_results", "prompt_annotations"})  # Azure, now and once


def asked(body: dict[str, Any], path: str) -> Asked:
    turns = [turn(message) for message in dicts(need_list(body, "messages"))]
    system, rest = split_system(turns, SYSTEM_ROLES)
    return Asked(as_str(body.get("model")) or deployment(path), system, rest)


def turn(message: dict[str, Any]) -> Turn:
    role = as_str(message.get("role"))
    text = text_of(message.get("content")) or as_str(message.get("refusal"))
    return Turn(role, text, asking=role == "user")


class ChatReply(Reply):
    def whole(self, body: dict[str, Any]) -> None:
        self.event("", body)

    def event(self, name: str, data: dict[str, Any]) -> None:
        """Called for every token of a stream: what is rare is looked for only where its key is."""
        if "error" in data or "error" in (name, data.get("object")):  # vLLM: an object of its own
            self._error(name, data)
        self.named(data.get("model"))
        for key in _PROMPT_FILTERS & data.keys():
            for results in dicts(data[key]):
                harms = openai_errors.filtered(results.get("content_filter_results"))
                if harms is not None:
                    self.fail(NativeSignal("provider_block", "prompt_filter_results", harms))
        for item in dicts(data.get("choices")):
            self._choice(item)
        groq = as_dict(data.get("x_groq"))  # where Groq puts a stream's usage
        for usage in (groq.get("usage"), data.get("usage")):
            if isinstance(usage, dict):
                self.used(as_int(usage.get("prompt_tokens")), as_int(usage.get("completion_tokens")))

    def _error(self, name: str, data: dict[str, Any]) -> None:
        error = error_of(data)
        if error or "error" in (name, data.get("object")):
            self.fail(openai_errors.blocked(error))

    def _choice(self, item: dict[str, Any]) -> None:
        choice = self.choice(item.get("index"))
        self.say(choice, item)
        choice.finished(item.get("finish_reason"), FINISH_SIGNALS, "finish_reason")
        if results := item.get("content_filter_results"):
            harms = openai_errors.filtered(results)
            if harms is not None:
                choice.signal("provider_block", "content_filter_results", harms)

    def say(self, choice: Choice, item: dict[str, Any]) -> None:
        """Take what one entry of `choices` says. Completions say it elsewhere and override this."""
        for key in ("delta", "message"):
            message = item.get(key)
            if not isinstance(message, dict):
                continue
            choice.say(
                text_of(message.get("content")) or as_str(as_dict(message.get("audio")).get("transcript"))
            )
            choice.decline(as_str(message.get("refusal")), "message.refusal")
            for place, call in enumerate(dicts(message.get("tool_calls"))):
                choice.call(call.get("index", place), call.get("id"))
            if as_dict(message.get("function_call")):  # the predecessor of tool_calls
                choice.call(0)


FORMAT: Final = Format("openai_chat", "chat", "openai", asked, ChatReply, openai_errors.blocked)
