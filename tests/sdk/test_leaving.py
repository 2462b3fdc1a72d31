"""Clients that leave early: the API is told at once, because generation costs money, and it is counted."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import pytest

from tests.sdk.sides import Call, Counts, Sides, Vendor, Way, perform

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKED: Final[list[Any]] = [{"role": "user", "content": "Write without an end."}]
AT_ONCE_S: Final = 1.0  # in truth a millisecond; a busy machine gets the rest
ASK: Final[dict[Vendor, Any]] = {
    "openai": lambda c, model, **more: c.chat.completions.create(model=model, messages=ASKED, **more),
    "anthropic": lambda c, model, **more: c.messages.create(
        model=model, messages=ASKED, max_tokens=16, **more
    ),
}
TOKENS: Final[dict[Vendor, Counts]] = {"openai": {}, "anthropic": {"input": 25, "output": 1}}  # told so far
DISCONNECTS: Final = "refusal_proxy_client_disconnects_total"


async def _leave(client: Any, call: Call) -> float:
    """Read three events, close the stream; returns the moment."""

    def blocking() -> float:
        with call(client) as stream:
            for count, _ in enumerate(stream, 1):
                if count == 3:
                    break
            return time.monotonic()

    if "Async" not in type(client).__name__:
        return await asyncio.to_thread(blocking)
    async with await call(client) as stream:
        count = 0
        async for _ in stream:
            count += 1
            if count == 3:
                break
        return time.monotonic()


@pytest.mark.parametrize("vendor", ASK)
async def test_a_stream_closed_early_ends_the_generation(sides: Sides, way: Way, vendor: Vendor) -> None:
    before, gone = sides.counts(), sides.proxy.value(DISCONNECTS)
    sides.api.forget()
    left = await _leave(sides.client(vendor, way), lambda c: ASK[vendor](c, "endless", stream=True))
    await sides.proxy.until(lambda: bool(sides.api.left_at), "the API sees its client leave", 5)
    assert sides.api.left_at[0] - left < AT_ONCE_S
    await sides.proxy.until_value(DISCONNECTS, {"route": "default"}, gone + 1)
    await sides.grown(before, {"classifier_off": 1, **TOKENS[vendor]})


@pytest.mark.parametrize("vendor", ASK)
async def test_a_client_that_runs_out_of_patience_ends_the_generation(
    sides: Sides, way: Way, vendor: Vendor
) -> None:
    """The SDK's own timeout, before the API has said anything."""
    before, gone = sides.counts(), sides.proxy.value(DISCONNECTS)
    sides.api.forget()
    (error,) = await perform(
        sides.client(vendor, way), lambda c: ASK[vendor](c.with_options(timeout=0.3), "slow")
    )
    assert error["class"] == "APITimeoutError"
    await sides.proxy.until(lambda: bool(sides.api.left_at), "the API sees its client leave", 5)
    await sides.proxy.until_value(DISCONNECTS, {"route": "default"}, gone + 1)
    await sides.recorded(before)


async def test_leaving_before_the_answer_is_not_the_apis_error(sides: Sides, way: Way) -> None:
    before = sides.counts()
    await perform(sides.client("openai", way), lambda c: ASK["openai"](c.with_options(timeout=0.2), "slow"))
    await sides.grown(before, {"truncated": 1}, within_s=1)
