"""The admin port: read-only, negotiated, and never stuck."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from proxy.assembly.admin import getaddrinfo, make_admin, wants_openmetrics
from tests.flows.captures import House, capture

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


class Resolver:
    """Name look-ups as the test wants them."""

    def __init__(self, *unknown: str) -> None:
        self.unknown = set(unknown)
        self.asked: list[tuple[str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host: str, port: int) -> object:
        self.asked.append((host, port))
        await self.gate.wait()
        if host in self.unknown:
            raise OSError(-2, "Name or service not known")
        return []


@asynccontextmanager
async def admin(
    house: House,
    *,
    state: str = "ready",
    workers: int = 1,
    resolve: Any = None,
    clock: Callable[[], float] = lambda: 100.0,
    resolve_timeout_s: float = 5.0,
) -> AsyncIterator[TestClient[Any, Any]]:
    app = make_admin(
        metrics=house.metrics,
        classifier_state=lambda: state,
        routes=lambda: house.config.all_routes,
        workers=lambda: workers,
        version="1.2.3",
        resolve=resolve or Resolver(),
        clock=clock,
        resolve_timeout_s=resolve_timeout_s,
    )
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_prometheus_gets_openmetrics_with_exemplars() -> None:
    house = House()
    await house.score(capture("I can't.", id="sample-7"))
    async with admin(house) as client:
        response = await client.get("/metrics", headers={"Accept": PROMETHEUS})
        body = await response.text()
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert 'sample_id="sample-7"' in body
    assert any(family.name == "refusal_refusals" for family in openmetrics(body))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("accept", ["", "text/plain", "*/*", "text/html,*/*;q=0.8"])
async def test_everyone_else_gets_the_text_format(accept: str) -> None:
    async with admin(House()) as client:
        response = await client.get("/metrics", headers={"Accept": accept})
        body = await response.text()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert any(family.name == "refusal_unscored" for family in text(body))


@pytest.mark.parametrize(
    ("accepts", "wanted"),
    [
        ([PROMETHEUS], True),
        (["application/openmetrics-text"], True),
        (["application/openmetrics-text; version=banana"], True),
        (["text/plain", "application/openmetrics-text"], True),
        (["application/openmetrics-text;q=0.1, text/plain"], False),
        (["application/openmetrics-text;q=0"], False),
        (["application/openmetrics-text;q=banana"], False),
        ([";;;q=,,"], False),
        ([], False),
    ],
)
def test_the_format_follows_the_accept_header(accepts: list[str], wanted: bool) -> None:
    assert wants_openmetrics(accepts) is wanted


async def test_metrics_are_gzipped_for_those_who_take_it() -> None:
    async with admin(House()) as client:
        headers = {"Accept-Encoding": "gzip"}
        response = await client.get("/metrics", headers=headers, auto_decompress=False)
        body = await response.read()
        plain = await client.get("/metrics", headers={"Accept-Encoding": "identity"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"refusal_unscored_total" in gzip.decompress(body)
    assert "Content-Encoding" not in plain.headers


async def test_healthz_is_alive_whatever_else_is_not() -> None:
    async with admin(House(), state="unavailable", workers=0) as client:
        response = await client.get("/healthz")
        assert (response.status, await response.json()) == (200, {"status": "alive"})


async def test_readyz_lists_its_checks() -> None:
    async with admin(House()) as client:
        response = await client.get("/readyz")
        answer = await response.json()
    assert (response.status, answer["status"]) == (200, "ready")
    assert answer["checks"] == [
        {"name": "upstream default", "ok": True, "detail": "resolves"},
        {"name": "classifier", "ok": True, "detail": "ready"},
        {"name": "workers", "ok": True, "detail": "1 connected"},
    ]


@pytest.mark.parametrize(
    ("state", "workers", "status"),
    [("ready", 2, 200), ("off", 1, 200), ("loading", 1, 503), ("unavailable", 1, 503), ("ready", 0, 503)],
)
async def test_readyz_needs_a_classifier_or_none_on_purpose_and_a_worker(
    state: str, workers: int, status: int
) -> None:
    async with admin(House(), state=state, workers=workers) as client:
        assert (await client.get("/readyz")).status == status


async def test_readyz_names_the_upstream_that_does_not_resolve() -> None:
    routes = [
        {"name": "good", "upstream": "https://good.example", "path_prefix": "/good"},
        {"name": "bad", "upstream": "http://bad.example:8000/v1", "path_prefix": "/bad"},
    ]
    resolver = Resolver("bad.example")
    async with admin(House(upstream="", routes=routes), resolve=resolver) as client:
        response = await client.get("/readyz")
        good, bad = (await response.json())["checks"][:2]
    assert response.status == 503
    assert good["ok"]
    assert bad == {
        "name": "upstream bad",
        "ok": False,
        "detail": "cannot resolve: Name or service not known",
    }
    assert sorted(resolver.asked) == [("bad.example", 8000), ("good.example", 443)]


async def test_a_look_up_is_kept_for_ten_seconds() -> None:
    now, resolver = [100.0], Resolver()
    async with admin(House(), resolve=resolver, clock=lambda: now[0]) as client:
        for _ in range(3):
            await client.get("/readyz")
        assert len(resolver.asked) == 1
        now[0] += 11
        await client.get("/readyz")
        assert len(resolver.asked) == 2


async def test_a_hanging_name_server_is_asked_once_and_waited_for_briefly() -> None:
    resolver = Resolver()
    resolver.gate.clear()
    async with admin(House(), resolve=resolver, resolve_timeout_s=0.02) as client:
        responses = await asyncio.gather(*(client.get("/readyz") for _ in range(5)))
        assert {response.status for response in responses} == {503}
        assert "no answer from the name server" in await responses[0].text()
        assert len(resolver.asked) == 1
        resolver.gate.set()
        await asyncio.sleep(0)
        assert (await client.get("/readyz")).status == 200


async def test_an_upstream_that_is_no_host_name_is_not_ready() -> None:
    async def encode(host: str, port: int) -> object:
        raise UnicodeError("label too long")

    async with admin(House(), resolve=encode) as client:
        assert "not a host name" in await (await client.get("/readyz")).text()


async def test_the_real_resolver_knows_a_numeric_address() -> None:
    async with admin(House(), resolve=getaddrinfo) as client:
        assert (await client.get("/readyz")).status == 200


async def test_the_page_names_version_links_and_totals_and_needs_nothing_from_elsewhere() -> None:
    house = House()
    await house.score(capture("I can't."), capture())
    async with admin(house) as client:
        response = await client.get("/")
        body = await response.text()
    assert response.content_type == "text/html"
    assert "1.2.3" in body
    for link in ("/metrics", "/healthz", "/readyz"):
        assert f"href={link}" in body
    assert "<td>refusals</td><td>1</td>" in body
    assert "<td>exchanges</td><td>2</td>" in body
    assert "http" not in body
    assert "<script" not in body


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/"])
async def test_only_reading_is_allowed(path: str) -> None:
    async with admin(House()) as client:
        assert (await client.head(path)).status == 200
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await client.request(method, path)).status == 405


@pytest.mark.parametrize("path", ["/nope", "/metrics/x", "/%2e%2e/etc/passwd", "/v1/chat/completions"])
async def test_unknown_paths_are_not_found(path: str) -> None:
    async with admin(House()) as client:
        assert (await client.get(path)).status == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/", "/nope"])
async def test_every_answer_has_the_security_headers(path: str) -> None:
    async with admin(House()) as client:
        headers = (await client.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Server"] == "refusal-proxy"


async def test_scrapes_at_the_same_time_all_get_an_answer() -> None:
    async with admin(House()) as client:
        responses = await asyncio.gather(*(client.get("/metrics") for _ in range(20)))
    assert {response.status for response in responses} == {200}
