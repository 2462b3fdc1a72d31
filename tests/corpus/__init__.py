"""The corpus: what providers really send, one folder a case, and what it means.

    <format>/<case>/case.json        note, path, status, headers; `expected` exchanges, or `unscored` cause
                    request.json     the request's body, byte for byte
                    response.<ext>   the response's body, byte for byte, before its content encoding
                    response.frames.json   or the messages of an AWS event stream, framed here

Bodies are stored plain, so that a change shows in a diff; a Content-Encoding header is applied on loading.
`expected` leaves out what has its default. Adding a case is adding a folder.
"""

from __future__ import annotations

import functools
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import brotli
import zstandard

from proxy.words.exchange import BoundedCopy, Capture, End, Exchange, Message, NativeSignal

ROOT: Final = Path(__file__).parent
ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "br": lambda data: bytes(brotli.compress(data, quality=4)),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "identity": lambda data: data,
}
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One request and its response, as bytes on the wire (content-encoded, without transfer framing).

    `expected` is empty when the capture cannot be scored; then `unscored` holds the cause.
    """

    name: str  # "<format>/<case>"
    format: str
    note: str
    method: str
    path: str
    request_headers: Headers
    request_body: bytes
    status: int
    response_headers: Headers
    response_body: bytes
    expected: tuple[Exchange, ...] = ()
    unscored: str = ""
    plain_body: bytes = field(default=b"", repr=False)  # the response before its content encoding

    def header(self, name: str) -> str:
        return dict(self.response_headers).get(name, "")

    def capture(self, *, end: End = "complete", response: bytes | None = None) -> Capture:
        """The capture that the data side would make of this case."""
        body = self.response_body if response is None else response
        return Capture(
            id=self.name,
            route="corpus",
            format=self.format,
            path=self.path,
            status=self.status,
            end=end,
            request_content_encoding=dict(self.request_headers).get("content-encoding", ""),
            response_content_type=self.header("content-type"),
            response_content_encoding=self.header("content-encoding"),
            request=BoundedCopy(self.request_body, b"", len(self.request_body)),
            response=BoundedCopy(body, b"", len(body)),
        )


@functools.cache
def cases() -> tuple[Case, ...]:
    """Every case, in order of name."""
    return tuple(_load(path.parent) for path in sorted(ROOT.glob("*/*/case.json")))


def encode(data: bytes, encoding: str) -> bytes:
    """Apply the codings of a Content-Encoding header, in the order in which it lists them."""
    for name in encoding.split(",") if encoding else ():
        data = ENCODERS[name.strip()](data)
    return data


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of an AWS event stream."""
    packed = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", len(packed) + len(payload) + 16, len(packed))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _load(folder: Path) -> Case:
    meta = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    request_headers = {"content-type": "application/json", **meta.get("request_headers", {})}
    response_headers = meta["response_headers"]
    request, plain = (folder / "request.json").read_bytes(), _response(folder)
    return Case(
        name=f"{folder.parent.name}/{folder.name}",
        format=folder.parent.name,
        note=meta["note"],
        method=meta.get("method", "POST"),
        path=meta["path"],
        request_headers=tuple(request_headers.items()),
        request_body=encode(request, request_headers.get("content-encoding", "")),
        status=meta["status"],
        response_headers=tuple(response_headers.items()),
        response_body=encode(plain, response_headers.get("content-encoding", "")),
        expected=tuple(map(_exchange, meta.get("expected", ()))),
        unscored=meta.get("unscored", ""),
        plain_body=plain,
    )


def _response(folder: Path) -> bytes:
    frames = folder / "response.frames.json"
    if not frames.exists():
        (body,) = folder.glob("response.*")
        return body.read_bytes()
    messages = json.loads(frames.read_text(encoding="utf-8"))
    return b"".join(
        frame(item["headers"], json.dumps(item["payload"], ensure_ascii=False).encode()) for item in messages
    )


def _exchange(given: dict[str, Any]) -> Exchange:
    native = given.get("native")
    return Exchange(
        **{
            **given,
            "conversation": tuple(Message(role, text) for role, text in given["conversation"]),
            "native": NativeSignal(**native) if native else None,
        }
    )
