"""What an exchange leaves behind: one capture, without credentials, however it ended; and nothing else."""

from __future__ import annotations

import asyncio
import gc

import pytest

from proxy.flows.relay import Relay
from proxy.pure.frames import capture_frame
from proxy.resources.upstream import Connection
from proxy.words.exchange import Capture
from tests.harness.inline import inline, plan
from tests.harness.raw import exchange, post, read_response
from tests.harness.upstreams import Line, Script, answering, json_answer, scripted

CHAT = "/v1/chat/completions"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_capture_holds_the_bodies_without_their_framing() -> None:
    raw = STREAM.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    async with scripted(answering(raw + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")) as up, inline(up.url) as at:
        head = f"POST {CHAT}?key=1 HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\n"
        chunked = b"Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n1\r\n!\r\n0\r\n\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(head.encode() + chunked)
        capture = await at.capture()
        writer.close()
        assert (capture.route, capture.format, capture.path) == ("default", "openai_chat", CHAT)
        assert (capture.status, capture.end) == (200, "complete")
        assert (capture.request.head, capture.request.total) == (b"xyz!", 4)
        assert (capture.response.head, capture.response.total) == (b"abc", 3)
        assert capture.response_content_type == "text/event-stream"
        assert (capture.request_content_encoding, capture.response_content_encoding) == ("br", "gzip")
        assert capture.first_byte_s is not None
        assert 0 <= capture.first_byte_s <= capture.duration_s
        assert at.left == (0, 0)


async def test_bodies_over_the_limit_keep_their_head_and_tail() -> None:
    body = bytes(range(256)) * 40
    async with (
        scripted(answering(json_answer(body))) as up,
        inline(up.url, request_copy_bytes=10, response_copy_bytes=100) as at,
    ):
        await exchange(at.port, post(CHAT, body))
        capture = await at.capture()
        assert (capture.request.head, capture.request.tail) == (body[:5], body[-5:])
        assert (capture.response.head, capture.response.tail) == (body[:50], body[-50:])
        assert capture.request.total == capture.response.total == len(body)
        assert at.left == (0, 0)


async def half(line: Line) -> None:
    await line.request()
    await line.send(STREAM + b"5\r\nhello\r\n")
    await line.gone()


async def broken(line: Line) -> None:
    await line.request()
    await line.send(STREAM + b"5\r\nhello\r\n")


async def mute(line: Line) -> None:
    await line.request()
    await line.gone()


@pytest.mark.parametrize(
    ("script", "leaves", "end", "status", "body"),
    [
        (answering(STREAM + b"5\r\nhello\r\n0\r\n\r\n"), False, "complete", 200, b"hello"),
        (half, True, "client_gone", 200, b"hello"),
        (mute, True, "client_gone", 499, b""),
        (broken, False, "upstream_broke", 200, b"hello"),
        (half, False, "upstream_silent", 200, b"hello"),
        (mute, False, "upstream_silent", 504, b""),
    ],
)
async def test_a_capture_says_how_the_exchange_ended(
    script: Script, leaves: bool, end: str, status: int, body: bytes
) -> None:
    silence = 0.2 if end == "upstream_silent" else 60.0
    async with scripted(script) as up, inline(up.url, silence_s=silence) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(post(CHAT, b"{}"))
        if body:
            await reader.readuntil(b"hello")
        else:
            await at.until(lambda: up.lines and up.lines[0].bodies)
        if leaves:
            writer.close()
        if end == "upstream_silent":
            await asyncio.sleep(0.3)
            at.forwarder.sweep()
        capture = await at.capture()
        writer.close()
        assert (capture.end, capture.status, capture.response.head) == (end, status, body)
        assert at.tally.disconnects == ({"default": 1} if leaves else {})
        await at.until(lambda: at.left == (0, 0))
        assert len(at.outbox.captures) == 1


SECRETS = [f"s3cr3t-{name}" for name in ("bearer", "x-api-key", "api-key", "cookie", "set-cookie", "query")]


async def test_no_credential_leaves_the_worker() -> None:
    answer = json_answer(b"{}", b"Set-Cookie: session=s3cr3t-set-cookie\r\n")
    async with scripted(answering(answer)) as up, inline(up.url) as at:
        got = await exchange(
            at.port,
            post(
                "/v1beta/models/gemini-pro:generateContent?key=s3cr3t-query&alt=sse",
                b"{}",
                "Authorization: Bearer s3cr3t-bearer",
                "x-api-key: s3cr3t-x-api-key",
                "api-key: s3cr3t-api-key",
                "Cookie: session=s3cr3t-cookie",
            ),
        )
        capture = await at.capture()
        frame = capture_frame(capture)
        sent = up.lines[0].heads[0] + got.raw
    assert capture.format == "gemini"
    for secret in SECRETS:
        assert secret.encode() in sent
        assert secret.encode() not in frame


async def test_an_outbox_that_fails_disturbs_no_traffic() -> None:
    def refuse(capture: Capture) -> None:
        raise KeyError(capture.id)

    async with scripted(answering(json_answer(b"{}"))) as up, inline(up.url) as at:
        at.outbox.before = refuse
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        for _ in range(2):
            writer.write(post(CHAT, b"{}", close=False))
            assert (await read_response(reader)).endswith(b"{}")
        writer.close()
        assert [type(fault) for fault in at.faults] == [KeyError, KeyError]
        assert at.tally.unscored == {("default", "error"): 2}
        assert at.left == (0, 0)


@pytest.mark.parametrize("where", ["_send", "_dial"])
async def test_a_fault_of_ours_is_answered_counted_and_reported(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with scripted(answering(json_answer(b"{}"))) as up, inline(up.url) as at:
        monkeypatch.setattr(at.forwarder, where, fail)
        answer = await exchange(at.port, post(CHAT, b"{}"))
        assert answer.status == 500
        assert b"\r\nX-Refusal-Proxy-Error: internal\r\n" in answer.head
        assert b"a bug" not in answer.raw
        assert [str(fault) for fault in at.faults] == ["a bug"]
        assert at.tally.requests == {("default", "POST", 500): 1}
        assert at.tally.unscored == {("default", "error"): 1}
        assert at.left == (0, 0)
        monkeypatch.undo()
        assert (await exchange(at.port, post(CHAT, b"{}"))).status == 200


async def test_a_fault_in_mid_stream_breaks_the_transfer_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(STREAM + b"5\r\nhello\r\n")
        await go.wait()
        await line.send(b"5\r\nhello\r\n0\r\n\r\n")
        await line.gone()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    go = asyncio.Event()
    async with scripted(script) as up, inline(up.url) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(post(CHAT, b"{}"))
        await reader.readuntil(b"hello\r\n")
        monkeypatch.setattr(Relay, "received", fail)
        go.set()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await asyncio.wait_for(up.lines[0].closed.wait(), 5)
        assert [str(fault) for fault in at.faults] == ["a bug"]
        await at.until(lambda: at.left == (0, 0))


async def test_copies_that_are_given_up_leave_their_budget() -> None:
    """One body fits, the other does not: both are let go, the drop is counted, traffic goes on."""
    big = b"x" * (300 << 10)
    async with (
        scripted(answering(json_answer(big))) as up,
        inline(up.url, copies_bytes=1 << 10, response_copy_bytes=1 << 20) as at,
    ):
        for _ in range(3):
            answer = await exchange(at.port, post(CHAT, b"y" * 1000))
            assert answer.body == big
        assert at.tally.dropped == {"copies_full": 3}
        assert at.left == (0, 0)


async def test_an_answer_in_mid_upload_leaves_no_copy_behind() -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(json_answer(b"early"))
        await line.gone()

    async with scripted(script) as up, inline(up.url) as at:
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
            writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: {8 << 20}\r\n\r\n".encode())
            writer.write(b"x" * (2 << 20))
            assert (await asyncio.wait_for(read_response(reader), 5)).endswith(b"early")
            writer.write(b"x" * (1 << 20))
            await asyncio.sleep(0)
            writer.close()
        await at.until(lambda: at.left == (0, 0))
        assert not at.faults


async def test_a_new_plan_reaches_kept_pools_and_closes_the_ones_that_went() -> None:
    async with scripted(answering(json_answer(b"{}"))) as up, inline(up.url) as at:
        assert (await exchange(at.port, post(CHAT, b"{}"))).status == 200
        at.forwarder.apply(plan(up.url, upstream_keepalive_s=0.001))
        await asyncio.sleep(0.01)
        at.forwarder.sweep()
        await asyncio.wait_for(up.lines[0].closed.wait(), 5)
        at.forwarder.apply(plan(up.url))
        assert (await exchange(at.port, post(CHAT, b"{}"))).status == 200
        at.forwarder.apply(plan(up.url + "/elsewhere"))
        await asyncio.wait_for(up.lines[1].closed.wait(), 5)
        assert (await exchange(at.port, post(CHAT, b"{}"))).status == 200
        assert up.lines[2].heads[0].startswith(b"POST /elsewhere/v1/")


async def test_no_relay_and_no_connection_waits_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with scripted(broken) as up, inline(up.url) as at:
            for _ in range(20):
                await exchange(at.port, post(CHAT, b"{}"))
            await at.until(lambda: at.left == (0, 0))
            await asyncio.sleep(0.05)
            kept = [type(one).__name__ for one in gc.get_objects() if isinstance(one, (Relay, Connection))]
            assert len(kept) <= 2, kept
    finally:
        gc.enable()


async def test_draining_lets_open_streams_finish_and_breaks_off_those_that_do_not() -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(STREAM + b"5\r\nhello\r\n")
        await go.wait()
        await line.send(b"0\r\n\r\n")

    go = asyncio.Event()
    async with scripted(script) as up, inline(up.url) as at:
        for finishes in (True, False):
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
            writer.write(post(CHAT, b"{}"))
            await reader.readuntil(b"hello\r\n")
            at.forwarder.draining = True
            if finishes:
                go.set()
            await at.forwarder.drained(5 if finishes else 0.1)
            rest = await asyncio.wait_for(reader.read(), 5)
            assert rest == (b"0\r\n\r\n" if finishes else b"")
            await at.until(lambda: at.left == (0, 0))
            writer.close()
            go.clear()
            at.forwarder.draining = False
            at.forwarder._drained.clear()
