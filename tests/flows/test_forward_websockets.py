"""Websockets through the proxy, with a real client and a real server on either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.flows.conftest import SetScene
from tests.harness.raw import read_response
from tests.harness.stage import Scene
from tests.harness.upstreams import Line, answering, json_answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHAKE = (
    "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-Hop\r\nX-Hop: 1\r\nUpgrade: {to}\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def echo(connection: ServerConnection) -> None:
    """Send every message back; `close N` closes with that code."""
    async for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            await connection.close(int(message.split()[1]), "as you wish")
            return
        await connection.send(message)


@asynccontextmanager
async def bridged(scene: SetScene) -> AsyncIterator[tuple[Scene, Server]]:
    """A scene whose upstream is a real websocket server (the scripted port pipes to it)."""
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        (listener, *_) = server.sockets

        async def pipe(line: Line) -> None:
            reader, writer = await asyncio.open_connection(*listener.getsockname())

            async def up() -> None:
                while data := await line.reader.read(65_536):
                    writer.write(data)
                    await writer.drain()
                writer.close()

            task = asyncio.create_task(up())
            try:
                while data := await reader.read(65_536):
                    line.writer.write(data)
                    await line.writer.drain()
            finally:
                task.cancel()
                writer.close()

        yield scene(pipe), server


def dial(at: Scene) -> connect:
    return connect(f"ws://127.0.0.1:{at.port}{at.path('/v1/realtime')}", max_size=None, proxy=None)


async def test_text_binary_large_messages_and_pings_pass_both_ways(scene: SetScene) -> None:
    async with bridged(scene) as (at, _), dial(at) as client:
        for message in ("hello", "ünïcode \N{SNOWMAN}", b"\x00\xff" * 10, "", b"x" * (3 << 20)):
            await client.send(message)
            assert await asyncio.wait_for(client.recv(), 10) == message
        pong = await client.ping()
        await asyncio.wait_for(pong, 5)
    assert await at.counted("refusal_proxy_requests_total", code="101", method="GET") == 1
    assert at.value("refusal_unscored_total", cause="not_a_conversation") == 1
    await at.quiet()


@pytest.mark.parametrize("code", [1000, 1011, 4242])
async def test_close_codes_pass(scene: SetScene, code: int) -> None:
    async with bridged(scene) as (at, _), dial(at) as client:
        await client.send(f"close {code}")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(client.recv(), 5)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "as you wish")


async def test_a_tunnel_ends_at_both_ends_when_one_disappears(scene: SetScene) -> None:
    async with bridged(scene) as (at, server):
        client: ClientConnection = await dial(at)
        await client.send("x")
        await client.recv()
        client.transport.abort()
        while server.connections:
            await asyncio.sleep(0.01)
        async with dial(at) as client:
            await client.send("x")
            await client.recv()
            for connection in server.connections:
                connection.transport.abort()
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(client.recv(), 5)
        await at.counted("refusal_proxy_requests_total", 2, code="101")
        await at.quiet()
        assert at.value("refusal_proxy_client_disconnects_total") == 0


async def test_bytes_that_come_with_the_handshake_are_not_lost(scene: SetScene) -> None:
    """The client speaks before it was accepted, the upstream in the same segment as its acceptance."""

    async def script(line: Line) -> None:
        head = await line.request()
        assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
        assert b"X-Hop" not in head
        early.set()
        await go.wait()
        await line.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst"
        )
        assert await line.reader.readexactly(100_005) == b"early" + b"y" * 100_000
        await line.send(b"second")
        await line.gone()

    early, go = asyncio.Event(), asyncio.Event()
    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(SHAKE.format(path=at.path("/x"), to="websocket").encode() + b"early")
    await asyncio.wait_for(early.wait(), 5)
    writer.write(b"y" * 100_000)
    go.set()
    answer = await asyncio.wait_for(reader.readuntil(b"second"), 5)
    assert answer == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirstsecond"
    )
    writer.close()
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    assert not at.upstream.errors


async def test_a_tunnel_holds_back_whoever_sends_too_much(scene: SetScene) -> None:
    """64 MB each way at an end that does not read: the sender stands still, then all of it arrives."""
    big, piece = 64 << 20, b"x" * 65_536
    sent = 0
    go, turn = asyncio.Event(), asyncio.Event()

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < big:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()

    async def stands_still() -> None:
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < big // 2

    async def script(line: Line) -> None:
        await line.request()
        await line.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        await go.wait()
        received = 0
        while received < big:
            received += len(await line.reader.read(1 << 20))
        await line.send(b"all")
        await turn.wait()
        await flood(line.writer)

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=65_536)
    writer.write(SHAKE.format(path=at.path("/x"), to="websocket").encode())
    await reader.readuntil(b"\r\n\r\n")
    task = asyncio.create_task(flood(writer))
    await stands_still()
    go.set()
    assert await asyncio.wait_for(reader.readexactly(3), 30) == b"all"
    await task
    sent = 0
    turn.set()
    await stands_still()
    received = 0
    async with asyncio.timeout(30):
        while received < big:
            received += len(await reader.read(1 << 20))
    writer.close()


async def test_a_declined_upgrade_leaves_a_working_connection(scene: SetScene) -> None:
    """Also with a request that was sent before the refusal came."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await answering(json_answer(b"{}"))(line)

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    next_one = f"POST {at.path('/y')} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n".encode()
    writer.write(SHAKE.format(path=at.path("/x"), to="websocket").encode() + next_one + b"x" * 30_000)
    answer = await asyncio.wait_for(read_response(reader), 5)
    assert answer == b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    writer.write(b"x" * 70_000)
    assert (await asyncio.wait_for(read_response(reader), 5)).endswith(b"\r\n\r\n{}")
    writer.write(f"GET {at.path('/z')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (await asyncio.wait_for(read_response(reader), 5)).endswith(b"\r\n\r\n{}")
    writer.close()
    assert [head.split(b" ")[1] for head in at.upstream.lines[0].heads] == [b"/x", b"/y", b"/z"]
    assert at.upstream.lines[0].bodies[1] == b"x" * 100_000


@pytest.mark.parametrize("to", ["websocket\r\nUpgrade: h2c", "h2c\r\nUpgrade: websocket", "websocket, h2c"])
async def test_an_ambiguous_upgrade_is_dropped(scene: SetScene, to: str) -> None:
    at = scene(answering(json_answer(b"{}")))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(SHAKE.format(path=at.path("/x"), to=to).encode())
    assert (await asyncio.wait_for(read_response(reader), 5)).endswith(b"\r\n\r\n{}")
    writer.close()
    assert b"pgrade" not in at.upstream.lines[0].heads[0]
