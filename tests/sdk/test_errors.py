"""Errors: the vendors' own come through untouched, the proxy's own are errors that the SDKs understand."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from tests.sdk.payloads import INPUT_TOKENS, OUTPUT_TOKENS
from tests.sdk.sides import Call, Sides, Vendor, Way, perform

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKED: Final[list[Any]] = [{"role": "user", "content": "How do I cook pasta?"}]
VENDORS: Final[tuple[Vendor, ...]] = ("openai", "anthropic")
CLASSES: Final[dict[tuple[Vendor, int], str]] = {
    **{(vendor, 400): "BadRequestError" for vendor in VENDORS},
    **{(vendor, 401): "AuthenticationError" for vendor in VENDORS},
    **{(vendor, 429): "RateLimitError" for vendor in VENDORS},
    **{(vendor, 500): "InternalServerError" for vendor in VENDORS},
    ("anthropic", 529): "OverloadedError",
}
ERRORS: Final = "refusal_proxy_upstream_errors_total"
SCORED: Final = {"classifier_off": 1, "input": INPUT_TOKENS, "output": OUTPUT_TOKENS}


def ask(vendor: Vendor, model: str, *, retries: int = 0, **options: Any) -> Call:
    if vendor == "openai":
        return lambda c: c.with_options(max_retries=retries).chat.completions.create(
            model=model, messages=ASKED, **options
        )
    return lambda c: c.with_options(max_retries=retries).messages.create(
        model=model, messages=ASKED, max_tokens=16, **options
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("vendor", "status"), CLASSES)
async def test_an_error_of_the_api_is_the_same_error(
    sides: Sides, way: Way, vendor: Vendor, status: int, stream: bool
) -> None:
    """Class, status, body, code, request id and headers; counted as the API's own error."""
    call = ask(vendor, f"status-{status}", stream=stream)
    (error,) = await sides.same(vendor, way, call, {"upstream_error": 1})
    assert error["class"] == CLASSES[vendor, status]
    assert error["status"] == status
    assert error["request_id"].startswith("req_")
    assert f"scripted {status}" in error["message"]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_the_sdk_waits_and_tries_again_as_the_api_asks(sides: Sides, way: Way, vendor: Vendor) -> None:
    """Retry-After passes, the SDK's own count of its tries passes, and the proxy adds no try of its own."""
    (result,) = await sides.same(vendor, way, ask(vendor, "busy", retries=3), {"upstream_error": 2, **SCORED})
    assert result["model"] in ("chat", "messages")
    assert [seen.header("x-stainless-retry-count") for seen in sides.api.seen] == ["0", "1", "2"]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_retries_that_run_out_show_the_last_error(sides: Sides, way: Way, vendor: Vendor) -> None:
    (error,) = await sides.same(vendor, way, ask(vendor, "busy", retries=1), {"upstream_error": 2})
    assert error["class"] == "RateLimitError"
    assert ("retry-after", "1") in error["headers"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_dead_upstream_is_a_502_with_our_message(
    sides: Sides, way: Way, vendor: Vendor, stream: bool
) -> None:
    before, dead = sides.counts(), sides.client(vendor, way, prefix="/dead")
    (error,) = await perform(dead, ask(vendor, "plain", stream=stream))
    assert error["status"] == 502
    assert error["class"] == "InternalServerError"
    assert "refusal-proxy: the upstream refused the connection" in error["message"]
    assert ("x-refusal-proxy-error", "connect_refused") in error["headers"]
    assert _ours(error)["code"] == "connect_refused"
    await sides.recorded(before)


async def test_a_dead_upstream_counts_as_its_error(sides: Sides, way: Way) -> None:
    """Every try of the SDK is counted: a 502 of ours is as good a reason for one as the API's."""
    before, failed = sides.counts(), sides.proxy.value(ERRORS, {"cause": "connect_refused"})
    dead = sides.client("openai", way, prefix="/dead")
    (error,) = await perform(dead, ask("openai", "plain", retries=1))
    assert error["status"] == 502
    await sides.proxy.until_value(ERRORS, {"cause": "connect_refused", "route": "dead"}, failed + 2)
    await sides.grown(before, {"upstream_error": 2}, within_s=1)


async def test_a_silent_upstream_is_a_504_with_our_message(sides: Sides, way: Way) -> None:
    before = sides.counts()
    answers = await asyncio.gather(
        *(perform(sides.client(vendor, way), ask(vendor, "slow")) for vendor in VENDORS)
    )
    for (error,) in answers:
        assert error["status"] == 504
        assert "refusal-proxy: the upstream sent nothing for too long" in error["message"]
        assert ("x-refusal-proxy-error", "silent") in error["headers"]
        assert _ours(error)["code"] == "silent"
    await sides.grown(before, {"upstream_error": len(VENDORS)})
    await sides.proxy.until_value(ERRORS, {"cause": "silent"})


def _ours(error: dict[str, Any]) -> dict[str, Any]:
    """The error object of the body: the openai SDK hands out that, the anthropic SDK the whole body."""
    body: dict[str, Any] = error["body"]
    inner: dict[str, Any] = body.get("error", body)
    assert inner["type"] == "proxy_error"
    return inner
