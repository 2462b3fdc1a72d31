"""How exchanges end when they do not end well: the upstream breaks, speaks nonsense, or the client leaves."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest

from tests.flows.conftest import SetScene
from tests.harness.raw import exchange, post, read_response
from tests.harness.stage import Scene
from tests.harness.upstreams import Line, Script, answering, json_answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK = json_answer(b"{}")
CHAT = "/v1/chat/completions"


def begin(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: a", *headers, "", "")).encode()


def once(*pieces: bytes) -> Script:
    """Answer one request and close."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(*pieces)

    return script


async def truncated(at: Scene) -> None:
    """One capture of a conversation was handed over (what it says is tested in test_forward_captures)."""
    assert await at.counted("refusal_unscored_total") == 1
    assert at.value("refusal_unscored_total", cause="not_a_conversation") == 0


@pytest.mark.parametrize(
    ("version", "head", "body"),
    [
        ("1.1", b"Content-Length: 10\r\n", b"hello"),
        ("1.1", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n"),
        ("1.1", b"Transfer-Encoding: chunked\r\n", b"5\r\nhel"),
        ("1.1", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\nzz\r\n"),
        ("1.0", b"Content-Length: 10\r\n", b"hello"),
        ("1.0", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n"),
    ],
)
async def test_an_upstream_that_breaks_off_breaks_the_client_s_transfer_off(
    scene: SetScene, version: str, head: bytes, body: bytes
) -> None:
    """With a length or chunks it lacks its end; to HTTP/1.0, where an end is a close, it is reset."""
    at = scene(once(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path(CHAT), "Content-Length: 2", version=version) + b"{}")
    got = b""
    clean = True
    try:
        async with asyncio.timeout(5):
            while data := await reader.read(100):
                got += data
    except ConnectionResetError:
        clean = False
    writer.close()
    assert not got.endswith(b"0\r\n\r\n")
    if version == "1.0" and b"chunked" in head:
        assert not clean
    else:
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"hel" in got
    await at.counted("refusal_proxy_upstream_errors_total")
    await at.counted("refusal_proxy_requests_total", code="200")
    await truncated(at)


@pytest.mark.parametrize(
    ("cause", "raw"),
    [
        ("closed_early", b""),
        ("closed_early", b"HTTP/1.1 200"),
        ("closed_early", b"HTTP/1.1 200 OK\r\nX: 1\r\n"),
        ("closed_early", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("malformed", b"garbage\r\n\r\n"),
        ("malformed", b"\x16\x03\x01\x02\x00\x01"),
        ("malformed", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("malformed", b"HTTP/2 200 OK\r\n\r\n"),
        ("malformed", b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n"),
        ("malformed", b"HTTP/1.1 200 OK\r\nX: a\nY: b\0\r\n\r\n"),
        ("malformed", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("malformed", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("malformed", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab"),
        ("malformed", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        ("malformed", b"HTTP/1.1 200 OK\r\nX-Big: " + b"b" * (80 << 10) + b"\r\nContent-Length: 0\r\n\r\n"),
        ("malformed", b"HTTP/1.1 200 OK\r\n" + b"X-Endless: 1\r\n" * 30_000),
        ("malformed", b"HTTP/1.1 200 " + b"O" * (400 << 10)),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:44]),
)
async def test_what_is_no_answer_becomes_a_502_that_says_why(scene: SetScene, cause: str, raw: bytes) -> None:
    at = scene(once(raw))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(post(at.path(CHAT), b"{}", close=False))
    answer = await asyncio.wait_for(read_response(reader), 5)
    if b" 103 " in raw:
        assert answer == raw
        answer = await asyncio.wait_for(read_response(reader), 5)
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\n")
    assert b"\r\nX-Refusal-Proxy-Error: " + cause.encode() + b"\r\n" in answer
    assert b'"code": "' + cause.encode() + b'"' in answer
    at.script = answering(OK)
    writer.write(post(at.path(CHAT), b"{}", close=False))  # the client's connection is as good as before
    assert (await asyncio.wait_for(read_response(reader), 5)).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
    assert await at.counted("refusal_proxy_upstream_errors_total", cause=cause) == 1
    assert await at.counted("refusal_proxy_requests_total", code="502") == 1


async def test_a_head_just_below_the_limit_passes(scene: SetScene) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Big: " + b"b" * (60 << 10) + b"\r\nContent-Length: 2\r\n\r\n"
    at = scene(answering(head + b"{}"))
    answer = await exchange(at.port, post(at.path("/x"), b"{}"))
    assert answer.status == 200
    assert len(answer.head) > 60 << 10


async def test_nobody_listening_is_a_502(scene: SetScene) -> None:
    at = scene(answering(OK))
    at.upstream.close()
    answer = await exchange(at.port, post(at.path(CHAT), b"{}"))
    assert answer.status == 502
    assert b"X-Refusal-Proxy-Error: connect_refused" in answer.head
    assert await at.counted("refusal_proxy_upstream_errors_total", cause="connect_refused") == 1
    assert await at.counted("refusal_proxy_requests_total", code="502") == 1


def reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


LEAVE: dict[str, Callable[[asyncio.StreamWriter], None]] = {
    "close": lambda writer: writer.close(),
    "reset": reset,
    "half-close": lambda writer: writer.write_eof(),
}
ways = pytest.mark.parametrize("way", LEAVE)


async def left(at: Scene) -> None:
    """What every departure leaves: a closed upstream, one disconnect, one capture that is not whole."""
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    assert await at.counted("refusal_proxy_client_disconnects_total") == 1
    await truncated(at)
    await at.quiet()


@ways
async def test_a_client_that_leaves_before_the_head_stops_the_upstream(scene: SetScene, way: str) -> None:
    async def script(line: Line) -> None:
        await line.request()
        asked.set()
        await line.gone()

    asked = asyncio.Event()
    at = scene(script)
    _, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(post(at.path(CHAT), b"{}"))
    await asyncio.wait_for(asked.wait(), 5)
    LEAVE[way](writer)
    await left(at)
    assert (
        at.value("refusal_proxy_requests_total") == at.value("refusal_proxy_requests_total", code="499") == 1
    )
    writer.close()


@ways
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_that_leaves_in_mid_stream_stops_the_upstream(
    scene: SetScene, way: str, version: str
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await line.gone()

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path(CHAT), "Content-Length: 2", version=version) + b"{}")
    await reader.readuntil(b"hello")
    LEAVE[way](writer)
    await left(at)
    assert at.value("refusal_proxy_requests_total", code="200") == 1
    if way == "half-close":  # taken for leaving, but never a clean end
        try:
            rest = await asyncio.wait_for(reader.read(), 5)
            clean = True
        except ConnectionResetError:
            rest, clean = b"", False
        assert b"0\r\n\r\n" not in rest
        assert clean == (version == "1.1")
    writer.close()


@ways
async def test_a_client_that_leaves_while_it_does_not_read_stops_the_upstream(
    scene: SetScene, way: str
) -> None:
    """The stream stands still, both buffers are full: the departure is noticed all the same."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            line.writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            if line.writer.transport.get_write_buffer_size():
                full.set()
            await line.writer.drain()

    full = asyncio.Event()
    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1000)
    writer.write(post(at.path(CHAT), b"{}"))
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.wait_for(full.wait(), 10)
    LEAVE[way](writer)
    await left(at)
    writer.close()


@ways
async def test_a_client_that_leaves_during_its_upload_stops_the_upstream(scene: SetScene, way: str) -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.reader.readexactly(4)
        asked.set()
        await line.gone()

    asked = asyncio.Event()
    at = scene(script)
    _, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path(CHAT), "Content-Length: 100000") + b"abcd")
    await asyncio.wait_for(asked.wait(), 5)
    LEAVE[way](writer)
    await left(at)
    assert at.value("refusal_proxy_requests_total", code="499") == 1
    writer.close()


async def test_a_client_that_leaves_while_its_upload_is_held_back_stops_the_upstream(scene: SetScene) -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await go.wait()
        await line.gone()

    go = asyncio.Event()
    at = scene(script)
    _, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path(CHAT), f"Content-Length: {64 << 20}"))
    sent, before = 0, -1
    while before != sent:
        before = sent
        while not writer.transport.get_write_buffer_size() and sent < 64 << 20:
            writer.write(b"x" * 65_536)
            sent += 65_536
        await asyncio.sleep(0.05)
    reset(writer)
    go.set()
    await left(at)


async def test_requests_that_were_sent_and_left_at_once_are_all_accounted_for(scene: SetScene) -> None:
    """Request and close in one breath: nothing hangs, and what was begun is counted."""
    at = scene(answering(OK))
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(post(at.path("/x"), b"{}"))
        writer.close()
    await at.counted("refusal_proxy_requests_total", 20)
    await at.quiet()


async def test_the_upstream_s_error_answers_pass_as_they_are(scene: SetScene) -> None:
    raw = b"HTTP/1.1 529 Overloaded\r\nretry-after: 3\r\nContent-Length: 2\r\n\r\n{}"
    at = scene(answering(raw))
    answer = await exchange(at.port, post(at.path("/v1/messages"), b"{}"))
    assert answer.raw == raw.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert await at.counted("refusal_proxy_requests_total", code="529") == 1
    assert at.value("refusal_proxy_upstream_errors_total") == 0
