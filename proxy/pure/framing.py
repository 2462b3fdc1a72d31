"""Streams of events out of bytes, however they were cut into pieces.

Each reader has feed(bytes) and close(); the events are the same for every cutting. Lines are split in
bytes, before decoding, so a character cut in two is never seen. Nothing is decoded here: an event's data
is the bytes that the JSON reader gets. A reader only keeps the event that is not yet complete.
"""

from __future__ import annotations

import re
import struct
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from proxy.words.errors import Unreadable

BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `name` is what the framing calls it ("" if it has no names)."""

    name: str
    data: bytes


class Reader(ABC):
    """Bytes in, events out. Raises Unreadable only where the framing itself is corrupt."""

    @abstractmethod
    def feed(self, chunk: bytes) -> list[Event]: ...

    def close(self) -> list[Event]:
        """What was complete but for its terminator."""
        return []

    @staticmethod
    def resume(tail: bytes) -> bytes:
        """The part of `tail`, cut out of a stream anywhere, that starts at an event's start."""
        return tail


class LineReader:
    """Lines ended by LF, CR or CRLF, without their ends."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of the line that has no end yet
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._after_cr and chunk:  # perhaps the LF of a CRLF that was cut in two
            chunk, self._after_cr = chunk.removeprefix(b"\n"), False
        self._parts.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            return []
        data = b"".join(self._parts)
        lines = data.splitlines()
        self._parts = [] if data.endswith((b"\n", b"\r")) else [lines.pop()]
        self._after_cr = data.endswith(b"\r")
        return lines

    def rest(self) -> bytes:
        return b"".join(self._parts)


class SseReader(Reader):
    """Server-sent events, as the HTML standard reads them, but that a last event needs no blank line."""

    _RESUME: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n")

    def __init__(self) -> None:
        self._lines = LineReader()
        self._first = True
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Event]:
        events: list[Event] = []
        for line in self._lines.feed(chunk):
            self._line(line, events)
        return events

    def close(self) -> list[Event]:
        events: list[Event] = []
        if rest := self._lines.rest():
            self._line(rest, events)
        self._line(b"", events)
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._first:
            line, self._first = line.removeprefix(BOM), False
        if not line:
            if self._data:
                events.append(Event(self._name.decode("utf-8", "replace"), b"\n".join(self._data)))
            self._name, self._data = b"", []
            return
        field, _, value = line.partition(b":")  # a comment is a field without a name
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value

    @staticmethod
    def resume(tail: bytes) -> bytes:
        blank = SseReader._RESUME.search(tail)
        return tail[blank.end() :] if blank else b""


class NdjsonReader(Reader):
    """One JSON object a line; blank lines are nothing."""

    def __init__(self) -> None:
        self._lines = LineReader()
        self._first = True

    def feed(self, chunk: bytes) -> list[Event]:
        return self._events(self._lines.feed(chunk))

    def close(self) -> list[Event]:
        return self._events([self._lines.rest()])

    def _events(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if self._first and line:
                line, self._first = line.removeprefix(BOM), False  # noqa: PLW2901 - the mark is no part of it
            if line.strip():
                events.append(Event("", line))
        return events

    @staticmethod
    def resume(tail: bytes) -> bytes:
        return tail.partition(b"\n")[2]


class ArrayReader(Reader):
    """A JSON array that is sent element by element (Gemini without `alt=sse`), perhaps never closed."""

    _TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[Event]:
        """Elements are found all at once, at the end: there is nothing to gain from finding them earlier."""
        self._buffer += chunk
        return []

    def close(self) -> list[Event]:
        events: list[Event] = []
        depth = start = 0
        for token in self._TOKEN.finditer(self._buffer):
            mark = token[0]
            if mark in (b"[", b"{"):
                depth += 1
                start = token.start() if depth == 2 else start
            elif mark in (b"]", b"}"):
                depth -= 1
                if depth == 1:
                    events.append(Event("", bytes(self._buffer[start : token.end()])))
        return events

    @staticmethod
    def resume(tail: bytes) -> bytes:  # noqa: ARG004 - whether a tail starts inside a string, nobody can say
        return b""


class EventStreamReader(Reader):
    """AWS's binary framing (application/vnd.amazon.eventstream): lengths, headers, payload, two CRC-32.

    An event's name is its `:event-type`; an exception's is "exception:" and its type.
    """

    _PRELUDE: Final = struct.Struct(">III")  # total length, length of the headers, CRC of these two
    _MAX: Final = 16 << 20
    # Header value type → bytes it takes; types 6 and 7 (bytes, string) carry their length.
    _FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[Event]:
        self._buffer += chunk
        events: list[Event] = []
        start = 0
        while (size := self._size(self._buffer, start)) and start + size <= len(self._buffer):
            events.append(self._message(bytes(self._buffer[start : start + size])))
            start += size
        del self._buffer[:start]
        return events

    @classmethod
    def _size(cls, data: bytes | bytearray, at: int) -> int:
        """The size of the message at `at`; 0 when its prelude is not all there. Raises Unreadable."""
        if len(data) - at < cls._PRELUDE.size:
            return 0
        size, headers, crc = cls._PRELUDE.unpack_from(data, at)
        if zlib.crc32(data[at : at + 8]) != crc or not headers + 16 <= size <= cls._MAX:
            raise Unreadable("an event stream's prelude is corrupt")
        return int(size)

    def _message(self, message: bytes) -> Event:
        _, length, _ = self._PRELUDE.unpack_from(message)
        if zlib.crc32(message[:-4]) != int.from_bytes(message[-4:], "big"):
            raise Unreadable("an event stream's message is corrupt")
        headers = self._headers(message[12 : 12 + length])
        name = headers.get(b":event-type", b"")
        if headers.get(b":message-type", b"event") != b"event":
            name = b"exception:" + (headers.get(b":exception-type") or headers.get(b":error-code", b""))
        return Event(name.decode("utf-8", "replace"), message[12 + length : -4])

    def _headers(self, data: bytes) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        at = 0
        while at < len(data):
            kind_at = at + 1 + data[at]
            name, kind = data[at + 1 : kind_at], data[kind_at : kind_at + 1]
            value_at = kind_at + 1
            if kind in (b"\x06", b"\x07"):
                length = int.from_bytes(data[value_at : value_at + 2], "big")
                value_at += 2
            else:
                length = self._FIXED.get(kind[0], -1) if kind else -1
            if length < 0 or value_at + length > len(data):
                raise Unreadable("an event stream's headers are corrupt")
            found[name] = data[value_at : value_at + length]
            at = value_at + length
        return found

    @staticmethod
    def resume(tail: bytes) -> bytes:
        """A prelude has a checksum of its own, so an event's start can be told from any other bytes."""
        at = tail.find(b"\0")  # no message is so long that its first byte is another
        while at >= 0:
            try:
                if EventStreamReader._size(tail, at):
                    return tail[at:]
            except Unreadable:
                pass
            at = tail.find(b"\0", at + 1)
        return b""
