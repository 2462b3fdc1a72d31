"""Requests and responses that are not the plain kind: HEAD, no body, 1xx, HTTP/1.0, until-close, trailers."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.conftest import SetScene
from tests.harness.raw import exchange, post, read_response
from tests.harness.upstreams import Line, answering, json_answer

pytestmark = pytest.mark.asyncio(loop_scope="session")


def request(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: a", *headers, "", "")).encode()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\nETag: x\r\n\r\n"),
        ("OPTIONS", b"HTTP/1.1 200 OK\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_responses_without_a_body_leave_the_connection_usable(
    scene: SetScene, method: str, answer: bytes
) -> None:
    async def script(line: Line) -> None:
        while True:
            head = await line.request()
            await line.send(json_answer(b"{}") if b" /last " in head else answer)

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for _ in range(2):
        writer.write(request(method, at.path("/x")))
        assert await asyncio.wait_for(reader.readexactly(len(answer)), 5) == answer
    writer.write(request("GET", at.path("/last")))
    assert (await read_response(reader)).endswith(b"\r\n\r\n{}")
    writer.close()
    code = answer.split(b" ")[1].decode()
    assert await at.counted("refusal_proxy_requests_total", 2, method=method, code=code) >= 2


async def test_a_head_request_drops_a_chunked_framing_that_no_body_follows(scene: SetScene) -> None:
    at = scene(answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"))
    answer = await exchange(at.port, request("HEAD", at.path("/x"), "Connection: close"))
    assert answer.raw == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: close\r\n\r\n"


async def test_a_body_sent_in_answer_to_head_is_not_taken_for_the_next_answer(scene: SetScene) -> None:
    at = scene(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for count in (1, 2):
        writer.write(request("HEAD", at.path("/x")))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        await asyncio.wait_for(at.upstream.lines[count - 1].closed.wait(), 5)
    writer.close()
    assert len(at.upstream.lines) == 2


async def test_errors_of_the_proxy_s_own_have_no_body_in_answer_to_head(scene: SetScene) -> None:
    async def script(line: Line) -> None:
        await line.request()

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for target in (at.path("/x"), at.path("/x")):
        writer.write(request("HEAD", target))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"\r\nX-Refusal-Proxy-Error: closed_early\r\n" in head
    writer.close()


async def test_interim_responses_pass_in_order_before_the_final_one(scene: SetScene) -> None:
    raw = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    )
    for pieces in ((raw,), tuple(raw[i : i + 1] for i in range(len(raw)))):
        at = scene(answering(*pieces))
        answer = await exchange(at.port, request("GET", at.path("/x"), "Connection: close"))
        assert answer.raw == raw.replace(b"2\r\n\r\nhi", b"2\r\nConnection: close\r\n\r\nhi")
        assert await at.counted("refusal_proxy_requests_total") == 1
        assert at.value("refusal_proxy_requests_total", code="200") == 1


async def test_interim_responses_are_kept_from_http_1_0_clients(scene: SetScene) -> None:
    at = scene(answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" + json_answer(b"{}")))
    answer = await exchange(at.port, request("GET", at.path("/x"), version="1.0"))
    assert answer.status == 200
    assert answer.body == b"{}"


async def test_interim_responses_without_end_are_no_response(scene: SetScene) -> None:
    at = scene(answering(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 5000))
    answer = await exchange(at.port, request("GET", at.path("/x"), "Connection: close"))
    assert b"HTTP/1.1 502 Bad Gateway\r\n" in answer.raw or not answer.clean
    assert await at.counted("refusal_proxy_upstream_errors_total", cause="malformed") == 1


async def test_expect_continue_is_answered_by_the_upstream(scene: SetScene) -> None:
    async def script(line: Line) -> None:
        head = await line.reader.readuntil(b"\r\n\r\n")
        assert b"\r\nExpect: 100-continue\r\n" in head
        await line.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await line.reader.readexactly(4) == b"body"
        await line.send(json_answer(b"{}"))

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(request("POST", at.path("/x"), "Content-Length: 4", "Expect: 100-continue"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"body")
    assert (await read_response(reader)).endswith(b"\r\n\r\n{}")
    writer.close()
    assert not at.upstream.errors


@pytest.mark.parametrize("status", [b"417 Expectation Failed", b"413 Content Too Large"])
async def test_a_refused_expectation_reaches_the_client_without_its_body(
    scene: SetScene, status: bytes
) -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")
        await line.gone()

    at = scene(script)
    head = request("POST", at.path("/x"), "Content-Length: 4", "Expect: 100-continue")
    answer = await exchange(at.port, head, timeout_s=5)
    assert answer.raw == (b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    await asyncio.wait_for(at.upstream.lines[0].closed.wait(), 5)


async def test_an_upstream_that_ignores_an_expectation_gets_the_body_all_the_same(scene: SetScene) -> None:
    at = scene(answering(json_answer(b"{}")))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(request("POST", at.path("/x"), "Content-Length: 4", "Expect: 100-continue"))
    while not (at.upstream.lines and at.upstream.lines[0].heads):
        await asyncio.sleep(0.01)
    writer.write(b"body")
    assert (await read_response(reader)).endswith(b"\r\n\r\n{}")
    writer.close()
    assert at.upstream.lines[0].bodies == [b"body"]


async def test_http_1_0_clients_are_served_with_and_without_keep_alive(scene: SetScene) -> None:
    at = scene(answering(json_answer(b"{}")))
    answer = await exchange(at.port, request("GET", at.path("/x"), version="1.0"))
    assert answer.raw.endswith(b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for _ in range(2):
        writer.write(request("GET", at.path("/x"), "Connection: keep-alive", version="1.0"))
        assert b"\r\nConnection: keep-alive\r\n" in await read_response(reader)
    writer.close()
    assert all(head.startswith(b"GET /x HTTP/1.1\r\n") for head in at.upstream.lines[0].heads)


async def test_a_chunked_answer_ends_with_the_connection_for_http_1_0(scene: SetScene) -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    at = scene(answering(raw))
    answer = await exchange(at.port, request("GET", at.path("/x"), "Connection: keep-alive", version="1.0"))
    assert answer.clean
    assert answer.raw == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"


async def test_an_http_1_0_request_without_host_gets_the_upstream_s(scene: SetScene) -> None:
    at = scene(answering(json_answer(b"{}")))
    answer = await exchange(at.port, b"GET " + at.path("/x").encode() + b" HTTP/1.0\r\n\r\n")
    assert answer.status == 200
    assert at.upstream.lines[0].heads[0] == (
        b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % at.upstream.port
    )


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_that_ends_with_the_connection_becomes_chunked(scene: SetScene, version: bytes) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/" + version + b" 200 OK\r\nContent-Type: a/b\r\n\r\nhello")

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for _ in range(2):
        writer.write(request("GET", at.path("/x")))
        answer = await read_response(reader)
        assert answer == (
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n"
        )
    writer.close()
    assert len(at.upstream.lines) == 2


async def test_trailers_end_at_the_proxy_and_the_transfer_stays_clean(scene: SetScene) -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    at = scene(answering(raw))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for _ in range(2):
        writer.write(
            request("POST", at.path("/x"), "Transfer-Encoding: chunked", "Trailer: X-Up")
            + b"3;ext=1\r\nabc\r\n0\r\nX-Up: 1\r\n\r\n"
        )
        answer = await read_response(reader)
        assert answer == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    writer.close()
    assert at.upstream.lines[0].bodies == [b"3\r\nabc\r\n0\r\n\r\n"] * 2


async def test_a_change_of_protocols_that_nobody_asked_for_is_no_answer(scene: SetScene) -> None:
    for asked in ("X: 1", "Upgrade: h2c\r\nConnection: Upgrade"):
        at = scene(
            answering(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nmine now")
        )
        answer = await exchange(at.port, request("GET", at.path("/x"), asked, "Connection: close"))
        assert answer.status == 502
        assert b"mine now" not in answer.raw
        assert b"pgrade" not in at.upstream.lines[0].heads[0]


async def test_an_upgrade_other_than_websocket_is_dropped_and_the_request_goes_on(scene: SetScene) -> None:
    """aiohttp loses a request that came right behind it: the close tells the client to ask again."""
    at = scene(answering(json_answer(b"{}")))
    upgrade = request(
        "GET", at.path("/1"), "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: x"
    )
    answer = await exchange(at.port, upgrade + request("GET", at.path("/2")), timeout_s=5)
    assert answer.raw.endswith(b"\r\nConnection: close\r\n\r\n{}")
    heads = at.upstream.lines[0].heads
    assert [head.split(b" ")[1] for head in heads] == [b"/1"]
    assert b"pgrade" not in b"".join(heads)
    assert b"HTTP2" not in b"".join(heads)


async def test_a_wrong_status_is_malformed(scene: SetScene) -> None:
    for raw in (b"HTTP/1.1 042 Odd\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 0 X\r\n\r\n"):
        at = scene(answering(raw))
        assert (await exchange(at.port, post(at.path("/x"), b"{}"))).status == 502
