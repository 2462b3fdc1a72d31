"""A raw client: bytes in, bytes out, nothing helpful in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass
class Answer:
    """What came back. `clean` is False when the connection was reset."""

    raw: bytes
    clean: bool = True

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])


async def exchange(port: int, *pieces: bytes, half_close: bool = False, timeout_s: float = 20.0) -> Answer:
    """Send pieces on one connection and read until the other side closes it.

    The request should carry `Connection: close`, or the test waits for the keep-alive to end.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(timeout_s):
            while data := await reader.read(65_536):
                received += data
    except ConnectionError:
        return Answer(bytes(received), clean=False)
    finally:
        writer.close()
    return Answer(bytes(received))


async def read_response(reader: asyncio.StreamReader) -> bytes:
    """One whole response with a length or chunked framing from a connection that stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while True:
            size_line = await reader.readuntil(b"\r\n")
            piece = await reader.readexactly(int(size_line, 16) + 2)
            body += size_line + piece
            if int(size_line, 16) == 0:
                return head + body
    if b"content-length:" in lower:
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        return head + await reader.readexactly(length)
    return head


def post(path: str, body: bytes, *headers: str, close: bool = True) -> bytes:
    """A raw POST with a length."""
    lines = [f"POST {path} HTTP/1.1", "Host: proxy.test", f"Content-Length: {len(body)}", *headers]
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
