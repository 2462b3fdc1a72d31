"""What goes through the valve: length-prefixed frames, each a JSON head and raw bodies.

    u32 length of what follows | u8 kind | u32 length of the head | head (JSON) | bodies

Workers write HELLO once, then CAPTURE and STATS frames. The monitor writes back nothing but receipts: which
life of the monitor this is, and how many captures and snapshots of this connection it has recorded. Both ends
are ours, of one version and one machine; still, nothing read from the socket may raise anything but BadFrame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import orjson

from proxy.words.exchange import BoundedCopy, Capture

HELLO: Final = 1
CAPTURE: Final = 2
STATS: Final = 3

_PREFIX = struct.Struct(">IBI")
_RECEIPT = struct.Struct(">QQQ")
_BODIES = 4  # request head and tail, response head and tail
_PATH_CHARS: Final = 2048
_TYPE_CHARS: Final = 512
# Of JSON's head of a capture at most: each character can take six (an escaped control character).
HEAD_BYTES: Final = 6 * (_PATH_CHARS + 3 * _TYPE_CHARS) + 4096


class BadFrame(Exception):  # noqa: N818 - named for what it is
    """Bytes that are no frame of ours, or a frame over the limit."""


def frame(kind: int, head: dict[str, Any], *bodies: bytes) -> bytes:
    packed = orjson.dumps(head)
    length = 5 + len(packed) + sum(map(len, bodies))
    return b"".join((_PREFIX.pack(length, kind, len(packed)), packed, *bodies))


def capture_frame(capture: Capture) -> bytes:
    """A capture's frame; its head is under `HEAD_BYTES`, whatever client and upstream wrote.

    Of a path the end is kept, where formats name their models; of a content type the beginning.
    """
    request, response = capture.request, capture.response
    head = {
        "id": capture.id,
        "route": capture.route,
        "format": capture.format,
        "path": capture.path[-_PATH_CHARS:],
        "status": capture.status,
        "origin": capture.origin,
        "end": capture.end,
        "request_content_encoding": capture.request_content_encoding[:_TYPE_CHARS],
        "response_content_type": capture.response_content_type[:_TYPE_CHARS],
        "response_content_encoding": capture.response_content_encoding[:_TYPE_CHARS],
        "finished_at": capture.finished_at,
        "duration_s": capture.duration_s,
        "first_byte_s": capture.first_byte_s,
        "sizes": (len(request.head), len(request.tail), len(response.head), len(response.tail)),
        "totals": (request.total, response.total),
    }
    return frame(CAPTURE, head, request.head, request.tail, response.head, response.tail)


def capture_from(head: dict[str, Any], bodies: memoryview) -> Capture:
    """The inverse of `capture_frame`. Raises BadFrame."""
    try:
        sizes, totals = head.pop("sizes"), head.pop("totals")
        if any(type(number) is not int or number < 0 for number in (*sizes, *totals)):
            raise BadFrame("sizes that are no sizes")
        cuts = [0]
        for size in sizes:
            cuts.append(cuts[-1] + size)
        if len(sizes) != _BODIES or cuts[-1] != len(bodies):
            raise BadFrame("the bodies are not as long as the head says")
        parts = [bytes(bodies[a:b]) for a, b in pairwise(cuts)]
        return Capture(
            **head,
            request=BoundedCopy(parts[0], parts[1], totals[0]),
            response=BoundedCopy(parts[2], parts[3], totals[1]),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadFrame(f"not a capture: {type(error).__name__}") from None


class Receipt(NamedTuple):
    """What the monitor says back. `life` tells one monitor process from its successor."""

    life: int
    captures: int
    snapshots: int

    def packed(self) -> bytes:
        return _RECEIPT.pack(*self)


class FrameReader:
    """Splits a byte stream into frames; `limit` bounds one frame, in bytes."""

    __slots__ = ("_buffer", "limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self.limit = limit

    def feed(self, data: bytes) -> Iterator[tuple[int, dict[str, Any], memoryview]]:
        """Yields (kind, head, bodies); the view is valid until the next step. Raises BadFrame."""
        self._buffer += data
        position = 0
        try:
            while len(self._buffer) - position >= _PREFIX.size:
                length, kind, head_length = _PREFIX.unpack_from(self._buffer, position)
                if length > self.limit or head_length > length - 5:
                    raise BadFrame(f"a frame of {length} bytes")
                end = position + 4 + length
                if len(self._buffer) < end:
                    break
                split = position + _PREFIX.size + head_length
                head = _json(bytes(self._buffer[position + _PREFIX.size : split]))
                with memoryview(self._buffer) as whole, whole[split:end] as bodies:
                    yield kind, head, bodies
                position = end
        finally:
            del self._buffer[:position]


class ReceiptReader:
    """Reads the monitor's receipts; the newest is what matters."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Receipt | None:
        """The last whole receipt in the data, or None."""
        whole = self._rest + data
        full = len(whole) // _RECEIPT.size
        self._rest = whole[full * _RECEIPT.size :]
        return Receipt(*_RECEIPT.unpack_from(whole, (full - 1) * _RECEIPT.size)) if full else None


def _json(text: bytes) -> dict[str, Any]:
    try:
        head = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadFrame("a head that is not JSON") from None
    if not isinstance(head, dict):
        raise BadFrame("a head that is no object")
    return head
