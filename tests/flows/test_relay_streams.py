"""Bodies on their way: chunk by chunk, with back-pressure, in bounded memory, both directions."""

from __future__ import annotations

import asyncio
import hashlib
import sys

import pytest

from tests.flows.conftest import SetScene
from tests.harness.memory import Peak
from tests.harness.raw import exchange, post, read_response
from tests.harness.stage import Scene
from tests.harness.upstreams import Line, answering, json_answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK = json_answer(b"{}")
BIG = 64 << 20
PIECE = bytes(range(256)) * 256  # 64 KiB
FLAT = 8 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def worker(scene: Scene) -> int:
    (pid,) = scene.stage.proxy.children("worker")
    return pid


def begin(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: a", *headers, "", "")).encode()


async def test_each_chunk_arrives_before_the_next_is_sent(scene: SetScene) -> None:
    """The upstream waits until the client has seen a chunk; a proxy that collects would hang here."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(50):
            await line.send(b"4\r\n%04d\r\n" % n)
            seen.clear()
            await seen.wait()
        await line.send(b"0\r\n\r\n")

    seen = asyncio.Event()
    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("GET", at.path("/x")))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for n in range(50):
        async with asyncio.timeout(5):
            assert await reader.readexactly(9) == b"4\r\n%04d\r\n" % n
        await asyncio.sleep(0)
        seen.set()
    assert await reader.readexactly(5) == b"0\r\n\r\n"
    writer.close()


async def test_an_event_without_a_length_arrives_at_once(scene: SetScene) -> None:
    """The same with a length, and until the end of the connection."""
    for head, framed in ((b"Content-Length: 8\r\n", False), (b"", True)):
        seen = asyncio.Event()

        async def script(line: Line, head: bytes = head, seen: asyncio.Event = seen) -> None:
            await line.request()
            await line.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nhalf")
            await seen.wait()
            await line.send(b"rest")

        at = scene(script)
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(begin("GET", at.path("/x")))
        async with asyncio.timeout(5):
            await reader.readuntil(b"\r\n\r\n" + (b"4\r\nhalf\r\n" if framed else b"half"))
            seen.set()
            await reader.readuntil(b"4\r\nrest\r\n0\r\n\r\n" if framed else b"rest")
        writer.close()


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_the_upstream_s_chunk_boundaries_are_kept(scene: SetScene, size: int) -> None:
    pieces = [PIECE[i : i + size] for i in range(0, 3000 if size > 1 else 600, size)]
    raw = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    at = scene(answering(head, raw))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("GET", at.path("/x")))
    assert await reader.readexactly(len(head) + len(raw)) == head + raw
    writer.close()


@linux
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_large_download_by_a_slow_reader_holds_the_upstream_back(
    scene: SetScene, framing: str
) -> None:
    """While the client does not read, the upstream cannot send; the worker's memory stays flat."""
    sent = 0
    blocked = asyncio.Event()

    async def script(line: Line) -> None:
        nonlocal sent
        await line.request()
        headers = {"length": b"Content-Length: %d\r\n" % BIG, "chunked": b"Transfer-Encoding: chunked\r\n"}
        await line.send(b"HTTP/1.1 200 OK\r\n" + headers.get(framing, b"") + b"\r\n")
        frame = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if framing == "chunked" else PIECE
        while sent < BIG:
            blocked.set() if line.writer.transport.get_write_buffer_size() else blocked.clear()
            await line.send(frame)
            sent += len(PIECE)
        if framing == "chunked":
            await line.send(b"0\r\n\r\n")

    at = scene(script)
    with Peak(worker(at)) as peak:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1 << 16)
        writer.write(begin("GET", at.path("/v1/messages"), "Connection: close"))
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while before != sent or not blocked.is_set():  # until it stands still
            before = sent
            await asyncio.sleep(0.1)
        assert sent < BIG // 2
        total, digest = 0, hashlib.sha256()
        async with asyncio.timeout(60):
            while data := await reader.read(1 << 20):
                total += len(data)
                if framing == "length":
                    digest.update(data)
        writer.close()
    assert peak.grown < FLAT
    frames = BIG // len(PIECE)
    if framing == "chunked":  # a chunk that came in two reads goes on as two
        assert total >= BIG + frames * (len(b"10000\r\n") + 2) + 5
    elif framing == "close":
        assert total > BIG
    else:
        assert total == BIG
        assert digest.digest() == hashlib.sha256(PIECE * frames).digest()
    assert await at.counted("refusal_proxy_requests_total", code="200") == 1


@linux
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_upload_to_a_slow_upstream_holds_the_client_back(
    scene: SetScene, chunked: bool
) -> None:
    received, wire = 0, 0
    go = asyncio.Event()

    async def script(line: Line) -> None:
        nonlocal received
        await line.reader.readuntil(b"\r\n\r\n")
        await go.wait()
        data = b""
        while received < BIG or (chunked and not data.endswith(b"\r\n0\r\n\r\n")):
            piece = await line.reader.read(1 << 20)
            received += len(piece)
            data = data[-10:] + piece
        await line.send(OK)
        await line.gone()

    at = scene(script)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BIG}"
    frame = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    with Peak(worker(at)) as peak:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(begin("POST", at.path("/v1/chat/completions"), framing))

        async def upload() -> None:
            nonlocal wire
            while wire < BIG:
                writer.write(frame)
                wire += len(PIECE)
                await writer.drain()
            if chunked:
                writer.write(b"0\r\n\r\n")

        task = asyncio.create_task(upload())
        before = -1
        while before != wire or wire == 0:  # until it stands still
            before = wire
            await asyncio.sleep(0.1)
        assert wire < BIG // 2
        go.set()
        await asyncio.wait_for(task, 60)
        answer = await asyncio.wait_for(read_response(reader), 20)
        writer.close()
    assert answer.endswith(b"\r\n\r\n{}")
    assert received >= BIG
    assert peak.grown < FLAT
    assert await at.counted("refusal_proxy_requests_total", code="200") == 1


async def test_a_slow_upload_arrives_piece_by_piece(scene: SetScene) -> None:
    """The client waits until the upstream has seen a piece before it sends the next."""

    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        for _ in range(20):
            await line.reader.readexactly(9 if chunked else 4)
            seen.set()
        if chunked:
            await line.reader.readuntil(b"0\r\n\r\n")
        await line.send(OK)

    for chunked in (False, True):
        seen = asyncio.Event()
        at = scene(script)
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 80"
        writer.write(begin("POST", at.path("/x"), framing))
        for _ in range(20):
            seen.clear()
            writer.write(b"4\r\nabcd\r\n" if chunked else b"abcd")
            await asyncio.wait_for(seen.wait(), 5)
        if chunked:
            writer.write(b"0\r\n\r\n")
        assert (await asyncio.wait_for(read_response(reader), 5)).endswith(b"{}")
        writer.close()


async def test_an_early_answer_ends_the_upload(scene: SetScene) -> None:
    """The client gets it with `Connection: close`; the half-used upstream connection is not kept."""

    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.reader.readexactly(100)
        await line.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        await line.gone()

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path("/v1/messages"), "Content-Length: 1000000") + b"x" * 100)
    answer = await asyncio.wait_for(read_response(reader), 5)
    assert answer == (b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    assert await asyncio.wait_for(reader.read(), 5) == b""  # the client need not wait for the close
    writer.write(b"x" * 50_000)  # it may still be sending
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    writer.close()
    at.script = answering(OK)
    assert (await exchange(at.port, post(at.path("/x"), b""))).status == 200
    assert len(at.upstream.lines) == 2
    assert await at.counted("refusal_proxy_requests_total", code="413") == 1
    assert at.value("refusal_proxy_client_disconnects_total") == 0


@pytest.mark.parametrize("bad", [b"zz\r\n", b"3\r\nabcX", b"-1\r\n", b"5\r\nabc\r\n0\r\n\r\nxx"])
async def test_a_client_that_breaks_its_own_chunks_is_refused_and_the_upstream_cut(
    scene: SetScene, bad: bytes
) -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        started.set()
        await line.gone()

    started = asyncio.Event()
    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path("/v1/messages"), "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
    await asyncio.wait_for(started.wait(), 5)
    writer.write(bad)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nX-Refusal-Proxy-Error: bad_body\r\n" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    assert await at.counted("refusal_proxy_requests_total", code="400") == 1
    assert await at.counted("refusal_unscored_total") == 1
    assert at.value("refusal_proxy_client_disconnects_total") == 0


async def test_a_client_that_breaks_its_chunks_in_mid_answer_is_broken_off(scene: SetScene) -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await line.gone()

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path("/x"), "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
    await reader.readuntil(b"hello\r\n")
    writer.write(b"zz\r\n")
    rest = await asyncio.wait_for(reader.read(), 5)
    assert rest == b""
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    writer.close()


@linux
async def test_pipelined_answers_that_nobody_reads_do_not_pile_up(scene: SetScene) -> None:
    body = PIECE * 8
    at = scene(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
    with Peak(worker(at)) as peak:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1 << 16)
        writer.write(begin("GET", at.path("/x")) * 200)
        seen = -1
        while not at.upstream.lines or seen != len(at.upstream.lines[0].heads):  # until it stands still
            seen = len(at.upstream.lines[0].heads) if at.upstream.lines else -1
            await asyncio.sleep(0.2)
        assert seen < 100
        total = 0
        async with asyncio.timeout(60):
            while total < 200 * len(body):
                total += len(await reader.read(1 << 20))
        writer.close()
    assert peak.grown < FLAT
