"""The bundled chatbot: an API on loopback that speaks OpenAI chat and Anthropic messages from the script.

It looks up the last user message, and answers as the model that the request names. `demo-chat` is an alias,
as vendors have them: `update()` moves it to the newer version, and no client sees more of that than another
name in the response. That is the event which the demo is about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from proxy.assembly.demo import replies
from proxy.assembly.demo.replies import Api, Reply
from proxy.assembly.demo.script import ALIAS, NEW_MODEL, OLD_MODEL, Fault, Line

_MODELS: Final = (OLD_MODEL, NEW_MODEL)
_FIRST_TOKEN_S: Final = 0.03
_TOKENS_A_CHUNK: Final = 3
_FALLBACK: Final = "Thanks for your message! I only know my script, so all I can say is: all is well."
_FAULTS: Final[dict[Fault, tuple[int, int, str, str]]] = {
    # fault: status of OpenAI, of Anthropic, type, message
    "overloaded": (503, 529, "overloaded_error", "Overloaded"),
    "server_error": (500, 500, "api_error", "The server had an error while processing your request."),
    "rate_limited": (429, 429, "rate_limit_error", "Rate limit reached, please try again in 1s."),
}
_ERRORS: Final[dict[Api, Callable[[str, str], dict[str, Any]]]] = {
    "openai": replies.openai_error,
    "anthropic": replies.anthropic_error,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, understood: `tokens` counts the whole conversation."""

    api: Api
    body: dict[str, Any]
    model: str
    prompt: str
    tokens: int


class Chatbot:
    """`chunk_s` is the pause between two chunks of a stream. Start it, use `url`, close it."""

    def __init__(self, lines: tuple[Line, ...], chunk_s: float = 0.012) -> None:
        self.current = OLD_MODEL
        self.url = ""
        self._lines = {line.prompt: line for line in lines}
        self._chunk_s = chunk_s
        self._number = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_post("/v1/chat/completions", self._handler("openai"))
        app.router.add_post("/v1/messages", self._handler("anthropic"))
        app.router.add_get("/v1/models", self._models)
        # A client that leaves ends its handler: a real API stops generating, too.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def update(self) -> None:
        """The vendor's model update: from now on the alias means the newer version."""
        self.current = NEW_MODEL

    def _handler(self, api: Api) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if not (request.headers.get("Authorization") or request.headers.get("x-api-key")):
                return _error(api, 401, "authentication_error", "no API key was given")
            try:
                body = await request.json()
                prompt, said = last_user_message(body)
                wanted = str(body["model"])
            except (ValueError, KeyError, TypeError):
                return _error(api, 400, "invalid_request_error", "the body is not a chat request")
            model = self.current if wanted == ALIAS else wanted
            if model not in _MODELS:
                return _error(api, 404, "not_found_error", f"The model {wanted!r} does not exist")
            return await self._answer(request, _Asked(api, body, model, prompt, said))

        return handle

    async def _answer(self, request: web.Request, asked: _Asked) -> web.StreamResponse:
        api, line = asked.api, self._lines.get(asked.prompt)
        self._number += 1
        if line is not None and line.fault in _FAULTS:
            openai_status, anthropic_status, kind, message = _FAULTS[line.fault]
            return _error(api, openai_status if api == "openai" else anthropic_status, kind, message)
        if line is not None and line.native == "prompt_filter" and api == "openai":
            return web.json_response(replies.openai_prompt_filter(), status=400)
        reply = Reply(
            text=line.answer_of(asked.model).text if line else _FALLBACK,
            model=asked.model,
            number=self._number,
            created=int(time.time()),
            input_tokens=asked.tokens,
            native=line.native if line else None,
            include_usage=bool((asked.body.get("stream_options") or {}).get("include_usage")),
        )
        if asked.body.get("stream"):
            return await self._stream(api, request, reply, breaks=bool(line and line.fault))
        await asyncio.sleep(_FIRST_TOKEN_S)
        whole = replies.openai_whole(reply) if api == "openai" else replies.anthropic_whole(reply)
        response = web.json_response(whole, headers={"x-request-id": f"req_{reply.number:012d}"})
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _stream(
        self, api: Api, request: web.Request, reply: Reply, *, breaks: bool
    ) -> web.StreamResponse:
        events = list(replies.openai_events(reply) if api == "openai" else replies.anthropic_events(reply))
        if breaks:
            events = events[: len(events) // 2]
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "x-request-id": f"req_{reply.number:012d}",
            }
        )
        await response.prepare(request)
        await asyncio.sleep(_FIRST_TOKEN_S)
        try:
            for chunk in _batches(events, _TOKENS_A_CHUNK):
                await response.write(chunk)
                await asyncio.sleep(self._chunk_s)
        except ConnectionError:  # the client left
            return response
        if breaks and request.transport is not None:
            request.transport.abort()  # as when a backend dies: no end marker, no last chunk
            return response
        await response.write_eof()
        return response

    async def _models(self, request: web.Request) -> web.Response:
        card = {"object": "model", "created": 1_767_225_600, "owned_by": "demo"}
        models = [{"id": name, **card} for name in _MODELS]
        return web.json_response({"object": "list", "data": models})


def last_user_message(body: dict[str, Any]) -> tuple[str, int]:
    """The text that the script knows, and the number of tokens of the whole conversation.

    Raises KeyError, TypeError or ValueError where the body is no chat request.
    """
    said = replies.count_tokens(_text(body.get("system") or ""))
    last: str | None = None
    for message in body["messages"]:
        text = _text(message["content"])
        said += replies.count_tokens(text)
        if message["role"] == "user":
            last = text
    if last is None:
        raise ValueError("no user message")
    return last, said


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _batches(events: list[bytes], size: int) -> Iterator[bytes]:
    """First and last events alone, as they come from a real API; those between in small groups."""
    yield events[0]
    for start in range(1, len(events) - 1, size):
        yield b"".join(events[start : min(start + size, len(events) - 1)])
    if len(events) > 1:
        yield events[-1]


def _error(api: Api, status: int, kind: str, message: str) -> web.Response:
    headers = {"Retry-After": "1"} if status == 429 else {}
    return web.json_response(_ERRORS[api](kind, message), status=status, headers=headers)
