"""Fixtures for all tests. Real parts only: `served` is the real proxy, upstreams are real sockets."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness.served import Served
from tests.harness.upstreams import Script, Upstream, scripted

Serve = Callable[..., Awaitable[Served]]
ServeScript = Callable[[Script], Awaitable[Upstream]]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def serve(stack: AsyncExitStack, tmp_path: Path) -> Serve:
    """`await serve(upstream=url, config=toml, …)` starts a real proxy that ends with the test."""

    async def start(**options: Any) -> Served:
        return await stack.enter_async_context(Served(tmp_path, **options))

    return start


@pytest.fixture
def upstream(stack: AsyncExitStack) -> ServeScript:
    """`await upstream(script)` starts a scripted upstream that ends with the test."""

    async def start(script: Script) -> Upstream:
        return await stack.enter_async_context(scripted(script))

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped real part is a failure: what was not run proves nothing."""
    report = yield
    if os.environ.get("TESTS_STRICT") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and TESTS_STRICT is set: {report.longrepr}"
    return report
