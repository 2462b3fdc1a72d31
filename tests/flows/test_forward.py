"""The data side through real sockets: heads, targets and routes, as the client and the upstream see them."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.conftest import SetScene
from tests.harness.raw import exchange, post, read_response
from tests.harness.stage import Stage
from tests.harness.upstreams import Line, answering, json_answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK = json_answer(b"{}")


def get(target: str | bytes, *headers: bytes, close: bool = True) -> bytes:
    target = target.encode() if isinstance(target, str) else target
    lines = [b"GET " + target + b" HTTP/1.1", b"Host: proxy.test", *headers]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def test_a_response_s_head_passes_as_it_was(scene: SetScene) -> None:
    """Status, reason, and the order, case, values, duplicates and odd bytes of headers."""
    raw = (
        b"HTTP/1.1 201 Made It So\r\nX-b: 2\r\nx-A: 1\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
        b"X-Obs: caf\xe9 \xff\r\nContent-Length: 5\r\nX-Empty:\r\nX-Inner: a  b\tc\r\n\r\nhello"
    )
    at = scene(answering(raw))
    answer = await exchange(at.port, post(at.path(), b"{}"))
    expected = raw.replace(b"X-Empty:", b"X-Empty: ").replace(b"c\r\n\r\n", b"c\r\nConnection: close\r\n\r\n")
    assert answer.raw == expected
    assert await at.counted("refusal_proxy_requests_total", code="201", method="POST") == 1


async def test_a_head_that_arrives_byte_by_byte_is_the_same_head(scene: SetScene) -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Blank: \r\nX-a:1\r\nContent-Length: 2\r\n\r\nhi"

    async def script(line: Line) -> None:
        await line.request()
        await line.send(*(raw[i : i + 1] for i in range(len(raw))))

    at = scene(script)
    answer = await exchange(at.port, *(bytes([b]) for b in get(at.path("/x"), b"X-Empty:", b"X-a:1")))
    assert answer.raw == (
        b"HTTP/1.1 200 OK\r\nX-Empty: \r\nX-Blank: \r\nX-a: 1\r\nContent-Length: 2\r\n"
        b"Connection: close\r\n\r\nhi"
    )
    assert b"\r\nX-Empty: \r\nX-a: 1\r\n" in at.upstream.lines[0].heads[0]


async def test_a_request_s_head_passes_as_it_was(scene: SetScene) -> None:
    """Host becomes the upstream's, in its place; everything else stays in its order and bytes."""
    at = scene(answering(OK))
    request = (
        f"POST {at.path('/v1/x')} HTTP/1.1\r\nX-Two: 1\r\nHOST: proxy.test:1\r\n".encode()
        + b"x-two: 2\r\nX-Two: 1\r\n"
        b"X-Obs: \xe9\xff\r\nX-Empty:\r\nAuthorization: Bearer s\r\nContent-Length: 2\r\n"
        b"Connection: close\r\nAccept-Encoding: zstd, br\r\n\r\n{}"
    )
    assert (await exchange(at.port, request)).status == 200
    port = str(at.upstream.port).encode()
    assert at.upstream.lines[0].heads[0] == (
        b"POST /v1/x HTTP/1.1\r\nX-Two: 1\r\nHOST: 127.0.0.1:" + port + b"\r\nx-two: 2\r\nX-Two: 1\r\n"
        b"X-Obs: \xe9\xff\r\nX-Empty: \r\nAuthorization: Bearer s\r\nContent-Length: 2\r\n"
        b"Accept-Encoding: zstd, br\r\n\r\n"
    )
    assert at.upstream.lines[0].bodies == [b"{}"]


@pytest.mark.parametrize(
    "target",
    [
        b"/a%2Fb/c",
        b"//a///b/",
        b"/a/",
        b"/?",
        b"/a?",
        b"/a?q=%20x&key=1&&=?/",
        b"/a%20b+c",
        b"/../a/./b/..",
        b"/%e4%bd%a0?%ff",
        b"/a;b=1,2:3@4!$&'()*~",
        b"/v1beta/models/x:generateContent",
        b'/a\\b|c^d`{e}"<>',
    ],
)
async def test_the_raw_path_and_query_pass_unchanged(scene: SetScene, target: bytes) -> None:
    at = scene(answering(OK))
    answer = await exchange(at.port, get(at.path("").encode() + target))
    assert answer.status == 200
    assert at.upstream.lines[0].heads[0].split(b" ")[1] == target


async def test_bytes_outside_ascii_in_a_target_pass_or_are_refused_but_never_change(scene: SetScene) -> None:
    at = scene(answering(OK))
    target = b"/caf\xc3\xa9/\xff?q=\xe9"
    answer = await exchange(at.port, get(at.path("").encode() + target))
    if answer.status == 200:
        assert at.upstream.lines[0].heads[0].split(b" ")[1] == target
    else:
        assert answer.status == 400
        assert not at.upstream.lines


async def test_the_authority_of_an_absolute_target_is_ignored(scene: SetScene) -> None:
    """Only the configuration says where requests go."""
    at = scene(answering(OK))
    answer = await exchange(at.port, get("http://169.254.169.254:80" + at.path("/latest?x=1")))
    assert answer.status == 200
    head = at.upstream.lines[0].heads[0]
    assert head.startswith(b"GET /latest?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % at.upstream.port)
    assert b"169.254" not in head


async def test_options_with_an_asterisk_reaches_the_upstream(stage: Stage) -> None:
    rest = stage._scenes[0]
    assert rest.name == "rest"
    rest.script = answering(b"HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n")
    answer = await exchange(rest.port, b"OPTIONS * HTTP/1.1\r\nHost: proxy.test\r\nConnection: close\r\n\r\n")
    assert answer.raw.startswith(b"HTTP/1.1 204 No Content\r\nAllow: GET\r\n")
    assert rest.upstream.lines[-1].heads[0].startswith(b"OPTIONS * HTTP/1.1\r\n")


async def test_hop_by_hop_headers_are_dropped_in_both_directions(scene: SetScene) -> None:
    """Also those that Connection names, in several headers; what frames or routes cannot be named away."""
    at = scene(
        answering(
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Kept: 1\r\n"
            b"Connection: Content-Length, content-type, X-Gone\r\nX-Gone: 1\r\nUpgrade: h2c\r\n"
            b"Proxy-Authenticate: Basic\r\nTrailer: X-T\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nhi"
        )
    )
    answer = await exchange(
        at.port,
        b"POST "
        + at.path("/x").encode()
        + b" HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        b"Connection: host,Content-Length , authorization\r\nTE: trailers\r\n"
        b"Proxy-Authorization: Basic eA==\r\n"
        b"Proxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nAuthorization: k\r\nX-Kept: 1\r\n"
        b"Content-Length: 2\r\n\r\n{}",
    )
    assert answer.raw == (
        b"HTTP/1.1 200 OK\r\nX-Kept: 1\r\nContent-Type: a/b\r\nContent-Length: 2\r\n"
        b"Connection: close\r\n\r\nhi"
    )
    assert at.upstream.lines[0].heads[0] == (
        b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: k\r\nX-Kept: 1\r\n"
        b"Content-Length: 2\r\n\r\n" % at.upstream.port
    )


async def test_pipelined_requests_are_answered_in_order_on_one_upstream_connection(scene: SetScene) -> None:
    async def script(line: Line) -> None:
        while True:
            head = await line.request()
            await line.send(json_answer(head.split(b" ")[1]))

    at = scene(script)
    pieces = [get(at.path(f"/{n}"), close=n == 4) for n in range(5)]
    answer = await exchange(at.port, b"".join(pieces))
    assert [part[:2] for part in answer.raw.split(b"\r\n\r\n")[1:]] == [b"/%d" % n for n in range(5)]
    assert len(at.upstream.lines) == 1
    assert await at.counted("refusal_proxy_requests_total", 5.0, method="GET", code="200") == 5


async def test_both_connections_are_used_again(scene: SetScene) -> None:
    at = scene(answering(OK))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for _ in range(3):
        writer.write(post(at.path("/v1/chat/completions"), b"{}", close=False))
        assert (await read_response(reader)).endswith(b"\r\n\r\n{}")
    writer.close()
    assert [len(line.heads) for line in at.upstream.lines] == [3]


@pytest.mark.parametrize(
    "ending",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}surplus",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nsurplus",
    ],
    ids=["close", "http-1.0", "a-second-answer", "surplus", "surplus-after-chunks"],
)
async def test_an_upstream_connection_that_is_not_clean_is_not_used_again(
    scene: SetScene, ending: bytes
) -> None:
    """The message itself is delivered whole, and the client's connection goes on."""
    at = scene(answering(ending))
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    for count in (1, 2):
        writer.write(get(at.path("/x"), close=False))
        answer = await read_response(reader)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"{}" in answer
        assert b"surplus" not in answer
        await asyncio.wait_for(at.upstream.lines[count - 1].closed.wait(), 5)
    assert [len(line.heads) for line in at.upstream.lines] == [1, 1]
    writer.close()


@pytest.mark.parametrize("late", [b"", b"unasked", OK], ids=["end", "garbage", "an-answer"])
async def test_a_pooled_connection_that_died_or_spoke_while_idle_is_not_used(
    scene: SetScene, late: bytes
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK + late if not late else OK)
        await go.wait()
        if late:
            await line.send(late)
        else:
            line.writer.close()
        spoken.set()
        await line.gone()

    go, spoken = asyncio.Event(), asyncio.Event()
    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(get(at.path("/x"), close=False))
    await read_response(reader)
    go.set()
    await spoken.wait()
    at.script = answering(OK)
    writer.write(get(at.path("/x"), close=False))
    assert (await read_response(reader)).endswith(b"\r\n\r\n{}")
    writer.close()
    assert len(at.upstream.lines) == 2


async def test_a_request_that_may_have_arrived_is_never_sent_twice(scene: SetScene) -> None:
    """The upstream reads a request on a kept connection and dies: 502, and no second attempt."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await line.request()

    at = scene(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(post(at.path("/x"), b"{}", close=False))
    await read_response(reader)
    writer.write(post(at.path("/x"), b"{}", close=False))
    answer = await read_response(reader)
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"\r\nX-Refusal-Proxy-Error: closed_early\r\n" in answer
    writer.close()
    assert [len(line.heads) for line in at.upstream.lines] == [2]
    assert await at.counted("refusal_proxy_upstream_errors_total", cause="closed_early") == 1


async def test_connect_is_refused_at_once(stage: Stage) -> None:
    answer = await exchange(
        stage.proxy.data_port,
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
        timeout_s=5,
    )
    assert answer.status == 501
    assert b"X-Refusal-Proxy-Error: connect_method" in answer.head


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
        (
            400,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
        (
            400,
            (
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
                b"Transfer-Encoding: x\r\n\r\n0\r\n\r\n"
            ),
        ),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n{}"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\n 2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n"),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"GET nonsense HTTP/1.1\r\nHost: a\r\n\r\n"),
    ],
)
async def test_requests_that_two_readers_could_read_differently_are_refused(
    stage: Stage, status: int, head: bytes
) -> None:
    """Never forwarded: smuggling needs a proxy that passes these on."""
    rest = stage._scenes[0]
    rest.script = answering(OK)
    before = len(rest.upstream.lines)
    answer = await exchange(rest.port, head, timeout_s=8)
    assert answer.status == status
    assert b"\r\nX-Refusal-Proxy-Error: " in answer.head
    assert answer.body.startswith(b'{"type": "error"')
    assert len(rest.upstream.lines) == before


async def test_a_large_header_passes_and_a_larger_head_is_refused(scene: SetScene) -> None:
    """`limits.head_bytes` bounds the whole head, in one line, in many, in one piece and in several."""
    at = scene(answering(OK))
    answer = await exchange(at.port, get(at.path("/x"), b"X-Big: " + b"b" * (60 << 10)))
    assert answer.status == 200
    assert b"X-Big: " + b"b" * (60 << 10) + b"\r\n" in at.upstream.lines[0].heads[0]
    line = get(at.path("/x"), b"X-Big: " + b"b" * (70 << 10))
    many = get(at.path("/x"), *(b"X-%d: " % n + b"b" * 1000 for n in range(90)))
    endless = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * (600 << 10)
    for raw in (line, many, endless):
        answer = await exchange(at.port, raw)
        assert answer.status == 431
        assert b"X-Refusal-Proxy-Error: head_too_large" in answer.head
        pieces = [raw[i : i + 9000] for i in range(0, len(raw), 9000)]
        answer = await exchange(at.port, *pieces)
        assert answer.status == 431
    assert len(at.upstream.lines) == 1
