"""From a capture to its exchanges: the one way in, and the table of all formats.

    capture ─ request  ─ inflate ─ JSON ─ Format.asked ──────────────┐
            └ response ─ inflate ─ framing ─ events ─ Format.reply ──┴─ exchanges

Whatever the bytes, `parse` raises only Unscored or Unreadable. It knows nothing of the classifier and
judges nothing: it says what the provider said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from proxy.pure.formats import (
    anthropic,
    bedrock,
    cohere,
    gemini,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
)
from proxy.pure.formats.access import as_dict, load
from proxy.pure.formats.neutral import Asked, Format, Reply, error_of
from proxy.pure.formats.paths import recognise
from proxy.pure.formats.wire import GAP_HERE, Body, events, framing_of, is_noise, open_body
from proxy.words.errors import Unreadable, Unscored
from proxy.words.exchange import Capture, Exchange

__all__ = ["FORMATS", "Format", "parse", "recognise"]

FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        form.name: form
        for form in (
            openai_chat.FORMAT,
            openai_completions.FORMAT,
            openai_responses.FORMAT,
            anthropic.FORMAT,
            gemini.FORMAT,
            bedrock.FORMAT,
            ollama.CHAT,
            ollama.GENERATE,
            cohere.FORMAT,
        )
    }
)
DEFAULT_LIMIT: Final = 4 << 20
MAX_EVENTS: Final = 50_000  # of one reply: four million bytes can be a million empty ones, which cost seconds
_MEDIA: Final = ("audio/", "image/", "video/", "multipart/")


def parse(capture: Capture, *, inflated_limit: int = DEFAULT_LIMIT) -> list[Exchange]:
    """The exchanges of a capture, one for each choice, in order of their index; never none.

    `inflated_limit`: bytes that each side may inflate to; what is beyond counts as truncated.
    Raises Unscored (not_a_conversation, truncated, upstream_error) or Unreadable; nothing else, ever.
    """
    form = FORMATS.get(capture.format)
    if form is None:
        raise Unscored("not_a_conversation", "no format of this name")
    if capture.request.total == 0 and capture.status >= 400:
        raise _no_answer(capture)  # of the proxy's own making: the request has not even been read
    asked = _asked(form, capture, inflated_limit)
    if not 200 <= capture.status < 300:
        return _refused_by_status(form, capture, asked, inflated_limit)
    if capture.response_content_type.strip().lower().startswith(_MEDIA):
        raise Unscored("not_a_conversation", "the response is no text")
    body = open_body(capture.response, capture.response_content_encoding, inflated_limit)
    framing = framing_of(form.name, capture.path, capture.response_content_type, body.head)
    if framing != "json":
        pieces = [body.head, None, body.tail] if body.tail else [body.head]
        broken = body.cut or capture.end != "complete"
        return read_stream(form, asked, framing, pieces, broken=broken)
    return _read_whole(form, capture, asked, body)


def read_stream(
    form: Format, asked: Asked, framing: str, pieces: Iterable[bytes | None], *, broken: bool = False
) -> list[Exchange]:
    """The exchanges of a streamed response, given in pieces; None stands for bytes that were left out.

    `broken`: it is known that something is missing. Raises as `parse`.
    """
    reply, came = form.reply(asked), False
    for number, event in enumerate(events(framing, pieces)):
        if number >= MAX_EVENTS:
            raise Unscored("truncated", "more events than are read")
        if event is GAP_HERE:
            reply.gap()
        elif event.data.strip() == b"[DONE]":
            reply.done = True
        elif not is_noise(event):
            reply.event(event.name, as_dict(load(event.data)))
        else:
            continue
        came = True
    if not came:
        raise Unscored("truncated", "no event came") if broken else Unreadable("response: no events")
    return reply.exchanges(streamed=True, ended=False)


def _asked(form: Format, capture: Capture, limit: int) -> Asked:
    body = open_body(capture.request, capture.request_content_encoding, limit)
    if body.cut:
        raise Unscored("truncated", "the request is longer than its copy")
    if body.head.startswith(b"--"):
        raise Unscored("not_a_conversation", "a multipart request")
    return form.asked(_object("request", body, capture), capture.path)


def _read_whole(form: Format, capture: Capture, asked: Asked, body: Body) -> list[Exchange]:
    if body.cut:
        raise Unscored("truncated", "the response is longer than its copy")
    reply = form.reply(asked)
    reply.whole(_object("response", body, capture))
    if not reply.choices and not reply.failed and reply.native is None:
        raise Unreadable("response: nothing that its format has")
    return reply.exchanges(streamed=False, ended=capture.end == "complete")


def _object(side: str, body: Body, capture: Capture) -> dict[str, Any]:
    """A whole body as JSON. `side` is `request` or `response`; one that broke off may be anything."""
    try:
        value = load(body.head)
    except Unreadable as error:
        if capture.end == "complete":
            raise Unreadable(f"{side}: {error.detail}") from None
        raise Unscored("truncated", f"the {side} broke off") from None
    if not isinstance(value, dict):
        raise Unreadable(f"{side}: no JSON object")
    return value


def _refused_by_status(form: Format, capture: Capture, asked: Asked, limit: int) -> list[Exchange]:
    """An error by HTTP status is nobody's answer, but for a filter's block."""
    if capture.end == "client_gone" and capture.response.total == 0:
        raise _no_answer(capture)
    reply: Reply = form.reply(asked)
    try:
        body = open_body(capture.response, capture.response_content_encoding, limit)
        signal = form.blocked(error_of(as_dict(load(body.head))))
    except Unreadable:
        signal = None
    if signal is None:
        raise _no_answer(capture)
    reply.fail(signal)
    return reply.exchanges(streamed=False, ended=True)


def _no_answer(capture: Capture) -> Unscored:
    """Why there is none: the client did not wait for one, or somebody answered with an error."""
    if capture.end == "client_gone":
        return Unscored("truncated", "the client left before the response")
    return Unscored("upstream_error", f"HTTP status {capture.status}")
