"""The parent's own corners, which no signal from outside hits reliably."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.assembly.supervisor import Supervisor, _Child
from proxy.words.config import Config


async def test_children_that_were_being_started_when_the_end_came_end_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Or `serve` would wait for them for ever."""
    config = Config.model_validate(
        {"upstream": "http://127.0.0.1:1", "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "workers": 2}
    )
    parent = Supervisor(config, None, {})
    passed_by = asyncio.Event()
    asked = 0
    start, end = asyncio.create_subprocess_exec, parent._end

    async def slow(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        nonlocal asked
        asked += 1
        if asked == 3:
            parent._stop()
        await passed_by.wait()
        return await start(*arguments, **options)

    async def noted(child: _Child, within_s: float) -> None:
        await end(child, within_s)
        if child.role == "monitor":  # the last that is told to stop
            passed_by.set()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slow)
    monkeypatch.setattr(parent, "_end", noted)
    assert await asyncio.wait_for(parent.run(), 30) == 0
    assert [child.process.returncode for child in parent._children if child.process] == [0, 0, 0]
    assert caplog.records == []  # asyncio has nothing to complain of
