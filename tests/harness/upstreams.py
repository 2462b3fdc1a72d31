"""Scripted upstreams on raw sockets: what goes over the wire is exactly what the test wrote."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Script = Callable[["Line"], Awaitable[None]]


@dataclass
class Line:
    """One connection as the upstream sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(self) -> bytes:
        """Read one whole request; returns its head, remembers head and body (chunked: the raw framing)."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        lower = head.lower()
        body = b""
        if b"transfer-encoding: chunked" in lower:
            while not body.endswith(b"0\r\n\r\n"):
                body += await self.reader.readuntil(b"\r\n")
        elif b"content-length:" in lower:
            length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
            body = await self.reader.readexactly(length)
        self.bodies.append(body)
        return head

    async def send(self, *pieces: bytes) -> None:
        """Write pieces, each in a segment of its own as far as the loop can tell."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the peer has closed."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            pass
        self.closed.set()


@dataclass
class Upstream:
    """A listening script: `lines` are the connections so far."""

    port: int
    lines: list[Line] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    server: asyncio.Server | None = None

    def close(self) -> None:
        """Stop listening; open connections stay."""
        if self.server is not None:
            self.server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def scripted(
    script: Script, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """Serve every connection with `script` until the block ends. A script that raises is remembered."""
    upstream = Upstream(0)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        upstream.lines.append(line)
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(line)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:
            upstream.errors.append(error)
            raise
        finally:
            line.closed.set()
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
    upstream.server = server
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()


def answering(*pieces: bytes) -> Script:
    """A script that gives every request on a connection the same raw answer."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.send(*pieces)

    return script


def json_answer(body: bytes, extra: bytes = b"") -> bytes:
    """A plain 200 with a length."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
        % (len(body), extra)
        + body
    )
