"""Ollama: chat and generate.

A stream, which is the default, is one JSON object a line; the last has `done` and the counts. A request
without messages or prompt only loads the model.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pure.formats.access import as_dict, as_int, as_str, dicts, need_list, text_of
from proxy.pure.formats.neutral import Asked, Format, Reply, Turn, error_of, split_system
from proxy.pure.formats.openai_chat import SYSTEM_ROLES, turn
from proxy.words.errors import Unreadable, Unscored


def asked_chat(body: dict[str, Any], path: str) -> Asked:  # noqa: ARG001 - the same signature for all formats
    if not body.get("messages"):
        raise Unscored("not_a_conversation", "a request to load a model")
    turns = [turn(message) for message in dicts(need_list(body, "messages"))]
    system, rest = split_system(turns, SYSTEM_ROLES, as_str(body.get("system")))
    return Asked(as_str(body.get("model")), system, rest)


def asked_generate(body: dict[str, Any], path: str) -> Asked:  # noqa: ARG001 - as above
    prompt = body.get("prompt")
    if not prompt:
        raise Unscored("not_a_conversation", "a request to load a model")
    if not isinstance(prompt, str):
        raise Unreadable("the request has no prompt")
    return Asked(as_str(body.get("model")), as_str(body.get("system")), (Turn("user", prompt, asking=True),))


class OllamaReply(Reply):
    def whole(self, body: dict[str, Any]) -> None:
        if any(key in body for key in ("message", "response", "done", "error")):
            self.event("", body)

    def event(self, name: str, data: dict[str, Any]) -> None:
        if error_of(data):
            self.fail()
            return
        self.named(data.get("model"))
        choice, message = self.choice(), as_dict(data.get("message"))
        choice.say(as_str(data.get("response")) or text_of(message.get("content")))
        for call in dicts(message.get("tool_calls")):
            choice.call(None, call.get("id"))  # calls come whole
        if data.get("done") is True:
            self.done = True
            choice.finish = as_str(data.get("done_reason")) or "stop"
            self.used(as_int(data.get("prompt_eval_count")), as_int(data.get("eval_count")))


CHAT: Final = Format("ollama_chat", "chat", "ollama", asked_chat, OllamaReply)
GENERATE: Final = Format("ollama_generate", "text_completion", "ollama", asked_generate, OllamaReply)
