"""A scripted API server in a thread of its own: so that a test may block, as the synchronous SDKs do.

It remembers each request as it came, and each client that left before its answer was over.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web

from tests.sdk.payloads import CREATED, PLAIN_PATHS, REPLIES, Json, Reply

BUSY_ROUNDS: Final = 2  # the model "busy" answers 429 so many times, then as "plain"
_HOP: Final = (b"connection",)  # what belongs to one connection only is not the upstream's to compare


@dataclass(frozen=True)
class Seen:
    """One request: its headers in order, without hop-by-hop ones and with Host's value left out."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((v.decode() for k, v in self.headers if k.lower() == name.encode()), "")


@dataclass
class Api:
    """Use as a context manager. Tests read `seen` and `left_at` (monotonic seconds) in their own thread."""

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    left_at: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        self.seen.clear()
        self.left_at.clear()

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="api")
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = b"" if request.content_type == "multipart/form-data" else await request.read()
        headers = tuple(
            (name, b"" if name.lower() == b"host" else value)
            for name, value in request.raw_headers
            if name.lower() not in _HOP
        )
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        try:
            return await self._scripted(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.left_at.append(time.monotonic())
            raise

    async def _scripted(self, request: web.Request, body: bytes) -> web.StreamResponse:
        path = request.path
        if path == "/v1/files":
            return web.json_response(await _uploaded(request), headers=_identity(path))
        if "anthropic-version" in request.headers and path == "/v1/models":
            path = f"/anthropic{path}"
        if (plain := PLAIN_PATHS.get((request.method, path))) is not None:
            return web.json_response(plain, headers=_identity(path))
        asked: Json = json.loads(body)
        model = asked["model"]
        if model == "slow":
            await asyncio.sleep(60)
        if model == "endless":
            return await self._stream(request, Reply(events=REPLIES[path]["plain"].events[:4]), endless=True)
        if model == "busy" and sum(seen.target == request.raw_path for seen in self.seen) > BUSY_ROUNDS:
            model = "plain"
        reply = REPLIES[path][model]
        if asked.get("stream") and reply.events:
            return await self._stream(request, reply)
        headers = {**_identity(path), **reply.headers}
        return web.json_response(reply.body, status=reply.status, headers=headers)

    async def _stream(
        self, request: web.Request, reply: Reply, *, endless: bool = False
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", **_identity(request.path)}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for event in reply.events:
            await response.write(event)
            await asyncio.sleep(0)
        while endless:
            await asyncio.sleep(0.01)
            await response.write(reply.events[-1])
        if reply.after == "cut":
            assert request.transport is not None
            request.transport.abort()
        return response


async def _uploaded(request: web.Request) -> Json:
    """The multipart form as understood: a byte that changed on the way changes the answer."""
    form = await request.post()
    upload = form["file"]
    assert isinstance(upload, web.FileField)
    content = upload.file.read()
    common = {"id": hashlib.sha256(content).hexdigest(), "filename": upload.filename}
    if "anthropic-version" in request.headers:
        kind = {"type": "file", "mime_type": upload.content_type, "size_bytes": len(content)}
        return {**common, **kind, "created_at": "2025-01-01T00:00:00Z", "downloadable": False}
    kind = {"object": "file", "bytes": len(content), "purpose": form["purpose"], "status": "processed"}
    return {**common, **kind, "created_at": CREATED}


def _identity(path: str) -> dict[str, str]:
    """What the vendors' SDKs read from a response's head."""
    return {"x-request-id": f"req_{path}", "request-id": f"req_{path}", "openai-processing-ms": "12"}
