"""Events come out of bytes in the same way, however the bytes are cut."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.pure.framing import ArrayReader, Event, EventStreamReader, NdjsonReader, Reader, SseReader
from proxy.words.errors import Unreadable
from tests.corpus import frame
from tests.pure.formats.profile import STEADY


def read(reader: Reader, *pieces: bytes) -> list[tuple[str, bytes]]:
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [(event.name, event.data) for event in [*events, *reader.close()]]


SSE = {
    "an event": (b"data: a\n\n", [("", b"a")]),
    "a name": (b"event: x\ndata: a\n\n", [("x", b"a")]),
    "a name that lasts for one event": (b"event: x\ndata: a\n\ndata: b\n\n", [("x", b"a"), ("", b"b")]),
    "no space after the colon": (b"event:x\ndata:a\n\n", [("x", b"a")]),
    "only one space is taken away": (b"data:  a\n\n", [("", b" a")]),
    "several data lines": (b"data: a\ndata:\ndata: b\n\n", [("", b"a\n\nb")]),
    "a data line without a colon": (b"data\n\n", [("", b"")]),
    "comments": (b": ping\n\n:\n\ndata: a\n: x\n\n", [("", b"a")]),
    "other fields": (b"id: 1\nretry: 5\nfoo: bar\ndata: a\n\n", [("", b"a")]),
    "a name without data": (b"event: x\n\ndata: a\n\n", [("", b"a")]),
    "CRLF": (b"event: x\r\ndata: a\r\ndata: b\r\n\r\n", [("x", b"a\nb")]),
    "CR": (b"event: x\rdata: a\r\rdata: b\r\r", [("x", b"a"), ("", b"b")]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\n", [("", b"a"), ("", b"b")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
    "a mark that comes later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("", b"a")]),
    "no blank line at the end": (b"data: a\n\ndata: b", [("", b"a"), ("", b"b")]),
    "characters of several bytes": ("event: ä\ndata: 語🌴\n\n".encode(), [("ä", "語🌴".encode())]),
    "a name in broken UTF-8": (b"event: \xff\ndata: a\n\n", [("\ufffd", b"a")]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("body", "events"), SSE.values(), ids=SSE.keys())
def test_server_sent_events_are_read_as_the_standard_says(
    body: bytes, events: list[tuple[str, bytes]]
) -> None:
    assert read(SseReader(), body) == events
    assert read(SseReader(), *(body[at : at + 1] for at in range(len(body)))) == events


LINE = st.sampled_from(
    (b"data: a", b"data", b"event: x", b"", b"", b": c", b"\xef\xbb\xbf", "data: 語".encode())
)
END = st.sampled_from((b"\n", b"\r\n", b"\r"))


@settings(STEADY, max_examples=400)
@given(lines=st.lists(st.tuples(LINE, END), max_size=12), data=st.data())
def test_cutting_changes_nothing(lines: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    body = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    for reader in (SseReader, NdjsonReader, ArrayReader):
        assert read(reader(), *pieces) == read(reader(), body)


def test_reading_resumes_after_the_next_blank_line() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        tail = b"alf an event" + end + end + b"data: b" + end + end
        assert read(SseReader(), SseReader.resume(tail)) == [("", b"b")]
    assert SseReader.resume(b"no blank line\nat all\n") == b""


def test_lines_of_json_are_events() -> None:
    assert read(NdjsonReader(), b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"b":2}\n{"c"') == [
        ("", b'{"a":1}'),
        ("", b'{"b":2}'),
        ("", b'{"c"'),
    ]
    assert NdjsonReader.resume(b'alf"}\n{"b":2}\n') == b'{"b":2}\n'


ANY = st.recursive(
    st.none() | st.integers() | st.text(max_size=6) | st.sampled_from(('"', "\\", "]", "[{", '\\"')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(STEADY, max_examples=300)
@given(
    items=st.lists(st.dictionaries(st.text(max_size=3), ANY, max_size=3), max_size=4), cut=st.integers(0, 200)
)
def test_elements_of_an_array_are_events_and_a_broken_one_is_left_out(items: list[object], cut: int) -> None:
    body = json.dumps(items, ensure_ascii=False, indent=1).encode()
    got = [json.loads(event.data) for event in [*ArrayReader().feed(body), *_closed(body)]]
    assert got == items
    broken = [json.loads(event.data) for event in _closed(body[: max(0, len(body) - cut)])]
    assert broken == items[: len(broken)]


def _closed(body: bytes) -> list[Event]:
    reader = ArrayReader()
    reader.feed(body)
    return reader.close()


HEADERS = {":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"}


def test_messages_of_aws_event_streams_known_from_elsewhere() -> None:
    """Two messages of the test vectors that AWS publishes with its SDKs."""
    empty = bytes.fromhex("00000010 00000000 05c248eb 7d98c8ff")
    payload = bytes.fromhex("0000001d 00000000 fd528c5a 7b27666f6f273a27626172277d c3653936")
    assert read(EventStreamReader(), empty + payload) == [("", b""), ("", b"{'foo':'bar'}")]


def test_all_header_types_are_passed_over() -> None:
    def header(name: bytes, kind: int, value: bytes) -> bytes:
        return bytes([len(name)]) + name + bytes([kind]) + value

    kinds = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    packed = b"".join(header(b"h%d" % kind, kind, b"\x01" * size) for kind, size in kinds.items())
    packed += header(b"bytes", 6, b"\x00\x02ab") + header(b":event-type", 7, b"\x00\x01x")

    prelude = struct.pack(">II", len(packed) + 16, len(packed))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed
    message += struct.pack(">I", zlib.crc32(message))
    assert read(EventStreamReader(), message) == [("x", b"")]


def test_exceptions_and_errors_are_told_from_events() -> None:
    exception = frame({":message-type": "exception", ":exception-type": "throttled"}, b"{}")
    error = frame({":message-type": "error", ":error-code": "500"}, b"")
    assert read(EventStreamReader(), frame(HEADERS, b"{}") + exception + error) == [
        ("chunk", b"{}"),
        ("exception:throttled", b"{}"),
        ("exception:500", b""),
    ]


@settings(STEADY, max_examples=200)
@given(payloads=st.lists(st.binary(max_size=40), max_size=5), data=st.data())
def test_messages_are_whole_in_any_cutting(payloads: list[bytes], data: st.DataObject) -> None:
    body = b"".join(frame(HEADERS, payload) for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert read(EventStreamReader(), *pieces) == [("chunk", payload) for payload in payloads]
    tail = data.draw(st.integers(0, len(body)))
    resumed = read(EventStreamReader(), EventStreamReader.resume(body[tail:]))
    whole = [at for at in range(len(payloads)) if sum(map(_size, payloads[:at])) >= tail]
    assert [payload for _, payload in resumed] == [payloads[at] for at in whole]


def _size(payload: bytes) -> int:
    return len(frame(HEADERS, payload))


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    message = frame(HEADERS, b'{"text":"hello"}')
    for at in range(len(message)):
        broken = bytearray(message + message)
        broken[at] ^= 0x10
        with pytest.raises(Unreadable):
            read(EventStreamReader(), bytes(broken))


@pytest.mark.parametrize(
    "headers", [b"\x05a", b"\x01a\x0a", b"\x01a\x07\x00\xff", b"\x01a", b"\x01a\x04\x00"]
)
def test_headers_that_do_not_add_up_are_unreadable(headers: bytes) -> None:

    prelude = struct.pack(">II", len(headers) + 16, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers
    message += struct.pack(">I", zlib.crc32(message))
    with pytest.raises(Unreadable):
        read(EventStreamReader(), message)
