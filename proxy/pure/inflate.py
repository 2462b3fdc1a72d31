"""Content encodings undone, bounded.

A few hundred bytes can inflate to gigabytes, so nothing is ever inflated whole and then cut: each codec
gets small pieces and is asked for no more than what is still allowed. What a truncated input holds is
given with `truncated`; only a corrupt one is an error.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import brotli
import zstandard

from proxy.words.errors import Unreadable

MAX_CODINGS: Final = 3  # "gzip, br, zstd" is already a joke
_PIECE: Final = 16 << 10
# A zstd block of 4 bytes may stand for 128 KiB and the decoder takes no bound, so it gets 64 bytes at a
# time: at most 2 MiB over the bound.
_ZSTD_PIECE: Final = 64
_ZSTD_WINDOW: Final = 8 << 20  # RFC 9659: no more than 8 MiB on the web


@dataclass(frozen=True, slots=True)
class Inflated:
    """`truncated`: the input ended early, or the output reached the limit."""

    data: bytes
    truncated: bool = False


def inflate(data: bytes, encoding: str, limit: int) -> Inflated:
    """Undo a Content-Encoding header ("", "gzip", "gzip, br", …) up to `limit` bytes of output.

    Raises Unreadable when the data is corrupt or the encoding unknown.
    """
    codings = [name for item in encoding.split(",") if (name := item.strip().lower())]
    codings = [name for name in codings if name != "identity"]
    if len(codings) > MAX_CODINGS or not all(name in _CODECS for name in codings):
        raise Unreadable("a content encoding that nobody knows")
    truncated = False
    for name in reversed(codings):  # listed in the order in which they were applied
        if not data:
            break  # a body of no bytes is empty in every encoding
        step = _CODECS[name](data, limit)
        data, truncated = step.data, truncated or step.truncated
    if len(data) > limit:
        return Inflated(data[:limit], truncated=True)
    return Inflated(data, truncated)


def _cut(out: bytearray, limit: int, *, ended: bool) -> Inflated:
    return Inflated(bytes(out[:limit]), truncated=not ended or len(out) > limit)


def _zlib(data: bytes, limit: int, wbits: int, *, members: bool = False) -> Inflated:
    """One zlib stream, or with `members` as many as there are (gzip)."""
    out = bytearray()
    codec = zlib.decompressobj(wbits)
    try:
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            while piece:
                if codec.eof:
                    if not members:
                        raise Unreadable("corrupt compressed data")
                    piece = piece.lstrip(b"\0")  # padding is allowed
                    if not piece:
                        break
                    codec = zlib.decompressobj(wbits)
                out += codec.decompress(piece, limit + 1 - len(out))
                if len(out) > limit:
                    return _cut(out, limit, ended=False)
                piece = codec.unused_data if codec.eof else codec.unconsumed_tail
    except zlib.error:
        raise Unreadable("corrupt compressed data") from None
    return _cut(out, limit, ended=codec.eof)


def _gzip(data: bytes, limit: int) -> Inflated:
    return _zlib(data, limit, 31, members=True)


def _deflate(data: bytes, limit: int) -> Inflated:
    """The standard means the zlib format; some servers send it raw."""
    try:
        return _zlib(data, limit, 15)
    except Unreadable:
        return _zlib(data, limit, -15)


def _brotli(data: bytes, limit: int) -> Inflated:
    out = bytearray()
    codec = brotli.Decompressor()
    try:
        for at in range(0, len(data), _PIECE):
            if codec.is_finished():
                raise Unreadable("corrupt compressed data")
            piece = data[at : at + _PIECE]
            while True:
                out += codec.process(piece, output_buffer_limit=limit + 1 - len(out))
                if len(out) > limit:
                    return _cut(out, limit, ended=False)
                if codec.can_accept_more_data():
                    break
                piece = b""
    except brotli.error:
        raise Unreadable("corrupt compressed data") from None
    return _cut(out, limit, ended=codec.is_finished())


def _zstd(data: bytes, limit: int) -> Inflated:
    out = bytearray()
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    codec = decompressor.decompressobj()
    try:
        for at in range(0, len(data), _ZSTD_PIECE):
            piece = data[at : at + _ZSTD_PIECE]
            while piece:
                if codec.eof:
                    codec = decompressor.decompressobj()
                out += codec.decompress(piece)
                if len(out) > limit:
                    return _cut(out, limit, ended=False)
                piece = codec.unused_data if codec.eof else b""
    except zstandard.ZstdError:
        raise Unreadable("corrupt compressed data") from None
    return _cut(out, limit, ended=codec.eof)


_CODECS: Final[dict[str, Callable[[bytes, int], Inflated]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
