"""Offline rows: `{"prompt", "response"}`, or `{"request", "response"}` with a provider's raw JSON.

Raw rows go through the same parsers as live traffic; which one is told by the shape of the response, or by
an explicit `"format"` key. First fit in the table wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from proxy.pure.formats.registry import FORMATS, parse
from proxy.words.errors import Unreadable
from proxy.words.exchange import BoundedCopy, Capture, Exchange

Shape = Callable[[dict[str, Any]], bool]


def _first(row: dict[str, Any], key: str) -> dict[str, Any]:
    items = row.get(key)
    return items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}


_SHAPES: Final[tuple[tuple[str, str, Shape], ...]] = (
    ("openai_chat", "/v1/chat/completions", lambda r: "message" in _first(r, "choices")),
    ("openai_completions", "/v1/completions", lambda r: "text" in _first(r, "choices")),
    ("openai_responses", "/v1/responses", lambda r: isinstance(r.get("output"), list)),
    ("anthropic", "/v1/messages", lambda r: "stop_reason" in r and isinstance(r.get("content"), list)),
    ("gemini", "/v1beta/models/m:generateContent", lambda r: "candidates" in r or "promptFeedback" in r),
    ("bedrock", "/model/m/converse", lambda r: "stopReason" in r),
    ("ollama_chat", "/api/chat", lambda r: "done" in r and "message" in r),
    ("ollama_generate", "/api/generate", lambda r: "done" in r and "response" in r),
    ("cohere", "/v2/chat", lambda r: "finish_reason" in r and "message" in r),
)


def exchanges_of(row: object) -> list[Exchange]:
    """The exchanges of one row. Raises Unreadable where it is none, Unscored as `parse` does."""
    if not isinstance(row, dict):
        raise Unreadable("not an object")
    request, response = row.get("request"), row.get("response")
    if isinstance(row.get("prompt"), str) and isinstance(response, str):
        return [Exchange(model="", prompt=row["prompt"], response=response)]
    if isinstance(request, dict) and isinstance(response, dict):
        return parse(_capture(str(row.get("format", "")), request, response))
    raise Unreadable("neither prompt and response as text nor request and response as objects")


def _capture(format_name: str, request: dict[str, Any], response: dict[str, Any]) -> Capture:
    if format_name and format_name not in FORMATS:
        raise Unreadable("an unknown format")
    for name, path, fits in _SHAPES:
        if name == format_name or (not format_name and fits(response)):
            bodies = [orjson.dumps(part) for part in (request, response)]
            copies = [BoundedCopy(body, b"", len(body)) for body in bodies]
            return Capture(
                id="",
                route="",
                format=name,
                path=path,
                status=200,
                response_content_type="application/json",
                request=copies[0],
                response=copies[1],
            )
    raise Unreadable("a response of no known shape")
