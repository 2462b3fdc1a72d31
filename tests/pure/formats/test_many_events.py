"""A reply of very many events costs a bounded time."""

from __future__ import annotations

import pytest

from proxy.pure.formats.registry import MAX_EVENTS, parse
from proxy.words.errors import Unscored
from proxy.words.exchange import BoundedCopy, Capture

REQUEST = b'{"model": "m", "contents": [], "messages": [{"role": "user", "content": "x"}]}'


@pytest.mark.parametrize(
    ("form", "path", "kind", "body"),
    [
        (
            "gemini",
            "/v1beta/models/m:streamGenerateContent",
            "application/json",
            b"[" + b"{}," * 60_000 + b"{}]",
        ),
        ("ollama_chat", "/api/chat", "application/x-ndjson", b"{}\n" * 60_000),
        ("openai_chat", "/v1/chat/completions", "text/event-stream", b"data: {}\n\n" * 60_000),
    ],
)
def test_more_events_than_are_read_count_as_truncated(form: str, path: str, kind: str, body: bytes) -> None:
    assert body.count(b"{}") > MAX_EVENTS
    capture = Capture(
        id="",
        route="r",
        format=form,
        path=path,
        status=200,
        response_content_type=kind,
        request=BoundedCopy(REQUEST, b"", len(REQUEST)),
        response=BoundedCopy(body, b"", len(body)),
    )
    with pytest.raises(Unscored) as caught:
        parse(capture)
    assert caught.value.cause == "truncated"
