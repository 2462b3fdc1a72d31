"""What happens when time is up, with half-closed clients served and X-Forwarded-* appended."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.conftest import SetScene
from tests.harness.raw import exchange, post, read_response
from tests.harness.upstreams import Line, answering, json_answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK = json_answer(b"{}")


def begin(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: proxy.test:1", *headers, "", "")).encode()


async def test_silence_before_the_head_is_a_504_and_the_upstream_is_closed(hasty: SetScene) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.gone()

    at = hasty(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(post(at.path("/v1/messages"), b"{}", close=False))
    answer = await asyncio.wait_for(read_response(reader), 8)
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert b"\r\nX-Refusal-Proxy-Error: silent\r\n" in answer
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    at.script = answering(OK)
    writer.write(post(at.path("/x"), b"{}", close=False))
    assert (await read_response(reader)).endswith(b"{}")
    writer.close()
    assert await at.counted("refusal_proxy_upstream_errors_total", cause="silent") == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_silence_after_the_head_breaks_the_transfer_off(hasty: SetScene, version: str) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await line.gone()

    at = hasty(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("GET", at.path("/x"), version=version))
    await reader.readuntil(b"hello")
    clean = True
    try:
        rest = await asyncio.wait_for(reader.read(), 8)
        assert b"0\r\n" not in rest
    except ConnectionResetError:
        clean = False
    assert clean == (version == "1.1")
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    writer.close()
    assert await at.counted("refusal_proxy_upstream_errors_total", cause="silent") == 1


async def test_a_stream_that_keeps_moving_may_take_as_long_as_it_likes(hasty: SetScene) -> None:
    """Three times the silence that is allowed, in pieces that come more often."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.3)
            await line.send(b"1\r\nx\r\n")
        await line.send(b"0\r\n\r\n")

    at = hasty(script)
    answer = await exchange(at.port, begin("GET", at.path("/x"), "Connection: close"))
    assert answer.body == b"1\r\nx\r\n" * 10 + b"0\r\n\r\n"


async def test_a_client_that_stops_in_mid_upload_gets_a_408(hasty: SetScene) -> None:
    async def script(line: Line) -> None:
        await line.gone()

    at = hasty(script)
    answer = await exchange(at.port, begin("POST", at.path("/v1/messages"), "Content-Length: 9") + b"abc")
    assert answer.status == 408
    assert b"X-Refusal-Proxy-Error: client_silent" in answer.head
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    assert await at.counted("refusal_proxy_requests_total", code="408") == 1


async def test_an_upstream_that_stops_reading_an_upload_is_the_silent_one(hasty: SetScene) -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await over.wait()

    over = asyncio.Event()
    at = hasty(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path("/x"), f"Content-Length: {32 << 20}") + b"x" * (32 << 20))
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    over.set()
    writer.close()
    assert await at.counted("refusal_proxy_upstream_errors_total", cause="silent") == 1


async def test_a_client_that_stops_reading_is_cut_off(hasty: SetScene) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await line.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")

    at = hasty(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1000)
    writer.write(begin("GET", at.path("/x")))
    await reader.readuntil(b"\r\n\r\n")
    await at.counted("refusal_proxy_client_disconnects_total")
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    writer.close()
    assert at.value("refusal_proxy_upstream_errors_total") == 0


async def test_idle_connections_are_closed_on_both_sides(hasty: SetScene) -> None:
    at = hasty(answering(OK))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(post(at.path("/x"), b"{}", close=False))
    await read_response(reader)
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_half_closed_client_is_served_all_the_same(hasty: SetScene) -> None:
    """The answers say that they are the last, and the connection ends after them."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            go.set()
            await line.send(b"1\r\nc\r\n0\r\n\r\n")

    go = asyncio.Event()
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    at = hasty(script)
    one = post(at.path("/v1/messages"), b"{}", close=False)
    answer = await exchange(at.port, one, half_close=True, timeout_s=5)
    assert answer.raw == whole % b"Connection: close\r\n"
    assert answer.clean
    answer = await exchange(at.port, one * 3, half_close=True, timeout_s=5)
    assert answer.raw == whole % b"" * 2 + whole % b"Connection: close\r\n"
    await at.counted("refusal_proxy_requests_total", 4, code="200")
    assert at.value("refusal_proxy_client_disconnects_total") == 0


async def test_a_half_close_before_the_body_is_whole_is_a_departure_all_the_same(hasty: SetScene) -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        asked.set()
        await line.gone()

    asked = asyncio.Event()
    at = hasty(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(begin("POST", at.path("/x"), "Content-Length: 9") + b"abc")
    await asyncio.wait_for(asked.wait(), 5)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)
    writer.close()
    assert await at.counted("refusal_proxy_client_disconnects_total") == 1


async def test_forwarding_headers_are_appended(hasty: SetScene) -> None:
    at = hasty(answering(OK))
    head = begin("GET", at.path("/x"), "Connection: close, X-Forwarded-For", "Accept: */*")
    await exchange(at.port, head)
    assert at.upstream.lines[0].heads[0].split(b"\r\n")[2:-2] == [
        b"Accept: */*",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: proxy.test:1",
    ]


async def test_forwarding_headers_of_earlier_hops_are_kept(hasty: SetScene) -> None:
    at = hasty(answering(OK))
    await exchange(
        at.port,
        begin(
            "GET",
            at.path("/x"),
            "X-Forwarded-For: 10.0.0.1, 10.0.0.2",
            "x-forwarded-for: 10.0.0.3",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: outside.example",
            "Connection: close",
        ),
    )
    assert at.upstream.lines[0].heads[0].split(b"\r\n")[2:-2] == [
        b"X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 127.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: outside.example",
    ]
