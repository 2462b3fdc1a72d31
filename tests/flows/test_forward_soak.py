"""Thousands of exchanges of all kinds: nothing is left open, nothing is logged, no secret is anywhere."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.conftest import Serve, ServeScript
from tests.flows.conftest import SetScene
from tests.harness.raw import exchange, post
from tests.harness.upstreams import Line, answering, json_answer

CHAT = "/v1/chat/completions"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


async def play(line: Line) -> None:
    """What the request's last path segment says."""
    while True:
        kind = (await line.request()).split(b" ")[1].rpartition(b"/")[2]
        if kind == b"plain":
            await line.send(json_answer(b"{}"))
        elif kind == b"stream":
            await line.send(CHUNKED, b"0\r\n\r\n")
        elif kind == b"break":
            await line.send(CHUNKED)
            return
        elif kind == b"garbage":
            await line.send(b"what?\r\n\r\n")
            return
        elif kind == b"refuse":
            return
        else:  # wait for the client to leave
            await line.send(CHUNKED)
            await line.gone()
            return


async def leave(port: int, request: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await reader.readuntil(b"hello\r\n")
    writer.transport.abort()


def sockets(pid: int) -> int:
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(link.readlink()).startswith("socket:")
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.asyncio(loop_scope="session")
async def test_two_thousand_exchanges_of_all_kinds_leave_nothing_open(scene: SetScene) -> None:
    at = scene(play)
    proxy = at.stage.proxy
    (pid,) = proxy.children("worker")
    kinds = ("plain", "stream", "break", "garbage", "refuse", "leave", "upload", "nonsense")
    await exchange(at.port, post(at.path("/plain"), b"{}"))
    await asyncio.to_thread(proxy.get, "/metrics")
    before = sockets(pid)

    async def one(number: int) -> None:
        kind = kinds[number % len(kinds)]
        request = post(at.path(f"{CHAT}/{kind}"), b"{}")
        if kind == "leave":
            await leave(at.port, request)
        elif kind == "upload":
            body = b"1\r\nx\r\n" * 20 + b"0\r\n\r\n"
            head = f"POST {at.path('/plain')} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            await exchange(at.port, head.encode() + b"Connection: close\r\n\r\n" + body)
        elif kind == "nonsense":
            await exchange(at.port, b"\x00\x01\x02\r\n\r\n")
        else:
            await exchange(at.port, request)

    for start in range(0, 2000, 20):
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for number in range(start, start + 20):
                group.create_task(one(number))
    assert await at.counted("refusal_proxy_requests_total", 1751) == 1751
    await at.quiet()
    assert at.value("refusal_proxy_client_disconnects_total") == 250
    assert at.value("refusal_proxy_upstream_errors_total") == 750
    await proxy.until(lambda: sockets(pid) <= before + 2, "no socket is left open")  # idle ones expire in 4 s
    assert "data side fault" not in proxy.log()
    assert "Traceback" not in proxy.log()


async def test_no_secret_reaches_a_log_or_a_metric(serve: Serve, upstream: ServeScript) -> None:
    names = ("bearer", "x-api-key", "api-key", "cookie", "set-cookie", "query", "prompt", "answer", "host")
    secret = {name: f"s3cr3t-{name}" for name in names}
    answer = b'{"model": "m", "choices": [{"message": {"content": "%b"}}]}' % secret["answer"].encode()
    up = await upstream(
        answering(json_answer(answer, b"Set-Cookie: a=" + secret["set-cookie"].encode() + b"\r\n"))
    )
    proxy = await serve(
        config=f'upstream = "{up.url}"\n[log]\nlevel = "debug"\nexchanges = true\n'
        "[limits]\nhead_bytes = 4096\n"
    )
    body = b'{"model": "m", "messages": [{"role": "user", "content": "%b"}]}' % secret["prompt"].encode()
    headers = (
        f"Authorization: Bearer {secret['bearer']}",
        f"x-api-key: {secret['x-api-key']}",
        f"api-key: {secret['api-key']}",
        f"Cookie: a={secret['cookie']}",
    )
    for path in (CHAT, "/v1/unknown"):
        good = post(f"{path}?key={secret['query']}", body, *headers)
        assert (await exchange(proxy.data_port, good)).body == answer
        for bad in (
            good.replace(b"Content-Length: ", b"Content-Length: x"),
            good.replace(b"Cookie: ", b"Coo kie: "),
            good.replace(b"Bearer ", b"Bearer \x01"),
            good.replace(b"Bearer ", b"Bearer " + b"b" * 5000),
        ):
            assert (await exchange(proxy.data_port, bad)).status in (400, 431)
    await proxy.until_value("refusal_proxy_requests_total", {"code": "200"}, 2)
    await proxy.until_value("refusal_proxy_requests_total", {"code": "431"}, 2)
    everything = proxy.log() + proxy.get("/metrics")[1]
    await proxy.stop()
    everything += proxy.log()
    for value in secret.values():
        assert value not in everything
