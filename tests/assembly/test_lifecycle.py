"""Processes that die, hang, drain and reload: traffic goes on, and the gap is counted."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import orjson

from tests.conftest import Serve, ServeScript
from tests.harness.raw import exchange, post, read_response
from tests.harness.served import Served
from tests.harness.upstreams import Line, answering, json_answer

CHAT = "/v1/chat/completions"
REQUEST = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
ANSWER = json_answer(
    orjson.dumps(
        {
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": None, "refusal": "I can't help with that."},
                    "finish_reason": "stop",
                }
            ],
        }
    )
)
REFUSED = {"outcome": "full_refusal"}


async def paced(line: Line) -> None:
    """Stream a piece each time the test lets go: `line.next` is set by the test."""
    await line.request()
    await line.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for number in range(40):
        await line.send(b"5\r\np%03d\n\r\n" % number)
        await asyncio.sleep(0.05)
    await line.send(b"0\r\n\r\n")


def whole_stream(raw: bytes) -> bool:
    return raw.endswith(b"p039\n\r\n0\r\n\r\n")


async def open_stream(proxy: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A streaming exchange whose first piece has arrived."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.data_port)
    writer.write(post(CHAT, REQUEST, close=False))
    assert b" 200 " in await reader.readline()
    await reader.readuntil(b"p000\n")
    return reader, writer


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        piece = await asyncio.wait_for(reader.read(65_536), 20)
        if not piece:
            break
        received += piece
    return received


async def test_a_monitor_killed_during_streams_is_noticed_by_no_client_and_is_back_within_seconds(
    serve: Serve, upstream: ServeScript
) -> None:
    slow = await upstream(paced)
    proxy = await serve(upstream=slow.url)
    streams = [await open_stream(proxy) for _ in range(5)]
    (first,) = proxy.children("monitor")
    os.kill(first, signal.SIGKILL)
    bodies = await asyncio.gather(*(rest_of(reader) for reader, _ in streams))
    assert all(whole_stream(body) for body in bodies)
    await proxy.until(
        lambda: bool(proxy.children("monitor")) and proxy.children("monitor") != [first], "a new one"
    )
    await proxy.until(lambda: proxy.get("/healthz")[0] == 200, "the admin port answers again", 10)
    # The five captures, finished after the kill, waited in the worker for the new monitor.
    await proxy.until_value("refusal_unscored_total", {"route": "default"}, 5)
    assert await proxy.until_value("refusal_proxy_requests_total", {"code": "200"}, 5) == 5
    for _, writer in streams:
        writer.close()


async def test_captures_that_died_with_the_monitor_are_counted_as_lost(
    serve: Serve, upstream: ServeScript
) -> None:
    """Whatever is sent is scored, unscored, or dropped: after a kill the three still add up."""
    up = await upstream(answering(ANSWER))
    proxy = await serve(upstream=up.url)
    (monitor,) = proxy.children("monitor")
    os.kill(monitor, signal.SIGSTOP)  # so that captures are on their way and unrecorded
    sent, end = 0, asyncio.get_running_loop().time() + 0.5  # many times what the valve waits for a batch
    while asyncio.get_running_loop().time() < end:
        assert (await exchange(proxy.data_port, post(CHAT, REQUEST))).status == 200
        sent += 1
    os.kill(monitor, signal.SIGKILL)
    await proxy.until_value("refusal_captures_dropped_total", {"cause": "monitor_lost"}, 1)
    for _ in range(5):
        assert (await exchange(proxy.data_port, post(CHAT, REQUEST))).status == 200
    await proxy.until(
        lambda: (
            proxy.value("refusal_exchanges_total", REFUSED) + proxy.value("refusal_captures_dropped_total")
            == sent + 5
        ),
        "all accounted for",
    )


async def test_a_hung_monitor_holds_nobody_up_and_is_replaced(serve: Serve, upstream: ServeScript) -> None:
    up = await upstream(answering(ANSWER))
    config = (
        f'upstream = "{up.url}"\n[timeouts]\nhung_s = 2.0\n[limits]\nvalve_bytes = 1048576\n'
        "[classifier]\nenabled = false\n"
    )
    proxy = await serve(config=config)
    (hung,) = proxy.children("monitor")
    os.kill(hung, signal.SIGSTOP)
    big = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 200_000}]})
    for _ in range(20):  # four times what the valve holds
        answer = await asyncio.wait_for(exchange(proxy.data_port, post(CHAT, big)), 5)
        assert answer.status == 200
    await proxy.logged("child is hung, killing it", 15)
    await proxy.until(lambda: proxy.children("monitor") not in ([], [hung]), "a new monitor")
    await proxy.until_value("refusal_captures_dropped_total", {"cause": "valve_full"}, 1)
    await proxy.until(
        lambda: (
            proxy.value("refusal_exchanges_total", REFUSED) + proxy.value("refusal_captures_dropped_total")
            == 20
        ),
        "all 20 accounted for",
    )


async def test_a_dead_worker_is_replaced_and_its_queue_of_connections_survives(
    serve: Serve, upstream: ServeScript
) -> None:
    up = await upstream(answering(ANSWER))
    proxy = await serve(upstream=up.url)
    (worker,) = proxy.children("worker")
    os.kill(worker, signal.SIGSTOP)  # connections queue up in the listening socket …
    waiting = [asyncio.create_task(exchange(proxy.data_port, post(CHAT, REQUEST))) for _ in range(5)]
    await asyncio.sleep(0.2)
    os.kill(worker, signal.SIGKILL)  # … and its successor takes them
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert [answer.status for answer in answers] == [200] * 5
    await proxy.until_value("refusal_exchanges_total", REFUSED, 5)


async def test_sigterm_lets_open_streams_finish_refuses_new_ones_and_exits_0(
    serve: Serve, upstream: ServeScript
) -> None:
    slow = await upstream(paced)
    proxy = await serve(upstream=slow.url)
    streams = [await open_stream(proxy) for _ in range(3)]
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", proxy.data_port)
    stopping = asyncio.create_task(proxy.stop())
    assert await asyncio.wait_for(idle_reader.read(), 5) == b""  # an idle connection is closed at once
    bodies = await asyncio.gather(*(rest_of(reader) for reader, _ in streams))
    assert all(whole_stream(body) for body in bodies)
    assert await stopping == 0
    assert proxy.children_are_gone()
    idle_writer.close()
    for _, writer in streams:
        writer.close()


async def test_draining_is_bounded_and_what_outlasts_it_breaks_off(
    serve: Serve, upstream: ServeScript
) -> None:
    async def endless(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\np000\n\r\n")
        await line.gone()

    up = await upstream(endless)
    config = f'upstream = "{up.url}"\n[timeouts]\ndrain_s = 0.5\n[classifier]\nenabled = false\n'
    proxy = await serve(config=config)
    reader, writer = await open_stream(proxy)
    assert await asyncio.wait_for(proxy.stop(), 10) == 0
    assert not (await rest_of(reader)).endswith(b"0\r\n\r\n")
    writer.close()


async def test_captures_of_the_last_moment_are_scored_before_the_exit(
    serve: Serve, upstream: ServeScript
) -> None:
    up = await upstream(answering(ANSWER))
    config = f'upstream = "{up.url}"\n[log]\nexchanges = true\n[classifier]\nenabled = false\n'
    proxy = await serve(config=config)
    for _ in range(10):
        await exchange(proxy.data_port, post(CHAT, REQUEST))
    assert await proxy.stop() == 0
    assert sum(event["event"] == "exchange" for event in proxy.events()) == 10


async def test_sighup_changes_routes_without_dropping_a_stream(serve: Serve, upstream: ServeScript) -> None:
    old = await upstream(paced)
    new = await upstream(answering(ANSWER))
    proxy = await serve(config=_route("before", old.url))
    reader, writer = await open_stream(proxy)
    proxy.config_path.write_text(_route("after", new.url))
    proxy.process.send_signal(signal.SIGHUP)
    await proxy.logged("configuration reloaded")
    await proxy.until(
        lambda: proxy.get("/readyz")[1]["checks"][0]["name"] == "upstream after", "the monitor has it, too"
    )
    answer = await exchange(proxy.data_port, post(CHAT, REQUEST))
    assert b"I can't help" in answer.body
    assert whole_stream(await rest_of(reader))
    await proxy.until_value("refusal_proxy_requests_total", {"route": "before"})
    await proxy.until_value("refusal_exchanges_total", {"route": "after"})
    writer.close()


async def test_sighup_changes_limits_and_topics(serve: Serve, upstream: ServeScript) -> None:
    up = await upstream(answering(ANSWER))
    proxy = await serve(config=_route("r", up.url))
    wide = post(CHAT, REQUEST, "X-Wide: " + "x" * 3000)
    assert (await exchange(proxy.data_port, wide)).status == 200
    narrow = "[limits]\nhead_bytes = 2048\nrequest_copy_bytes = 10\n"
    proxy.config_path.write_text(_route("r", up.url) + narrow)
    proxy.process.send_signal(signal.SIGHUP)
    await proxy.logged("configuration reloaded")
    async with asyncio.timeout(10):
        while (await exchange(proxy.data_port, wide)).status != 431:
            await asyncio.sleep(0.05)
    assert (await exchange(proxy.data_port, post(CHAT, REQUEST))).status == 200
    await proxy.until_value("refusal_unscored_total", {"cause": "truncated"})


async def test_larger_copies_and_long_heads_cost_no_capture_after_a_sighup(
    serve: Serve, upstream: ServeScript
) -> None:
    """Neither on the connection that was open then nor on one opened since."""
    up = await upstream(answering(ANSWER))
    proxy = await serve(config=_route("r", up.url))
    changed = "[limits]\nrequest_copy_bytes = 2000000\nhead_bytes = 58000\n"
    proxy.config_path.write_text(_route("r", up.url) + changed)
    proxy.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(10):  # until the worker has it
        while (await exchange(proxy.data_port, post("/x", b"", "X-Wide: " + "x" * 60_000))).status != 431:
            await asyncio.sleep(0.05)
    big = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 1_900_000}]})
    path = "/" + '"' * 50_000 + CHAT
    (worker,) = proxy.children("worker")
    for count in (1, 2):
        assert (await exchange(proxy.data_port, post(path, big))).status == 200
        await proxy.until_value("refusal_exchanges_total", REFUSED, count)
        if count == 1:
            os.kill(worker, signal.SIGKILL)
    assert proxy.value("refusal_captures_dropped_total") == 0
    assert not any(event["event"] == "a worker sent a bad frame" for event in proxy.events())


async def test_a_broken_configuration_is_not_taken_on_sighup(serve: Serve, upstream: ServeScript) -> None:
    up = await upstream(answering(ANSWER))
    proxy = await serve(config=_route("kept", up.url))
    proxy.config_path.write_text("wrokers = 1\n" + _route("kept", up.url))
    proxy.process.send_signal(signal.SIGHUP)
    line = await proxy.logged("configuration not reloaded, the old one stays")
    assert "wrokers: unknown key" in line["reason"]
    assert (await exchange(proxy.data_port, post(CHAT, REQUEST))).status == 200


async def test_a_missing_model_leaves_traffic_and_native_signals_alone(
    serve: Serve, upstream: ServeScript, tmp_path: Path
) -> None:
    up = await upstream(answering(ANSWER))
    proxy = await serve(config=f'upstream = "{up.url}"\n[classifier]\nbundle = "{tmp_path}/nowhere"\n')
    line = await proxy.logged("classifier not loaded")
    assert "nowhere" in line["error"]
    assert (await exchange(proxy.data_port, post(CHAT, REQUEST))).status == 200
    await proxy.until_value("refusal_exchanges_total", REFUSED)
    assert proxy.value("refusal_classifier_up") == 0
    status, ready = proxy.get("/readyz")
    assert status == 503
    assert {"name": "classifier", "ok": False, "detail": "unavailable"} in ready["checks"]


async def test_several_workers_share_one_port(serve: Serve, upstream: ServeScript) -> None:
    up = await upstream(answering(ANSWER))
    proxy = await serve(upstream=up.url, arguments=("--workers", "2"))
    assert len(proxy.children("worker")) == 2
    answers = await asyncio.gather(*(exchange(proxy.data_port, post(CHAT, REQUEST)) for _ in range(40)))
    assert {answer.status for answer in answers} == {200}
    await proxy.until_value("refusal_exchanges_total", REFUSED, 40)
    await proxy.until_value("refusal_proxy_requests_total", {"code": "200"}, 40)


async def test_keep_alive_connections_close_politely_while_draining(
    serve: Serve, upstream: ServeScript
) -> None:
    """An answer that comes during the drain says `Connection: close`: no client reuses a dying line."""
    release = asyncio.Event()

    async def held(line: Line) -> None:
        await line.request()
        await release.wait()
        await line.send(ANSWER)

    up = await upstream(held)
    proxy = await serve(upstream=up.url)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.data_port)
    writer.write(post(CHAT, REQUEST, close=False))
    await proxy.until(lambda: bool(up.lines and up.lines[0].heads), "the request is up")
    stopping = asyncio.create_task(proxy.stop())
    await proxy.logged("draining")
    await asyncio.sleep(0.3)  # the order to stop crosses a pipe; the answer must come after it
    release.set()
    answer = await asyncio.wait_for(read_response(reader), 5)
    assert b"\r\nConnection: close\r\n" in answer
    assert await stopping == 0
    writer.close()


def _route(name: str, url: str) -> str:
    return f'[[routes]]\nname = "{name}"\nupstream = "{url}"\n[classifier]\nenabled = false\n'
