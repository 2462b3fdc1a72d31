"""Which path speaks which format.

The data side asks this for every request, so the file imports nothing outside the standard library and a
look-up costs one split and one dictionary access. A path is recognised by its end, so any prefix works
(`/openai/v1/…`, `/openai/deployments/x/…`, a gateway's own). What looks similar and is not a conversation
(`/v1/messages/count_tokens`, `/v1/responses/{id}`) ends in another segment and falls through by itself.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

# Last path segment → the endings that count, most particular first.
_ENDINGS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "completions": (
        ("/chat/completions", "openai_chat"),
        ("/agents/completions", "openai_chat"),  # Mistral's agents speak chat
        ("/fim/completions", ""),  # Mistral's fill-in-the-middle asks nothing of anybody
        ("/completions", "openai_completions"),
    ),
    "responses": (("/responses", "openai_responses"),),
    "messages": (("/v1/messages", "anthropic"),),  # not "/messages": OpenAI threads have one too
    "chat": (("/v2/chat", "cohere"), ("/api/chat", "ollama_chat")),
    "generate": (("/api/generate", "ollama_generate"),),
    "converse": (("/converse", "bedrock"),),
    "converse-stream": (("/converse-stream", "bedrock"),),
}
_GEMINI: Final = tuple(
    colon + verb for colon in (":", "%3A", "%3a") for verb in ("generateContent", "streamGenerateContent")
)


def recognise(method: str, path: str) -> str:
    """The format's name, or "" when it is no conversation. `path` has no query; it may be encoded."""
    if method != "POST":
        return ""
    path = path.rstrip("/")
    for ending, name in _ENDINGS.get(path[path.rfind("/") + 1 :], ()):
        if path.endswith(ending):
            return name if name != "bedrock" or "/model/" in path else ""
    return "gemini" if path.endswith(_GEMINI) else ""


def deployment(path: str) -> str:
    """Azure's deployment name (`/openai/deployments/NAME/chat/completions`): its requests name no model."""
    _, found, rest = path.partition("/deployments/")
    return unquote(rest.partition("/")[0]) if found else ""


def bedrock_model(path: str) -> str:
    """`/model/ID/converse`; an ID may be an ARN with slashes and colons, encoded or not."""
    return unquote(path.rstrip("/").rpartition("/model/")[2].rpartition("/")[0])


def gemini_model(path: str) -> str:
    """`…/models/ID:generateContent`."""
    return unquote(path.rstrip("/").rpartition("/")[2]).rpartition(":")[0]
