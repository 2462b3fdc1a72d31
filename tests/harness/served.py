"""The real `refusal-proxy serve` as a subprocess, and what one can ask of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

START_S = 60.0
Labels = Mapping[str, str]


class Served:
    """One running proxy. Use as `async with Served(tmp_path, upstream=…) as proxy`."""

    def __init__(
        self,
        folder: Path,
        *,
        upstream: str = "",
        config: str = "",
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        classifier: bool = False,
    ) -> None:
        """`config` is TOML text; without `classifier` scoring is off, which starts in a third of the time."""
        self._folder = folder
        self.log_path = folder / f"serve-{time.monotonic_ns()}.log"
        self.config_path = folder / "config.toml"
        self._arguments = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *arguments]
        if "--workers" not in arguments and "workers" not in config:
            self._arguments += ["--workers", "1"]
        if upstream:
            self._arguments += ["--upstream", upstream]
        if config:
            self.config_path.write_text(config)
            self._arguments += ["--config", str(self.config_path)]
        self._environment = {**os.environ, **(environment or {})}
        if not classifier and "[classifier]" not in config:
            self._environment.setdefault("REFUSAL_PROXY_CLASSIFIER__ENABLED", "false")
        self.data_port = 0
        self.admin_port = 0
        self._family: list[int] = []
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        with self.log_path.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "proxy", "serve", *self._arguments, stderr=log, env=self._environment
            )
        serving = await self.logged("serving", START_S)
        self.data_port = int(serving["listen"].rpartition(":")[2])
        self.admin_port = int(serving["admin"].rpartition(":")[2])
        await self.until(lambda: self.get("/readyz")[1]["checks"][-1]["ok"], "a worker is connected")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self, number: int = signal.SIGTERM, within_s: float = 30.0) -> int:
        """Send a signal and return the exit status."""
        if self.process.returncode is None:
            self._family = self.children()
            self.process.send_signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), within_s)
        except TimeoutError:
            self.process.kill()
            raise

    # --- asking

    def get(self, path: str) -> tuple[int, Any]:
        """An admin page: (status, JSON or text)."""
        request = f"http://127.0.0.1:{self.admin_port}{path}"
        try:
            with urlopen(request, timeout=10) as answer:
                status, text = answer.status, answer.read().decode()
        except OSError as error:
            if not hasattr(error, "code"):
                raise
            status, text = error.code, error.read().decode()  # type: ignore[attr-defined]
        return status, json.loads(text) if text.startswith("{") else text

    def value(self, name: str, labels: Labels | None = None) -> float:
        """The sum of a metric's samples whose labels include these; 0 where there is none."""
        wanted = (labels or {}).items()
        total = 0.0
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and wanted <= sample.labels.items():
                    total += sample.value
        return total

    async def until(self, holds: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
        """Wait until something holds, asking again and again; fail with `what` when it never does."""
        end = time.monotonic() + within_s
        while True:
            try:
                if await asyncio.to_thread(holds):
                    return
            except OSError:  # the admin port between two lives of the monitor
                pass
            if time.monotonic() > end:
                raise AssertionError(f"never: {what}\n{self.log()[-4000:]}")
            await asyncio.sleep(0.05)

    async def until_value(
        self, name: str, labels: Labels, least: float = 1.0, within_s: float = 20.0
    ) -> float:
        """Wait until a metric has at least this value."""
        await self.until(
            lambda: self.value(name, labels) >= least, f"{name}{dict(labels)} >= {least}", within_s
        )
        return self.value(name, labels)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """The JSON lines of the log."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    async def logged(self, event: str, within_s: float = 20.0) -> dict[str, Any]:
        """Wait for a log line and return it."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for line in self.events():
                if line.get("event") == event:
                    return line
            if self.process.returncode is not None:
                break
            await asyncio.sleep(0.05)
        raise AssertionError(f"never logged: {event}\n{self.log()[-4000:]}")

    def children_are_gone(self) -> bool:
        """No child that was alive when `stop` was called is left."""
        return not any(_alive(pid) for pid in self._family)

    def children(self, module: str = "") -> list[int]:
        """Process ids of the supervisor's children that run `proxy.assembly.<module>`."""
        listing = _processes()
        wanted = f"proxy.assembly.{module}"
        return [pid for pid, parent, command in listing if parent == self.process.pid and wanted in command]


def _processes() -> list[tuple[int, int, str]]:
    """(pid, parent, command line) of every process. /proc where there is one: a minimal Debian has no ps."""
    if sys.platform != "linux":
        text = subprocess.run(
            ["ps", "-axo", "pid=,ppid=,command="], capture_output=True, text=True, check=True
        )
        rows = (line.split(None, 2) for line in text.stdout.splitlines())
        return [(int(row[0]), int(row[1]), row[2]) for row in rows if len(row) == 3]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found.append((int(folder.name), parent, command))
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
