"""Routes and the way to their upstreams: matching, base paths, names, certificates, time-outs."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.raw import Answer, exchange
from tests.harness.served import Served
from tests.harness.upstreams import Line, Upstream, answering, json_answer, scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = json_answer(b"{}")
NO_NAME = "a" * 64 + ".example"  # a label too long for DNS: refused without asking any server
CONFIG = """
[timeouts]
connect_s = 0.6
[[routes]]
name = "by-host"
host = "api.Example"
upstream = "{one}/base/"
[[routes]]
name = "deep"
path_prefix = "/a/b"
upstream = "{one}"
[[routes]]
name = "shallow"
path_prefix = "/a"
strip_prefix = true
upstream = "{one}/v1"
[[routes]]
name = "never"
path_prefix = "/a/b/c"
upstream = "{one}/never"
[[routes]]
name = "trusted"
path_prefix = "/trusted"
upstream = "https://localhost:{tls}"
ca_file = "{ca}"
[[routes]]
name = "untrusted"
path_prefix = "/untrusted"
upstream = "https://localhost:{tls}"
[[routes]]
name = "wrong-name"
path_prefix = "/wrong-name"
upstream = "https://127.0.0.1:{tls}"
ca_file = "{ca}"
[[routes]]
name = "no-ca"
path_prefix = "/no-ca"
upstream = "https://localhost:{tls}"
ca_file = "{no_ca}"
[[routes]]
name = "not-tls"
path_prefix = "/not-tls"
upstream = "https://localhost:{plain}"
[[routes]]
name = "silent"
path_prefix = "/silent"
upstream = "https://127.0.0.1:{silent}"
[[routes]]
name = "dns"
path_prefix = "/dns"
upstream = "http://{no_name}"
"""


@dataclass
class World:
    proxy: Served
    one: Upstream
    tls: Upstream
    silent: Upstream

    async def get(self, path: str, host: str = "other", method: str = "GET", extra: str = "") -> Answer:
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}Connection: close\r\n\r\n"
        return await exchange(self.proxy.data_port, request.encode())

    def targets(self) -> list[bytes]:
        """What the plain upstream was asked, newest last."""
        return [head.split(b" ")[1] for line in self.one.lines for head in line.heads]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("dialling")
    certificate, key = folder / "ca.pem", folder / "ca.key"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    )
    subprocess.run(  # noqa: ASYNC221 - nothing else runs yet
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    no_ca = folder / "no-ca.pem"
    no_ca.write_text("not a certificate")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)

    async def mute(line: Line) -> None:
        await line.gone()

    async def chatty(line: Line) -> None:
        await line.send(b"220 mail.example ESMTP\r\n")
        await line.gone()

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(scripted(answering(OK)))
        tls = await stack.enter_async_context(scripted(answering(OK), tls=server))
        silent = await stack.enter_async_context(scripted(mute))
        plain = await stack.enter_async_context(scripted(chatty))
        config = CONFIG.format(
            one=one.url,
            tls=tls.port,
            plain=plain.port,
            silent=silent.port,
            ca=certificate,
            no_ca=no_ca,
            no_name=NO_NAME,
        )
        proxy = await stack.enter_async_context(Served(Path(folder), config=config))
        yield World(proxy, one, tls, silent)


@pytest.mark.parametrize(
    ("path", "host", "target"),
    [
        ("/x?y=1", "api.example", b"/base/x?y=1"),
        ("/a/b", "API.EXAMPLE:8080", b"/base/a/b"),
        ("/", "api.example", b"/base/"),
        ("/a/b", "other", b"/a/b"),
        ("/a/b/c?d", "other", b"/a/b/c?d"),
        ("/a", "other", b"/v1/"),
        ("/a/", "other", b"/v1/"),
        ("/a?q=/a/b", "other", b"/v1/?q=/a/b"),
        ("/a/bc/", "other", b"/v1/bc/"),
        ("/a//b", "other", b"/v1//b"),
        ("/a/%2Fb", "other", b"/v1/%2Fb"),
    ],
)
async def test_the_first_route_that_matches_takes_the_request(
    world: World, path: str, host: str, target: bytes
) -> None:
    assert (await world.get(path, host)).status == 200
    assert target in world.targets()
    assert not any(asked.startswith(b"/never") for asked in world.targets())


async def test_no_route_is_a_404_of_the_proxy_s_own(world: World) -> None:
    """Also for HEAD, which gets no body."""
    for path, host in (("/b", "other"), ("/ab", "other"), ("/A", "other"), ("/b", "api.example.org")):
        answer = await world.get(path, host)
        assert answer.status == 404
        assert b"\r\nX-Refusal-Proxy-Error: no_route\r\n" in answer.head
        assert answer.body.startswith(b'{"type": "error"')
    answer = await world.get("/b", method="HEAD")
    assert answer.status == 404
    assert answer.body == b""
    labels = {"route": "none", "code": "404"}
    assert await world.proxy.until_value("refusal_proxy_requests_total", labels, 5) == 5


async def test_tls_works_with_the_authority_that_the_route_trusts(world: World) -> None:
    for _ in range(2):
        assert (await world.get("/trusted/x")).body == b"{}"
    assert sum(len(line.heads) for line in world.tls.lines) == 2


@pytest.mark.parametrize("route", ["untrusted", "wrong-name", "no-ca", "not-tls"])
async def test_what_tls_does_not_trust_is_a_502(world: World, route: str) -> None:
    asked = sum(len(line.heads) for line in world.tls.lines)
    answer = await world.get(f"/{route}/x")
    assert answer.status == 502
    assert b"\r\nX-Refusal-Proxy-Error: tls\r\n" in answer.head
    labels = {"route": route, "cause": "tls"}
    assert await world.proxy.until_value("refusal_proxy_upstream_errors_total", labels) == 1
    assert sum(len(line.heads) for line in world.tls.lines) == asked


async def test_a_name_that_does_not_resolve_is_a_502(world: World) -> None:
    answer = await world.get("/dns/x")
    assert answer.status == 502
    assert b"\r\nX-Refusal-Proxy-Error: dns\r\n" in answer.head
    assert NO_NAME.encode() not in answer.raw


async def test_an_upstream_that_does_not_complete_the_connection_in_time_is_a_504(world: World) -> None:
    """The time-out spans the TLS handshake; the half-made connection is closed."""
    answer = await world.get("/silent/x", method="POST", extra="Content-Length: 0\r\n")
    assert answer.status == 504
    assert b"\r\nX-Refusal-Proxy-Error: connect_timeout\r\n" in answer.head
    await asyncio.wait_for(world.silent.lines[0].closed.wait(), 5)
    labels = {"route": "silent", "cause": "connect_timeout"}
    assert await world.proxy.until_value("refusal_proxy_upstream_errors_total", labels) == 1


async def test_a_client_that_leaves_while_we_dial_ends_the_dialling(world: World) -> None:
    before = len(world.silent.lines)
    _, writer = await asyncio.open_connection("127.0.0.1", world.proxy.data_port)
    writer.write(b"GET /silent/x HTTP/1.1\r\nHost: a\r\n\r\n")
    while len(world.silent.lines) == before:
        await asyncio.sleep(0.01)
    writer.close()
    await asyncio.wait_for(world.silent.lines[-1].closed.wait(), 5)
    await world.proxy.until_value("refusal_proxy_client_disconnects_total", {"route": "silent"})
    assert world.proxy.value("refusal_proxy_requests_total", {"route": "silent", "code": "499"}) == 1
