"""Byte for byte: the same raw request sent directly and through the proxy gives the same answer.

Every case of the parsers' corpus, every content encoding, every framing and every chunking. What may
differ is what belongs to one connection only: hop-by-hop headers and the transfer framing.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import dataclass
from itertools import product
from random import Random

import pytest
import pytest_asyncio

from tests.corpus import ENCODERS, Case, cases
from tests.flows.conftest import SetScene
from tests.harness.stage import Scene, Stage
from tests.harness.upstreams import Line

pytestmark = pytest.mark.asyncio(loop_scope="session")

FRAMINGS = ("length", "chunked", "close")
CHUNKINGS = ("whole", "byte", "random", "event")
HOP_BY_HOP = (b"connection", b"transfer-encoding", b"keep-alive")
_EVENT = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")


def chunked_up(body: bytes, chunking: str, seed: int) -> list[bytes]:
    """The body in pieces. `byte` is for the first two thousand bytes; the rest comes in one."""
    if chunking == "whole" or not body:
        return [body] if body else []
    if chunking == "byte":
        return [body[i : i + 1] for i in range(min(len(body), 2000))] + ([body[2000:]] if body[2000:] else [])
    if chunking == "event":
        return [piece for piece in _EVENT.split(body) if piece]
    random, pieces = Random(seed), []
    while body:
        size = random.randint(1, 300)
        pieces.append(body[:size])
        body = body[size:]
    return pieces


def answer_of(case: Case, encoding: str, framing: str, chunking: str) -> list[bytes]:
    """The upstream's raw answer: the head, then each piece as it is written."""
    body = ENCODERS[encoding](case.plain_body)
    lines = [b"HTTP/1.1 %d Reason of %b" % (case.status, case.format.encode())]
    lines += [
        f"{name}: {value}".encode()
        for name, value in case.response_headers
        if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")
    ]
    if encoding != "identity":
        lines.append(b"Content-Encoding: " + encoding.encode())
    pieces = chunked_up(body, chunking, zlib.crc32(case.name.encode()))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    else:
        lines.append(b"Connection: close")
    lines.append(b"X-Last: caf\xe9")
    return [b"\r\n".join(lines) + b"\r\n\r\n", *pieces]


def request_of(case: Case, prefix: str, key: str, *, chunked: bool) -> bytes:
    body = case.request_body
    lines = [f"{case.method} {prefix}{case.path}?key=k&q=%2F HTTP/1.1", "Host: the.same", f"X-Play: {key}"]
    lines += [f"{name}: {value}" for name, value in case.request_headers]
    lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
    if chunked:
        body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    return "\r\n".join((*lines, "", "")).encode() + body


class Theatre:
    """One upstream that plays what a request's X-Play names, reached directly and through the proxy."""

    def __init__(self, set_scene: SetScene) -> None:
        self.plays: dict[bytes, list[bytes]] = {}
        self.asked: dict[bytes, list[tuple[list[bytes], bytes]]] = {}
        self.scene: Scene = set_scene(self._play)

    def ports(self) -> tuple[tuple[int, str], tuple[int, str]]:
        """(port, prefix of paths) without and with the proxy."""
        return (self.scene.upstream.port, ""), (self.scene.port, self.scene.path(""))

    async def _play(self, line: Line) -> None:
        while True:
            head = await line.request()
            key = head.split(b"\r\nX-Play: ")[1].split(b"\r\n")[0]
            kept = [one for one in head.split(b"\r\n") if not one.startswith(b"Host: ")]
            self.asked.setdefault(key, []).append((kept, line.bodies.pop()))
            pieces = self.plays[key]
            line.writer.write(pieces[0])
            for start in range(1, len(pieces), 50):
                line.writer.write(b"".join(pieces[start : start + 50]))
                await line.writer.drain()
                await asyncio.sleep(0)
            if b"\r\nConnection: close\r\n" in pieces[0]:
                return


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def theatre(stage: Stage) -> Theatre:
    return Theatre(stage.scene)


@dataclass
class Seen:
    """An answer without what belongs to the connection."""

    status: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    ended: bool


async def ask(port: int, request: bytes, *, half_close: bool = False, slow: bool = False) -> Seen:
    """One exchange on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2048 if slow else 1 << 20)
    try:
        writer.write(request)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            status, *lines = head[:-4].split(b"\r\n")
            every = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
            framing = {name.lower(): value for name, value in every}
            body, ended = await _body(reader, framing, slow=slow)
    finally:
        writer.close()
    headers = [pair for pair in every if pair[0].lower() not in HOP_BY_HOP]
    return Seen(status, headers, body, ended)


async def _body(
    reader: asyncio.StreamReader, framing: dict[bytes, bytes], *, slow: bool
) -> tuple[bytes, bool]:
    body = bytearray()
    if b"transfer-encoding" in framing:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        return bytes(body), await reader.readexactly(2) == b"\r\n"
    length = int(framing.get(b"content-length", 1 << 40))
    while len(body) < length and (data := await reader.read(64 if slow else 65_536)):
        body += data
        if slow:
            await asyncio.sleep(0)
    return bytes(body), len(body) == length or b"content-length" not in framing


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_every_case_of_the_corpus_is_the_same_through_the_proxy(
    theatre: Theatre, encoding: str, framing: str
) -> None:
    """Status, reason, end-to-end headers in their order, body bytes; and the request at the upstream."""
    for number, (case, chunking) in enumerate(product(cases(), CHUNKINGS)):
        key = f"{case.name}-{encoding}-{framing}-{chunking}"
        theatre.plays[key.encode()] = answer_of(case, encoding, framing, chunking)
        chunked = number % 3 == 0
        seen = [
            await ask(port, request_of(case, prefix, key, chunked=chunked))
            for port, prefix in theatre.ports()
        ]
        assert seen[0] == seen[1], (key, chunking)
        assert seen[1].body == ENCODERS[encoding](case.plain_body)
        assert seen[1].ended
        direct, proxied = theatre.asked[key.encode()]
        assert direct == proxied


async def test_a_slow_reader_gets_the_same(theatre: Theatre) -> None:
    for case in cases()[::5]:
        key = f"{case.name}-slow"
        theatre.plays[key.encode()] = answer_of(case, "identity", "length", "random")
        seen = [
            await ask(port, request_of(case, prefix, key, chunked=False), slow=True)
            for port, prefix in theatre.ports()
        ]
        assert seen[0] == seen[1], key


async def test_a_half_closed_client_gets_the_same(hasty: SetScene) -> None:
    """With `half_closed_clients = "serve"`; the other setting takes a half-close for leaving."""
    theatre = Theatre(hasty)
    for case in cases()[::5]:
        for framing in FRAMINGS:
            key = f"{case.name}-{framing}"
            theatre.plays[key.encode()] = answer_of(case, "identity", framing, "event")
            seen = [
                await ask(port, request_of(case, prefix, key, chunked=False), half_close=True)
                for port, prefix in theatre.ports()
            ]
            assert seen[0] == seen[1], key


async def test_cancels_leave_the_next_request_the_same(theatre: Theatre) -> None:
    """A client that stops in mid-body, then another that reads the same to its end."""
    for number, case in enumerate(cases()[::5]):
        key = f"{case.name}-cancel"
        theatre.plays[key.encode()] = answer_of(case, "identity", FRAMINGS[number % 3], "byte")
        port, prefix = theatre.ports()[1]
        request = request_of(case, prefix, key, chunked=False)
        for stop in (1, 200):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await reader.read(stop)
            writer.transport.abort()
        direct = await ask(theatre.ports()[0][0], request_of(case, "", key, chunked=False))
        assert await ask(port, request) == direct
