"""Header policy: what of a head travels on, and what belongs to one connection only.

Invariant: the names, values, order and duplicates of end-to-end headers leave exactly as they came. Only
hop-by-hop headers are dropped (RFC 9110 §7.6.1), together with those that `Connection` names; the body's
framing is stated anew in the place where the sender stated it. Works on raw bytes; nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# What Connection may name but never remove: the next reader would frame, route, decode or trust the message
# differently without them (RFC 9110 §7.6.1 forbids senders to name such fields).
_PROTECTED: Final = frozenset(
    (
        b"api-key",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"host",
        b"set-cookie",
        b"x-api-key",
    )
)
_FORWARDED: Final = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"))
_MAX_LENGTH_DIGITS: Final = 18  # an exabyte; more digits than that are no length
_HANDLED_APART: Final = HOP_BY_HOP | {b"host"}


@dataclass(slots=True)
class Framing:
    """What the head says about the body. `length` is None without Content-Length."""

    length: int | None = None
    chunked: bool = False


class BadFraming(ValueError):  # noqa: N818 - a value that a head can have
    """Two lengths, a length that is no number, or both a length and a transfer coding: request smuggling."""


def named_by_connection(headers: RawHeaders) -> frozenset[bytes]:
    """The lower-case header names that `Connection` lists and that may be dropped for it."""
    names: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            names.update(token.strip().lower() for token in value.split(b","))
    return frozenset(names - _PROTECTED)


def framing_of(headers: RawHeaders) -> Framing:
    """How the body is delimited. Raises BadFraming where two readers could disagree about it."""
    framing = Framing()
    for name, value in headers:
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            text = value.strip()
            if (
                not text.isdigit()
                or len(text) > _MAX_LENGTH_DIGITS
                or framing.length not in (None, int(text))
            ):
                raise BadFraming("conflicting or malformed Content-Length")
            framing.length = int(text)
        elif size == 17 and name.lower() == b"transfer-encoding":
            if value.strip().lower() != b"chunked" or framing.chunked:
                raise BadFraming("a transfer coding other than chunked")
            framing.chunked = True
    if framing.chunked and framing.length is not None:
        raise BadFraming("both Content-Length and Transfer-Encoding")
    return framing


def request_head(
    method: bytes,
    target: bytes,
    headers: RawHeaders,
    *,
    host: bytes,
    chunked: bool,
    websocket: bool = False,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """The head as the upstream gets it. `target` is in origin form; `chunked` says how the body will be sent.

    `websocket` keeps the upgrade of this one request; every other upgrade is dropped, as a proxy may.
    """
    drop = named_by_connection(headers)
    out = [method, b" ", target, b" HTTP/1.1\r\n"]
    placed_host = False
    for name, value in headers:
        lower = name.lower()
        if lower not in _HANDLED_APART and lower not in drop:
            out += (name, b": ", value, b"\r\n")
        elif lower == b"host":
            if not placed_host:
                out += (name, b": ", host, b"\r\n")
                placed_host = True
        elif lower == b"transfer-encoding":
            if chunked:
                out.append(b"Transfer-Encoding: chunked\r\n")
        elif websocket and lower == b"upgrade":
            out.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    if not placed_host:
        out += (b"Host: ", host, b"\r\n")
    for name, value in extra:
        out += (name, b": ", value, b"\r\n")
    out.append(b"\r\n")
    return b"".join(out)


def response_head(
    status: int,
    reason: bytes,
    headers: RawHeaders,
    *,
    chunked: bool = False,
    connection: bytes = b"",
    keep_upgrade: bool = False,
) -> bytes:
    """The head as the client gets it. `chunked` frames a body whose length is not known.

    `connection` is the value of our own Connection header, if one is needed (`close`, `keep-alive`).
    `keep_upgrade` is for a 101 alone.
    """
    drop = named_by_connection(headers)
    out = [b"HTTP/1.1 %d %b\r\n" % (status, reason)]
    for name, value in headers:
        lower = name.lower()
        if lower not in HOP_BY_HOP and lower not in drop:
            out += (name, b": ", value, b"\r\n")
        elif lower == b"transfer-encoding":
            if chunked:
                out.append(b"Transfer-Encoding: chunked\r\n")
                chunked = False
        elif keep_upgrade and lower in (b"upgrade", b"connection"):
            out += (name, b": ", value, b"\r\n")
    if chunked:
        out.append(b"Transfer-Encoding: chunked\r\n")
    if connection:
        out += (b"Connection: ", connection, b"\r\n")
    out.append(b"\r\n")
    return b"".join(out)


def forwarded(headers: RawHeaders, *, client: bytes, scheme: bytes) -> tuple[RawHeaders, RawHeaders]:
    """The headers without X-Forwarded-*, and those three to append: each hop adds itself to the list.

    X-Forwarded-Proto and -Host keep the values that an earlier hop gave: it stood nearer to the client.
    """
    given: dict[bytes, list[bytes]] = {name: [] for name in _FORWARDED}
    host = b""
    kept = []
    for pair in headers:
        lower = pair[0].lower()
        if lower in _FORWARDED:
            given[lower].append(pair[1])
            continue
        if lower == b"host":
            host = pair[1]
        kept.append(pair)
    added = [
        (b"X-Forwarded-For", b", ".join((*given[b"x-forwarded-for"], client))),
        (b"X-Forwarded-Proto", b", ".join(given[b"x-forwarded-proto"]) or scheme),
        (b"X-Forwarded-Host", b", ".join(given[b"x-forwarded-host"]) or host),
    ]
    return kept, added


def websocket_asked(headers: RawHeaders) -> bool:
    """Exactly one Upgrade header, which says `websocket` and nothing else."""
    wishes = [value for name, value in headers if name.lower() == b"upgrade"]
    return len(wishes) == 1 and wishes[0].strip().lower() == b"websocket"


def value_of(headers: RawHeaders, wanted: bytes) -> str:
    """The last value of a header, as text, or "". `wanted` is lower case."""
    size = len(wanted)
    for name, value in reversed(headers):
        if len(name) == size and name.lower() == wanted:
            return value.decode("latin-1")
    return ""
