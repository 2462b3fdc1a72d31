"""Fixtures of the data side's tests: one proxy for all of them, a route and an upstream for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.harness.stage import Scene, Stage
from tests.harness.upstreams import Script

SetScene = Callable[[Script], Scene]

# Short times and small limits, for what happens when they are exceeded.
_HASTY = """
half_closed_clients = "serve"
x_forwarded = "append"
[timeouts]
connect_s = 0.5
silence_s = 1.0
upstream_keepalive_s = 1.0
client_keepalive_s = 1.5
"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hasty_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("hasty"), _HASTY, scenes=40) as stage:
        yield stage


@pytest.fixture
def scene(stage: Stage) -> SetScene:
    """`scene(script)`: a route of the shared proxy with its own upstream, pool and metrics."""
    return stage.scene


@pytest.fixture
def hasty(hasty_stage: Stage) -> SetScene:
    """The same with short time-outs, half-closed clients served and X-Forwarded-* appended."""
    return hasty_stage.scene
