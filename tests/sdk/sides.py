"""One call, made twice: straight at the scripted API and through the proxy. Both must give the same.

`Sides.same` is the theory of this folder: the SDK's result (objects, events of a stream, or the error it
raises) and the request that the API saw are equal, and /metrics has grown by exactly what is expected.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import anthropic
import openai
from pydantic import BaseModel

from tests.harness.served import Served
from tests.sdk.api import Api, Seen

Way = Literal["sync", "async"]
Vendor = Literal["openai", "anthropic"]
Call = Callable[[Any], Any]
Counts = dict[str, float]

COUNTED_S: Final = 8.0  # in truth milliseconds, or a second where a worker's next report must come first
KEY: Final = "sk-test-of-the-sdks"
_SYNC: Final[dict[Vendor, Any]] = {"openai": openai.OpenAI, "anthropic": anthropic.Anthropic}
_ASYNC: Final[dict[Vendor, Any]] = {"openai": openai.AsyncOpenAI, "anthropic": anthropic.AsyncAnthropic}
_PREFIX: Final[dict[Vendor, str]] = {"openai": "/v1", "anthropic": ""}  # what each SDK wants in its base URL
_FINAL: Final = ("get_final_completion", "get_final_response", "get_final_message")
# What a scrape shows of an exchange: sample name → the label that tells kinds apart.
_COUNTED: Final = {
    "refusal_exchanges_total": "outcome",
    "refusal_unscored_total": "cause",
    "refusal_captures_dropped_total": "cause",
    "gen_ai_client_token_usage_sum": "gen_ai_token_type",
}


def client(vendor: Vendor, way: Way, url: str) -> Any:
    """An SDK client without retries; tests that want some take `with_options`."""
    make = (_SYNC if way == "sync" else _ASYNC)[vendor]
    return make(base_url=url + _PREFIX[vendor], api_key=KEY, max_retries=0, timeout=20)


@dataclass
class Sides:
    """The scripted API, the proxy in front of it, and a client for each."""

    api: Api
    proxy: Served

    def __post_init__(self) -> None:
        self._clients: dict[tuple[str, ...], Any] = {}

    @property
    def through_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.data_port}"

    def client(self, vendor: Vendor, way: Way, *, direct: bool = False, prefix: str = "") -> Any:
        """`prefix` picks another route of the proxy."""
        url = self.api.url if direct else self.through_url + prefix
        key = (vendor, way, url)
        if key not in self._clients:
            self._clients[key] = client(vendor, way, url)
        return self._clients[key]

    async def same(self, vendor: Vendor, way: Way, call: Call, counts: Counts) -> list[Any]:
        """Make the call on both sides, compare, wait for the counts; returns what the SDK gave.

        `counts` is all that the proxy's metrics grow by: outcomes, causes, tokens by type.
        """
        before = self.counts()
        through = await self.passed(vendor, way, call)
        await self.grown(before, counts)
        return through

    async def passed(self, vendor: Vendor, way: Way, call: Call) -> list[Any]:
        """`same` without the counting."""
        self.api.forget()
        direct = await perform(self.client(vendor, way, direct=True), call)
        seen_direct = comparable(self.api.seen)
        self.api.forget()
        through = await perform(self.client(vendor, way), call)
        assert through == direct
        assert comparable(self.api.seen) == seen_direct
        return through

    def counts(self) -> Counter[str]:
        """What the metrics say now, summed over all other labels. Lines by hand: a parser takes 20 ms."""
        found: Counter[str] = Counter()
        for line in self.proxy.get("/metrics")[1].splitlines():
            name, _, rest = line.partition("{")
            if label := _COUNTED.get(name):
                labels, _, value = rest.rpartition("} ")
                kind = labels.partition(f'{label}="')[2].partition('"')[0]
                found[kind] += float(value)  # type: ignore[assignment] # floats that count
        return found

    async def recorded(self, before: Counter[str], captures: int = 1) -> None:
        """Wait until so many captures are counted, as whatever: the next test must not count them."""

        def enough() -> bool:
            grown = self.counts() - before
            return sum(grown.values()) - grown["input"] - grown["output"] >= captures

        await self.proxy.until(enough, f"{captures} more captures counted")

    async def grown(self, before: Counter[str], counts: Counts, within_s: float = COUNTED_S) -> None:
        """Wait until the metrics have grown by `counts`, and by nothing else."""

        def difference() -> Counts:
            after = self.counts()
            return {name: after[name] - before[name] for name in after if after[name] != before[name]}

        end = time.monotonic() + within_s
        while (grown := await asyncio.to_thread(difference)) != counts:
            if time.monotonic() > end:
                raise AssertionError(f"the metrics grew by {grown}, not by {counts}")
            await asyncio.sleep(0.03)


async def perform(client: Any, call: Call) -> list[Any]:
    """Return all that a call gives: its result, or each event of its stream and the end, or its error."""
    if type(client) in _SYNC.values():
        return await asyncio.to_thread(_perform, client, call)
    given: list[Any] = []
    try:
        result = call(client)
        if inspect.isawaitable(result):
            result = await result
        if not hasattr(result, "__aenter__"):
            return [plain(result)]
        async with result as stream:
            async for event in stream:
                given.append(plain(event))  # noqa: PERF401 - what came before an error must be kept
            given += [plain(await getattr(stream, name)()) for name in _FINAL if hasattr(stream, name)]
    except Exception as error:
        given.append(described(error))
    return given


def _perform(client: Any, call: Call) -> list[Any]:
    given: list[Any] = []
    try:
        result = call(client)
        if not hasattr(result, "__enter__"):
            return [plain(result)]
        with result as stream:
            for event in stream:
                given.append(plain(event))  # noqa: PERF401 - see above
            given += [plain(getattr(stream, name)()) for name in _FINAL if hasattr(stream, name)]
    except Exception as error:
        given.append(described(error))
    return given


def plain(result: Any) -> Any:
    """An SDK object as data, with its class and the request id that the SDK took from the head."""
    if isinstance(result, BaseModel):
        dumped = result.model_dump(mode="json", warnings=False)
        return {
            "class": type(result).__name__.removeprefix("Async"),
            "request_id": getattr(result, "_request_id", None),
            **dumped,
        }
    return result


def described(error: Exception) -> dict[str, Any]:
    """All that an SDK's error tells its user, the response's head included."""
    response = getattr(error, "response", None)
    return {
        "class": type(error).__name__,
        "message": str(error),
        "status": getattr(error, "status_code", None),
        "body": getattr(error, "body", None),
        "code": getattr(error, "code", None),
        "request_id": getattr(error, "request_id", None),
        "headers": headers(response) if response is not None else None,
    }


def headers(response: Any) -> list[tuple[str, str]]:
    """The response's headers in order; the date may change between two calls."""
    pairs = response.headers.multi_items()
    return [(name, value) for name, value in pairs if name.lower() not in ("date", "connection")]


def comparable(seen: list[Seen]) -> list[Seen]:
    """Requests without what is random in them: a form's boundary. (Its content is in the answer.)"""
    return [replace(one, headers=tuple(map(_without_boundary, one.headers))) for one in seen]


def _without_boundary(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = header
    return name, value.partition(b"; boundary=")[0]
