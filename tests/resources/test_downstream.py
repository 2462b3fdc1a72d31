"""The client's side: what aiohttp leaves open and is closed here."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resources.downstream import ClientBounds, DataServer, Incoming, Sent, local_response
from tests.harness.inline import inline
from tests.harness.raw import exchange, post, read_response
from tests.harness.upstreams import Line, answering, json_answer, scripted

OK = json_answer(b"{}")


@given(st.text(), st.booleans())
def test_an_answer_of_our_own_is_json_in_one_line_whatever_the_message(message: str, bodiless: bool) -> None:
    raw = local_response(502, "closed_early", message, b"close", bodiless=bodiless)
    head, _, body = raw.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert fields[b"X-Refusal-Proxy-Error"] == b"closed_early"
    assert fields[b"Connection"] == b"close"
    if bodiless:
        assert body == b""
        return
    assert int(fields[b"Content-Length"]) == len(body)
    assert json.loads(body)["error"]["code"] == "closed_early"


async def test_a_body_is_never_taken_for_a_head() -> None:
    """Bodies much larger than `head_bytes`, pipelined, in pieces that ignore every border."""
    random = Random(1)
    async with scripted(answering(OK)) as up, inline(up.url, head_bytes=1024) as at:
        for _ in range(10):
            bodies = [bytes(random.randint(0, 9000)) for _ in range(5)]
            wire = b"".join(post("/x", body, close=False) for body in bodies[:-1]) + post("/x", bodies[-1])
            cuts = [0, *sorted(random.randint(0, len(wire)) for _ in range(8)), len(wire)]
            pieces = [wire[a:b] for a, b in pairwise(cuts)]
            answer = await exchange(at.port, *pieces)
            assert answer.raw.count(b"HTTP/1.1 200 OK") == 5
        assert at.tally.requests == {("default", "POST", 200): 50}


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_head_is_bounded_as_a_whole(size: int) -> None:
    """Also the head of a request that is pipelined behind another."""
    head = (
        b"GET /y HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: 123456789\r\n" % n for n in range(90)) + b"\r\n"
    )
    async with scripted(answering(OK)) as up, inline(up.url, head_bytes=1024) as at:
        for before in (b"", post("/x", b"{}", close=False)):
            pieces = [head[i : i + size] for i in range(0, len(head), size)]
            answer = await exchange(at.port, before, *pieces) if before else await exchange(at.port, *pieces)
            assert answer.raw.count(b"HTTP/1.1 200 OK\r\n") == (1 if before else 0)
            assert b"HTTP/1.1 431 Request Header Fields Too Large\r\n" in answer.raw
        assert at.tally.requests[("none", "other", 431)] == 2


async def test_garbage_behind_a_whole_body_does_not_spoil_it() -> None:
    async with scripted(answering(OK)) as up, inline(up.url) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        request = post("/x", b"0123456789", close=False)
        writer.write(request[:-5])
        await at.until(lambda: up.lines)
        writer.write(request[-5:] + b"\x00garbage\r\n\r\n")
        assert (await asyncio.wait_for(read_response(reader), 5)).endswith(b"\r\n\r\n{}")
        assert (await asyncio.wait_for(read_response(reader), 5)).startswith(b"HTTP/1.1 400 ")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert up.lines[0].bodies == [b"0123456789"]


async def test_a_refused_client_that_goes_on_sending_still_gets_its_answer() -> None:
    async with scripted(answering(OK)) as up, inline(up.url, head_bytes=1024) as at:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 3000)
            await asyncio.sleep(0)
            writer.write(b"x" * 3000)
            assert (await asyncio.wait_for(read_response(reader), 5)).startswith(b"HTTP/1.1 431 ")
            writer.write(b"x" * 3000)
            writer.close()


async def test_closing_idle_connections_spares_those_with_a_request() -> None:
    """Idle: closed at once. A stream, a half-sent head, a half-sent body: left to finish."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            started.release()
            await go.wait()
            await line.send(OK)

    started, go = asyncio.Semaphore(0), asyncio.Event()
    async with scripted(script) as up, inline(up.url) as at:
        idle = await asyncio.open_connection("127.0.0.1", at.port)
        busy = await asyncio.open_connection("127.0.0.1", at.port)
        busy[1].write(post("/x", b"{}"))
        heading = await asyncio.open_connection("127.0.0.1", at.port)
        heading[1].write(b"GET /y HTTP/1.1\r\nHo")
        await started.acquire()
        while sum(not connection.idle for connection in at.connections()) < 2:
            await asyncio.sleep(0.01)
        at.forwarder.draining = True
        at.server.close_idle()
        assert await asyncio.wait_for(idle[0].read(), 5) == b""
        go.set()
        heading[1].write(b"st: a\r\n\r\n")
        for reader, _ in (busy, heading):
            answer = await asyncio.wait_for(reader.read(), 5)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close\r\n" in answer
        for _, writer in (idle, busy, heading):
            writer.close()


async def test_a_handler_that_raises_is_a_500_in_the_last_resort() -> None:
    """The Forwarder lets nothing through; if it did, aiohttp's own page would not be seen."""
    refused: list[tuple[int, BaseException | None]] = []

    async def fail(incoming: Incoming) -> Sent:
        raise KeyError("a secret")

    bounds = ClientBounds(keepalive_s=5, head_bytes=1024, serve_half_closed=False)
    server = DataServer(fail, bounds, lambda status, error: refused.append((status, error)))
    acceptor = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    answer = await exchange(acceptor.sockets[0].getsockname()[1], post("/x", b"{}"))
    acceptor.close()
    assert answer.status == 500
    assert b"secret" not in answer.raw
    assert refused[0][0] == 500
    assert isinstance(refused[0][1], KeyError)
