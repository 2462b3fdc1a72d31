"""The floor: what a Python streaming proxy costs when it does nothing but pass bytes on.

python bare_aiohttp.py UPSTREAM PORT

aiohttp on both sides, on uvloop; no access log, no limits, no time-outs, nothing counted, nothing kept.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer")
) | frozenset(("transfer-encoding", "upgrade", "host", "content-length"))


def end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)


def passing(
    session: aiohttp.ClientSession, upstream: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read() if request.body_exists else None
        async with session.request(
            request.method,
            upstream + request.raw_path,
            headers=end_to_end(request.headers),
            data=body,
            allow_redirects=False,
        ) as answer:
            headers = end_to_end(answer.headers)
            if "content-length" in answer.headers:
                headers["content-length"] = answer.headers["content-length"]
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    return handle


async def main(upstream: str, port: int) -> None:
    session = aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", passing(session, upstream))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1].rstrip("/"), int(sys.argv[2])))
