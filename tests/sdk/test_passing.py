"""What is no conversation passes untouched and is counted as such; heads pass with all they hold."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Final

import pytest

from tests.sdk.payloads import INPUT_TOKENS
from tests.sdk.sides import KEY, Call, Sides, Vendor, Way, headers

pytestmark = pytest.mark.asyncio(loop_scope="session")

BYTES: Final = bytes(range(256)) * 700  # 175 KiB, each byte value, larger than one read
ASKED: Final[list[Any]] = [{"role": "user", "content": "How do I cook pasta?"}]


def _upload_openai(client: Any) -> Any:
    return client.files.create(file=("batch.jsonl", BYTES), purpose="batch")


def _upload_anthropic(client: Any) -> Any:
    return client.files.upload(file=("notes.bin", BYTES, "application/octet-stream"))


def _count(client: Any) -> Any:
    return client.messages.count_tokens(model="plain", messages=ASKED)


def _embed(client: Any) -> Any:
    return client.embeddings.create(model="embed", input=["pasta"])


PASSING: Final[dict[str, tuple[Vendor, Call, str]]] = {
    "models, openai": ("openai", lambda c: c.models.list(), "'owned_by': 'tests'"),
    "models, anthropic": ("anthropic", lambda c: c.models.list(), "'Plain'"),
    "embeddings": ("openai", _embed, "[0.25, -0.5, 1.0]"),
    "token counts": ("anthropic", _count, str(INPUT_TOKENS)),
    "a file, openai": ("openai", _upload_openai, str(len(BYTES))),
    "a file, anthropic": ("anthropic", _upload_anthropic, str(len(BYTES))),
}


async def test_what_is_no_conversation_passes_and_is_counted(sides: Sides, way: Way) -> None:
    """One after the other, and one wait for all: workers report such counts once a second."""
    before = sides.counts()
    for name, (vendor, call, shows) in PASSING.items():
        (result,) = await sides.passed(vendor, way, call)
        assert shows in str(result), name
    await sides.grown(before, {"not_a_conversation": len(PASSING)})


RAW: Final[dict[Vendor, Call]] = {
    "openai": lambda c: c.chat.completions.with_raw_response.create(model="plain", messages=ASKED),
    "anthropic": lambda c: c.messages.with_raw_response.create(model="plain", messages=ASKED, max_tokens=16),
}


@pytest.mark.parametrize("vendor", RAW)
async def test_raw_responses_have_the_same_heads(sides: Sides, way: Way, vendor: Vendor) -> None:
    """`with_raw_response`: order, values and vendor headers, the request id among them."""
    before = sides.counts()
    direct = await _given(RAW[vendor], sides.client(vendor, way, direct=True))
    through = await _given(RAW[vendor], sides.client(vendor, way))
    assert headers(through) == headers(direct)
    assert (through.status_code, through.http_response.content) == (200, direct.http_response.content)
    assert through.request_id.startswith("req_")
    names = {name for name, _ in headers(through)}
    assert {"x-request-id", "request-id", "openai-processing-ms"} <= names
    await sides.recorded(before)


@pytest.mark.parametrize("vendor", RAW)
async def test_the_api_gets_the_clients_key_and_nobody_else_does(
    sides: Sides, way: Way, vendor: Vendor
) -> None:
    before = sides.counts()
    sides.api.forget()
    await _given(RAW[vendor], sides.client(vendor, way))
    (seen,) = sides.api.seen
    assert seen.header("authorization") == f"Bearer {KEY}"
    await sides.recorded(before)
    assert KEY not in sides.proxy.log()
    assert KEY not in sides.proxy.get("/metrics")[1]


async def _given(call: Call, client: Any) -> Any:
    if "Async" not in type(client).__name__:
        return await asyncio.to_thread(call, client)
    result = call(client)
    return await result if inspect.isawaitable(result) else result
