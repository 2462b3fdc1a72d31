"""Bodies as they were copied, made readable: inflated, told apart by framing, cut into events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.pure.formats.access import load
from proxy.pure.framing import (
    BOM,
    ArrayReader,
    Event,
    EventStreamReader,
    NdjsonReader,
    Reader,
    SseReader,
)
from proxy.pure.inflate import inflate
from proxy.words.errors import Unreadable
from proxy.words.exchange import BoundedCopy

READERS: Final[dict[str, type[Reader]]] = {
    "sse": SseReader,
    "ndjson": NdjsonReader,
    "array": ArrayReader,
    "eventstream": EventStreamReader,
}
_CONTENT_TYPES: Final = {
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/stream+json": "ndjson",
    "application/vnd.amazon.eventstream": "eventstream",
}
_SSE_STARTS: Final = (b"data:", b"event:", b":", b"id:", b"retry:")
_LINES_OF_JSON: Final = frozenset({"ollama_chat", "ollama_generate"})
GAP_HERE: Final = Event("", b"")  # stands where the bounded copy left something out
_KEEP_ALIVE: Final = frozenset({"ping", "keep-alive", "keepalive", "heartbeat"})


@dataclass(frozen=True, slots=True)
class Body:
    """`cut`: something is missing, after `head` and (if there is one) before `tail`."""

    head: bytes
    tail: bytes = b""
    cut: bool = False


def open_body(copy: BoundedCopy, encoding: str, limit: int) -> Body:
    """Undo the content encoding. A compressed body that is not whole keeps only its beginning.

    Raises Unreadable for corrupt data or an unknown encoding.
    """
    plain = encoding.strip().lower() in ("", "identity")
    if not copy.truncated:
        step = inflate(copy.head + copy.tail, encoding, limit)
        return Body(step.data, cut=step.truncated)
    if plain:
        return Body(copy.head[:limit], copy.tail[-limit:], cut=True)
    return Body(inflate(copy.head, encoding, limit).data, cut=True)


def framing_of(name: str, path: str, content_type: str, head: bytes) -> str:
    """How a response is framed: "json" for one piece, or a key of READERS.

    The body's first bytes have the last word: servers send SSE as text/plain and errors as SSE.
    """
    start = head[:256].removeprefix(BOM).lstrip()
    by_type = _CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower(), "json")
    if by_type == "eventstream" or (path.rstrip("/").endswith("/converse-stream") and start[:1] != b"{"):
        return "eventstream"
    if start.startswith(_SSE_STARTS):
        return "sse"
    if name == "gemini" and start.startswith(b"["):
        return "array"
    if start.startswith((b"{", b"[")):
        return "ndjson" if by_type == "ndjson" or _many_lines(name, head) else "json"
    return by_type


def _many_lines(name: str, head: bytes) -> bool:
    """Whether an Ollama body is a stream although its content type does not say so."""
    line, _, rest = head.strip().partition(b"\n")
    if name not in _LINES_OF_JSON or not rest:
        return False
    try:
        load(line)
    except Unreadable:
        return False
    return True


def events(framing: str, pieces: Iterable[bytes | None]) -> Iterator[Event]:
    """The events of a stream given in pieces; None stands for bytes that were left out, GAP_HERE tells of it.

    A last event without its terminator counts only if it can be read: it may have been cut. Raises
    Unreadable when the framing is corrupt.
    """
    reader, after_gap = READERS[framing](), False
    for piece in pieces:
        if piece is None:
            yield from filter(_readable, reader.close())
            yield GAP_HERE
            reader, after_gap = READERS[framing](), True
        elif after_gap:
            yield from reader.feed(reader.resume(piece))
            after_gap = False
        else:
            yield from reader.feed(piece)
    yield from filter(_readable, reader.close())


def _readable(event: Event) -> bool:
    if event.data.strip() == b"[DONE]":
        return True
    try:
        load(event.data)
    except Unreadable:
        return False
    return True


def is_noise(event: Event) -> bool:
    """An event that only keeps the connection alive: no JSON, or with a name that says so."""
    return event.name in _KEEP_ALIVE or not event.data.lstrip().startswith((b"{", b"["))
