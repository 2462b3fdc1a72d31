"""OpenAI completions, the older API: a bare prompt, or several at once, continued.

With several prompts and n continuations each, choice i belongs to prompt i // n. A prompt of token numbers
has no text. Everything about the reply but the place of the text is as in chat.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pure.formats import openai_errors
from proxy.pure.formats.access import as_int, as_list, as_str
from proxy.pure.formats.neutral import Asked, Choice, Format
from proxy.pure.formats.openai_chat import ChatReply
from proxy.pure.formats.paths import deployment
from proxy.words.errors import Unreadable


def asked(body: dict[str, Any], path: str) -> Asked:
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list):
        raise Unreadable("the request has no prompt")
    several = [as_str(item) for item in as_list(prompt) if not isinstance(item, int)]
    return Asked(
        as_str(body.get("model")) or deployment(path),
        batch=tuple(several) or (as_str(prompt),),
        per_prompt=as_int(body.get("n")) or 1,
        echo=body.get("echo") is True,
    )


class CompletionsReply(ChatReply):
    def say(self, choice: Choice, item: dict[str, Any]) -> None:
        choice.say(as_str(item.get("text")))


FORMAT: Final = Format(
    "openai_completions", "text_completion", "openai", asked, CompletionsReply, openai_errors.blocked
)
