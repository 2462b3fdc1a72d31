"""One scripted API and one proxy for the whole folder; scoring is off, so that only facts are counted."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.harness.served import Served
from tests.sdk.api import Api
from tests.sdk.sides import Sides, Way

SILENCE_S = 1.0
CONFIG = """
[timeouts]
silence_s = {silence_s}

[[routes]]
name = "dead"
upstream = "http://127.0.0.1:{dead_port}"
path_prefix = "/dead"
strip_prefix = true

[[routes]]
name = "default"
upstream = "{upstream}"

[classifier]
enabled = false
"""


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    with Api() as api:
        yield api


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sides(api: Api, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sides]:
    with socket.socket() as dead:  # bound and not listening: refuses, and nobody else gets the port
        dead.bind(("127.0.0.1", 0))
        config = CONFIG.format(upstream=api.url, dead_port=dead.getsockname()[1], silence_s=SILENCE_S)
        async with Served(tmp_path_factory.mktemp("sdk"), config=config) as proxy:
            yield Sides(api, proxy)


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each SDK comes twice: blocking, and on an event loop."""
    way: Way = request.param
    return way
