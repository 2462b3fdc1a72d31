"""The admin port: /metrics, /healthz, /readyz and a plain page. Read-only, and never on the data port.

Rendering and name look-ups happen off the event loop, because the valve lives on it. Every check of
/readyz is cached or timed out, so that a probe cannot pile up work behind a hanging name server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

from proxy.resources.metrics import OPENMETRICS_TYPE, TEXT_TYPE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from proxy.resources.metrics import Metrics
    from proxy.words.config import Route

RESOLVE_TIMEOUT_S: Final = 2.0
RESOLVE_CACHE_S: Final = 10.0
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:3rem auto;max-width:40rem;padding:0 1rem}"
    "table{border-collapse:collapse}td{padding:.2rem 1.5rem .2rem 0}td+td{text-align:right}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final[Mapping[str, str]] = {
    "Server": "refusal-proxy",
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Resolve = Callable[[str, int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness; `detail` is for people."""

    name: str
    ok: bool
    detail: str


async def getaddrinfo(host: str, port: int) -> object:
    """Resolve a name; raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, port)


class Names:
    """Whether host names resolve: one look-up a name at a time, its result kept for a while."""

    def __init__(self, resolve: Resolve, clock: Callable[[], float], timeout_s: float) -> None:
        self._resolve = resolve
        self._timeout_s = timeout_s
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, str]] = {}
        self._running: dict[tuple[str, int], asyncio.Task[str]] = {}

    async def problem(self, host: str, port: int) -> str:
        """Return what is wrong with a name, or ""."""
        key = (host, port)
        when, problem = self._known.get(key, (float("-inf"), ""))
        if self._clock() - when < RESOLVE_CACHE_S:
            return problem
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._look_up(key))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        try:
            # Shielded: a thread in getaddrinfo cannot be stopped, and the next probe joins the same look-up.
            return await asyncio.wait_for(asyncio.shield(task), self._timeout_s)
        except TimeoutError:
            return f"no answer from the name server in {self._timeout_s:g} s"

    async def _look_up(self, key: tuple[str, int]) -> str:
        try:
            await self._resolve(*key)
        except (OSError, UnicodeError) as error:
            problem = f"cannot resolve: {error.strerror if isinstance(error, OSError) else 'not a host name'}"
        else:
            problem = ""
        self._known[key] = (self._clock(), problem)
        return problem

    async def close(self) -> None:
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)


def make_admin(
    *,
    metrics: Metrics,
    classifier_state: Callable[[], str],
    routes: Callable[[], Iterable[Route]],
    workers: Callable[[], int],
    version: str,
    resolve: Resolve = getaddrinfo,
    clock: Callable[[], float] = time.monotonic,
    resolve_timeout_s: float = RESOLVE_TIMEOUT_S,
) -> web.Application:
    """Return the application; `routes` and `workers` (how many are connected) are asked at each probe."""
    names = Names(resolve, clock, resolve_timeout_s)
    threads = ThreadPoolExecutor(1, thread_name_prefix="render")  # one: scrapes queue up, they do not pile up

    async def show_metrics(request: web.Request) -> web.Response:
        openmetrics = wants_openmetrics(request.headers.getall("Accept", []))
        render = partial(metrics.render, openmetrics=openmetrics)
        body = await asyncio.get_running_loop().run_in_executor(threads, render)
        kind = OPENMETRICS_TYPE if openmetrics else TEXT_TYPE
        response = web.Response(body=body, headers={"Content-Type": kind, "Vary": "Accept, Accept-Encoding"})
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def alive(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(_request: web.Request) -> web.Response:
        checks = await all_checks()
        ok = all(check.ok for check in checks)
        answer = {"status": "ready" if ok else "not_ready", "checks": [asdict(check) for check in checks]}
        return web.json_response(answer, status=200 if ok else 503)

    async def all_checks() -> list[Check]:
        upstreams = await asyncio.gather(*(upstream(route) for route in routes()))
        state, count = classifier_state(), workers()
        return [
            *upstreams,
            Check("classifier", state in ("ready", "off"), state),
            Check("workers", count > 0, f"{count} connected"),
        ]

    async def upstream(route: Route) -> Check:
        url = urlsplit(route.upstream)
        port = url.port or (443 if url.scheme == "https" else 80)
        problem = await names.problem(url.hostname or "", port)
        return Check(f"upstream {route.name}", not problem, problem or "resolves")

    async def page(_request: web.Request) -> web.Response:
        totals = await asyncio.get_running_loop().run_in_executor(threads, metrics.totals)
        return web.Response(text=_page(version, totals), content_type="text/html", charset="utf-8")

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        yield
        await names.close()
        threads.shutdown(wait=False, cancel_futures=True)

    async def headers(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(_HEADERS)

    app = web.Application()
    app.router.add_get("/metrics", show_metrics)  # add_get answers HEAD, too, and 405 to all else
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/", page)
    app.on_response_prepare.append(headers)
    app.cleanup_ctx.append(lifetime)
    return app


def wants_openmetrics(accepts: Iterable[str]) -> bool:
    """Whether the Accept headers take OpenMetrics and do not prefer the text format to it."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for entry in ",".join(accepts).split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind in quality:
            quality[kind] = max(quality[kind], _quality(parameters))
    openmetrics, text = quality.values()
    return openmetrics > 0 and openmetrics >= text


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _page(version: str, totals: Mapping[str, float]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:,.0f}</td></tr>" for name, value in totals.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>refusal-proxy</title>"
        f"<style>{_STYLE}</style><h1>refusal-proxy</h1><p>Version {html.escape(version)}. "
        "Totals since this monitor started; refusals are as classified, not corrected by reviews.</p>"
        f"<table>{rows}</table><p><a href=/metrics>/metrics</a> · <a href=/healthz>/healthz</a> · "
        "<a href=/readyz>/readyz</a></p></html>\n"
    )
