"""The real `refusal-proxy serve`, run as a child: its configuration, its start, its end.

Invariant: whatever ends the demo, serve ends as well. It gets a session of its own, so that Ctrl-C reaches
only the demo, which then stops it in order; and a signal of its own for the case that the demo is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final

import aiohttp

from proxy.assembly.demo.reading import Reading, read
from proxy.assembly.demo.script import OWN_TOPIC, OWN_TOPIC_EXAMPLES, SYSTEM_PROMPTS
from proxy.words.config import ENV_PREFIX
from proxy.words.errors import RefusalProxyError

WORKERS: Final = 2
_START_S: Final = 40.0
_STOP_S: Final = 15.0
_PR_SET_PDEATHSIG: Final = 1
# What the demo decides by itself. Everything else, say another classifier bundle, may come from outside.
_DECIDED: Final = (
    *("LISTEN", "ADMIN", "WORKERS", "UPSTREAM", "ROUTES"),
    *("TOPICS", "REPLACE_TOPICS", "LABELS", "LOG"),
)


class DemoError(RefusalProxyError):
    """A part of the demo failed; the message is one sentence."""


def configuration(upstream: str, port: int, admin_port: int) -> str:
    """The configuration as a person would write it; it is shown to the spectator."""
    named = "\n".join(f'{name} = "{_digest(text)}"' for name, text in SYSTEM_PROMPTS.items())
    examples = "\n".join(f"  {json.dumps(text)}," for text in OWN_TOPIC_EXAMPLES)
    return f"""\
# What the demo runs with: `refusal-proxy serve --config FILE`.
listen = "127.0.0.1:{port}"     # 0: any free port. Clients come here.
admin = "127.0.0.1:{admin_port}"      # /metrics, /healthz, /readyz; never on the data port
workers = {WORKERS}

# Two APIs behind one proxy. Clients use http://…/openai/v1 and http://…/anthropic as their base URLs.
[[routes]]
name = "openai"
path_prefix = "/openai"
strip_prefix = true
upstream = "{upstream}"

[[routes]]
name = "anthropic"
path_prefix = "/anthropic"
strip_prefix = true
upstream = "{upstream}"

# A topic of one's own product: a name and a handful of prompts. Nothing is trained for it.
[[topics]]
name = "{OWN_TOPIC}"
examples = [
{examples}
]

# System prompts that get a name on the metrics: the start of their SHA-256, as /metrics shows unnamed ones.
[labels.system_prompts]
{named}

[timeouts]
drain_s = 5
"""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class House:
    """`serve` and its two addresses. `news` holds its latest warnings and errors, in words."""

    def __init__(self, config: Path) -> None:
        self.url = ""
        self.admin_url = ""
        self.news: deque[str] = deque(maxlen=3)
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._serving = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=5)

    async def start(self) -> None:
        """Start it and wait until traffic flows and the classifier is loaded or known to be missing."""
        dropped = tuple(ENV_PREFIX + key for key in _DECIDED)
        environment = {key: value for key, value in os.environ.items() if not key.upper().startswith(dropped)}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy.assembly.demo.house", str(os.getpid())),
            *("serve", "--config", str(self._config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._listener = asyncio.create_task(self._listen())
        await self._until(self._serving.wait(), "did not say that it serves")
        await self._until(self._ready(), "did not become ready")

    async def _until(self, condition: Awaitable[Any], complaint: str) -> None:
        """Wait for a condition, for the process's end, or for too long a time."""
        assert self._process is not None
        waiting = asyncio.ensure_future(condition)
        ended = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((waiting, ended), timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return
            if ended.done() and self._listener is not None:
                await asyncio.wait((self._listener,), timeout=2.0)  # its last words
            if self._tail:
                raise DemoError(f"cannot serve: {self._tail[-1].removeprefix('refusal-proxy: ')}")
            state = "ended at once, without a word" if ended.done() else complaint
            raise DemoError(f"refusal-proxy serve {state}")
        finally:
            waiting.cancel()
            ended.cancel()

    async def _ready(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
                    async with session.get(f"{self.admin_url}/readyz") as response:
                        checks = (await response.json())["checks"]
                    # A classifier that will never come must not keep the traffic from flowing.
                    if all(check["ok"] or check["detail"] == "unavailable" for check in checks):
                        return
                await asyncio.sleep(0.1)

    async def _listen(self) -> None:
        """Read the log: the addresses from the line that announces them, and bad news."""
        assert self._process is not None
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            text = raw.decode(errors="replace").strip()
            try:
                line = json.loads(text)
                event = str(line["event"])
            except (ValueError, KeyError, TypeError):
                self._tail.append(text)
                continue
            if event == "serving":
                self.url, self.admin_url = line["listen"], line["admin"]
                self._serving.set()
            elif line.get("level") in ("warning", "error"):
                more = ", ".join(f"{key} {line[key]}" for key in ("role", "reason", "error") if key in line)
                self._tail.append(f"{event} ({more})" if more else event)
                self.news.append(f"{time.strftime('%H:%M:%S')}  serve says: {self._tail[-1]}")

    async def look(self, session: aiohttp.ClientSession) -> Reading | None:
        """Scrape /metrics; None while the monitor is away."""
        try:
            async with session.get(f"{self.admin_url}/metrics") as response:
                return read(await response.text()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def stop(self) -> int | None:
        """Drain and end it; kill what does not end. Returns its exit status."""
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session, should a child of its have been left behind
        status = await process.wait()
        if self._listener is not None:
            self._listener.cancel()
        return status


def die_with(parent: int) -> None:
    """Ask Linux for a SIGTERM when the parent is gone, even by SIGKILL. Elsewhere nothing can be asked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was gone before we asked
            raise SystemExit(0)


def _main() -> int:
    from proxy.assembly.cli import main  # noqa: PLC0415 - only in the child: cli imports this package

    _, parent, *arguments = sys.argv
    die_with(int(parent))
    return main(arguments)


if __name__ == "__main__":
    sys.exit(_main())
