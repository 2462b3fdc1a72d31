"""The bundled clients: the script's prompts, sent through the proxy in the many ways real clients have.

What is sent, and how, is planned first, from a seeded generator; only the sending needs a network. One pass
sends every prompt once. Nothing is counted as sent unless the proxy took the request, so that at the end
`sent` must equal what the monitor accounts for.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import aiohttp

from proxy.assembly.demo.replies import Api
from proxy.assembly.demo.script import ALIAS, OLD_MODEL, SYSTEM_PROMPTS, Line

AT_ONCE: Final = 48
STREAMED: Final = 0.6
COMPRESSED: Final = 0.5
LEAVING: Final = 4  # clients of each pass that go away in the middle of a stream
OTHER_CALLS: Final = 3  # requests of each pass that are no conversation
_LONG_ENOUGH_TO_LEAVE: Final = 400  # characters
_AGENTS: Final = ("shop-web/3.2", "ios-app/1.9", "batch-job/0.4")
_ANTHROPIC_ONLY: Final = frozenset({"stop_refusal"})
_OPENAI_ONLY: Final = frozenset({"message_refusal", "content_filter", "prompt_filter"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request to come. `line` is None for a request that is no conversation."""

    line: Line | None
    api: Api
    model: str = ALIAS
    stream: bool = False
    compressed: bool = False
    leaves: bool = False
    agent: str = _AGENTS[0]


@dataclass(slots=True)
class Sent:
    """What the clients saw. `failures` are those that no script explains."""

    conversations: int = 0
    other: int = 0
    left: int = 0
    broken: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.conversations + self.other


def plan(lines: Iterable[Line], rng: Random, *, pinned: float = 0.0) -> list[Call]:
    """One pass: every line once, shuffled. `pinned` is the share of clients that insist on the old model."""
    calls = [_call(line, rng, pinned) for line in lines]
    may_leave = [
        index
        for index, call in enumerate(calls)
        if call.line and call.stream and not call.line.fault and _long(call.line)
    ]
    for index in rng.sample(may_leave, min(LEAVING, len(may_leave))):
        call = calls[index]
        calls[index] = Call(call.line, call.api, call.model, stream=True, leaves=True, agent=call.agent)
    calls += [Call(None, "openai") for _ in range(OTHER_CALLS)]
    rng.shuffle(calls)
    return calls


def _long(line: Line) -> bool:
    """Long whichever model answers, so that a client has something to leave."""
    return all(
        len(answer.text) > _LONG_ENOUGH_TO_LEAVE for answer in (line.answer, line.update or line.answer)
    )


def _call(line: Line, rng: Random, pinned: float) -> Call:
    api: Api = "openai" if rng.random() < 0.55 else "anthropic"
    if line.native in _ANTHROPIC_ONLY:
        api = "anthropic"
    elif line.native in _OPENAI_ONLY:
        api = "openai"
    return Call(
        line,
        api,
        model=OLD_MODEL if rng.random() < pinned else ALIAS,
        stream=line.fault == "breaks_off" or rng.random() < STREAMED,
        compressed=rng.random() < COMPRESSED,
        agent=rng.choice(_AGENTS),
    )


def body_of(call: Call) -> dict[str, Any]:
    """The request's JSON body."""
    assert call.line is not None
    turns = [*call.line.earlier, call.line.prompt]
    messages: list[dict[str, Any]] = [
        {"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(turns)
    ]
    system = SYSTEM_PROMPTS.get(call.line.system)
    body: dict[str, Any] = {"model": call.model, "messages": messages}
    if call.stream:
        body["stream"] = True
    if call.api == "anthropic":
        body["max_tokens"] = 1024
        messages[-1]["content"] = [{"type": "text", "text": call.line.prompt}]
        if system:
            body["system"] = system
        return body
    if system:
        messages.insert(0, {"role": "system", "content": system})
    if call.stream:
        body["stream_options"] = {"include_usage": True}
    return body


class Clients:
    """Sends calls at a pace, many at once. `base` is the proxy's URL; routes are /openai and /anthropic."""

    def __init__(self, base: str, rng: Random) -> None:
        self.sent = Sent()
        self._base = base
        self._rng = rng
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=60)
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self._session:
            yield

    async def send(self, calls: Iterable[Call], a_second: float) -> None:
        """Send all of `calls`, on average `a_second`, and wait for their ends."""
        loop = asyncio.get_running_loop()
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            due = loop.time()
            for call in calls:
                # Arrivals of many independent people: exponential gaps, not a metronome.
                due = max(due + self._rng.expovariate(a_second), loop.time() - 0.5)
                await asyncio.sleep(max(0.0, due - loop.time()))
                await places.acquire()
                group.create_task(self._one(call)).add_done_callback(lambda _: places.release())

    async def _one(self, call: Call) -> None:
        assert self._session is not None
        method, path, body = _request(call)
        broken = call.line is not None and call.line.fault == "breaks_off"
        try:
            async with self._session.request(
                method, f"{self._base}{path}", data=body, headers=_headers(call)
            ) as response:
                self._count(call, response)
                if call.leaves:
                    await response.content.readany()
                    response.close()
                    self.sent.left += 1
                    return
                await response.read()
                if broken:
                    self.sent.failures["a broken stream that ended cleanly"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            if broken and isinstance(error, aiohttp.ClientPayloadError):
                self.sent.broken += 1
            else:
                self.sent.failures[type(error).__name__] += 1

    def _count(self, call: Call, response: aiohttp.ClientResponse) -> None:
        if call.line is None:
            self.sent.other += 1
        else:
            self.sent.conversations += 1
        self.sent.statuses[response.status] += 1


def _request(call: Call) -> tuple[str, str, bytes | None]:
    if call.line is None:
        return "GET", "/openai/v1/models", None
    path = "/openai/v1/chat/completions" if call.api == "openai" else "/anthropic/v1/messages"
    return "POST", path, json.dumps(body_of(call)).encode()


def _headers(call: Call) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "gzip" if call.compressed else "identity",
        "User-Agent": call.agent,
    }
    if call.api == "openai":
        headers["Authorization"] = "Bearer sk-demo"
    else:
        headers |= {"x-api-key": "sk-ant-demo", "anthropic-version": "2023-06-01"}
    return headers


def endless(lines: tuple[Line, ...], rng: Random, pinned: float) -> Iterator[Call]:
    """Pass after pass, each in an order of its own."""
    while True:
        yield from plan(lines, rng, pinned=pinned)
