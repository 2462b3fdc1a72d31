"""The data side through real sockets: what the client sees, what the upstream sees."""

from __future__ import annotations

import asyncio

from tests.conftest import Serve, ServeScript
from tests.harness.raw import exchange, post
from tests.harness.upstreams import Line, answering, json_answer


async def test_heads_and_bodies_pass_as_they_were(serve: Serve, upstream: ServeScript) -> None:
    """Status, reason, header order, case, values and duplicates arrive as the upstream wrote them."""
    raw = (
        b"HTTP/1.1 201 Made It So\r\nX-b: 2\r\nx-A: 1\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
        b"Content-Length: 5\r\nX-Empty:\r\n\r\nhello"
    )
    up = await upstream(answering(raw))
    proxy = await serve(upstream=up.url)
    answer = await exchange(proxy.data_port, post("/a%2Fb//c/?q=%20x&key=1", b"{}", "X-Two: 1", "x-two: 2"))
    expected = raw.replace(b"X-Empty:\r\n", b"X-Empty: \r\nConnection: close\r\n")
    assert answer.raw == expected
    sent = up.lines[0].heads[0]
    assert sent == (
        b"POST /a%2Fb//c/?q=%20x&key=1 HTTP/1.1\r\nHost: 127.0.0.1:"
        + str(up.port).encode()
        + b"\r\nContent-Length: 2\r\nX-Two: 1\r\nx-two: 2\r\n\r\n"
    )


async def test_the_client_leaves_and_the_upstream_is_cut_off_at_once(
    serve: Serve, upstream: ServeScript
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await line.gone()

    up = await upstream(script)
    proxy = await serve(upstream=up.url)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.data_port)
    writer.write(post("/v1/chat/completions", b"{}"))
    await reader.readuntil(b"hello\r\n")
    writer.close()
    await asyncio.wait_for(up.lines[0].closed.wait(), 5)
    await proxy.until_value("refusal_proxy_client_disconnects_total", {"route": "default"})


async def test_json_comes_back(serve: Serve, upstream: ServeScript) -> None:
    up = await upstream(answering(json_answer(b'{"a": 1}')))
    proxy = await serve(upstream=up.url)
    answer = await exchange(proxy.data_port, post("/v1/chat/completions", b"{}"))
    assert answer.body == b'{"a": 1}'
    await proxy.until_value("refusal_unscored_total", {"cause": "unreadable"})
