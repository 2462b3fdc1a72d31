"""`serve`: one monitor, N workers, and a parent that owns the sockets and replaces what dies.

The parent binds every socket before anything starts, so a port that is taken is one sentence at start-up, and
a child that dies leaves its queue of connections to its successor instead of resetting it. Each worker has a
listening socket of its own on the one port (SO_REUSEPORT); where the system does not balance such sockets
(macOS), all share one. No library was found that hands over sockets, keeps two kinds of children and drains
in order; this file is what is left of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from proxy.resources.log import configure
from proxy.words.config import Config, Route, load, split_address
from proxy.words.errors import ConfigError
from proxy.words.plan import RoutePlan, WorkerPlan

BACKLOG: Final = 4096
_BACKOFF_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
_START_S: Final = 60.0
_MONITOR_STOP_S: Final = 15.0
_KILL_AFTER_S: Final = 5.0


def worker_plan(config: Config) -> WorkerPlan:
    limits, timeouts = config.limits, config.timeouts
    return WorkerPlan(
        routes=tuple(_route_plan(route) for route in config.all_routes),
        x_forwarded=config.x_forwarded == "append",
        serve_half_closed=config.half_closed_clients == "serve",
        request_copy_bytes=limits.request_copy_bytes,
        response_copy_bytes=limits.response_copy_bytes,
        copies_bytes=limits.copies_bytes,
        head_bytes=limits.head_bytes,
        valve_bytes=limits.valve_bytes,
        connect_s=timeouts.connect_s,
        silence_s=timeouts.silence_s,
        upstream_keepalive_s=timeouts.upstream_keepalive_s,
        client_keepalive_s=timeouts.client_keepalive_s,
        drain_s=timeouts.drain_s,
    )


def _route_plan(route: Route) -> RoutePlan:
    url = urlsplit(route.upstream)
    assert url.hostname
    return RoutePlan(
        name=route.name,
        scheme=url.scheme,
        host=url.hostname,
        port=url.port or (443 if url.scheme == "https" else 80),
        base=url.path.rstrip("/"),
        path_prefix=route.path_prefix,
        match_host=route.host,
        strip_prefix=route.strip_prefix,
        ca_file=str(route.ca_file or ""),
    )


@dataclass
class _Child:
    """One slot: a role with the sockets it inherits, and the process that fills it now."""

    role: str
    module: str
    start: dict[str, Any]
    fds: tuple[int, ...]
    process: asyncio.subprocess.Process | None = None
    was_ready: bool = False
    beaten_at: float = 0.0
    failures: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Runs until a signal or until a child cannot be started at all. `run` returns the exit status."""

    def __init__(self, config: Config, config_path: Path | None, overrides: dict[str, Any]) -> None:
        self._config = config
        self._config_path = config_path
        self._overrides = overrides
        self._log = configure(config.log).bind(role="supervisor")
        self._sockets: list[socket.socket] = []
        self._children: list[_Child] = []
        self._stopping = asyncio.Event()
        self._status = 0
        self._loop = asyncio.get_running_loop()

    async def run(self) -> int:
        runtime = Path(tempfile.mkdtemp(prefix="refusal-proxy-"))
        try:
            self._prepare(runtime)
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop)
            self._loop.add_signal_handler(signal.SIGHUP, self._reload)
            keepers = [self._loop.create_task(self._keep(child)) for child in self._children]
            watch = self._loop.create_task(self._watch())
            await self._announce()
            await self._stopping.wait()
            watch.cancel()
            await self._shut_down(keepers)
        finally:
            for sock in self._sockets:
                sock.close()
            shutil.rmtree(runtime, ignore_errors=True)
        return self._status

    # --- start-up

    def _prepare(self, runtime: Path) -> None:
        config = self._config
        data = _listeners(config.listen, config.workers)
        admin = _listeners(config.admin, 1)
        self._sockets = [*data, *admin]
        self.data_address = _address(data[0])
        self.admin_address = _address(admin[0])
        valve = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets.append(valve)
        valve_path = runtime / "valve"
        try:
            valve.bind(str(valve_path))
        except OSError as error:
            raise ConfigError(f"cannot make a socket in {runtime} (see TMPDIR): {error}") from None
        valve_path.chmod(0o600)
        valve.listen(BACKLOG)
        monitor = {
            "config": config.model_dump(mode="json"),
            "valve_fd": valve.fileno(),
            "admin_fd": admin[0].fileno(),
        }
        self._children.append(
            _Child("monitor", "proxy.assembly.monitor", monitor, (valve.fileno(), admin[0].fileno()))
        )
        plan = asdict(worker_plan(config))
        for index in range(config.workers):
            listener = data[index % len(data)]
            start = {
                "plan": plan,
                "worker": f"worker-{index}",
                "valve": str(valve_path),
                "listen_fd": listener.fileno(),
                "backlog": BACKLOG,
            }
            self._children.append(
                _Child(f"worker-{index}", "proxy.assembly.worker", start, (listener.fileno(),))
            )

    async def _announce(self) -> None:
        """Say that traffic flows as soon as every worker is ready; the monitor may take longer."""
        waits = [child.ready.wait() for child in self._children if child.role != "monitor"]
        everyone = asyncio.gather(*waits)
        stopped = self._loop.create_task(self._stopping.wait())
        await asyncio.wait((everyone, stopped), timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if everyone.done():
            self._log.info(
                "serving",
                listen=f"http://{self.data_address}",
                admin=f"http://{self.admin_address}",
                workers=self._config.workers,
                routes={route.name: route.upstream for route in self._config.all_routes},
            )
        else:
            everyone.cancel()
            await asyncio.gather(everyone, return_exceptions=True)
            if not self._stopping.is_set():
                self._log.error("workers did not become ready", seconds=_START_S)
                self._status = 1
                self._stopping.set()

    # --- the children

    async def _keep(self, child: _Child) -> None:
        """Start the child, wait for its end, start it again, until we stop."""
        while not self._stopping.is_set():
            code = await self._live(child)
            if self._stopping.is_set():
                return
            child.failures = 0 if child.was_ready else child.failures + 1
            if child.failures >= len(_BACKOFF_S) and child.role != "monitor":
                self._log.error("a worker cannot be started", role=child.role, exit=code)
                self._status = 1
                self._stopping.set()
                return
            pause = _BACKOFF_S[min(child.failures, len(_BACKOFF_S) - 1)]
            self._log.warning("child ended, starting it again", role=child.role, exit=code, in_s=pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _live(self, child: _Child) -> int | str:
        """One life of a child; returns how it ended."""
        try:
            await self._spawn(child)
        except OSError as error:  # no memory, no process ids: later, perhaps
            return error.strerror or type(error).__name__
        assert child.process is not None
        if self._stopping.is_set():  # the order to stop went out while this one was being started
            self._order(child, {"order": "stop"})
        code = await child.process.wait()
        child.ready.clear()
        for task in child.tasks:
            task.cancel()
        return code

    async def _spawn(self, child: _Child) -> None:
        child.was_ready = False
        child.beaten_at = self._loop.time() + _START_S
        child.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            child.module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=child.fds,
        )
        # A name of its own for each life: counters of a successor start from zero, and must not look like
        # its predecessor's going backwards.
        start = {**child.start, "order": "start"}
        if child.role != "monitor":
            start["worker"] = f"{child.role}-{child.process.pid}"
        self._order(child, start)
        child.tasks = [self._loop.create_task(self._listen(child))]

    async def _listen(self, child: _Child) -> None:
        assert child.process is not None
        assert child.process.stdout is not None
        while line := await child.process.stdout.readline():
            child.beaten_at = self._loop.time()
            if line == b"ready\n":
                child.was_ready = True
                child.ready.set()

    @staticmethod
    def _order(child: _Child, order: dict[str, Any]) -> None:
        process = child.process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(orjson.dumps(order) + b"\n")

    async def _watch(self) -> None:
        """Replace a child whose heart has stopped: a hung process does not end by itself."""
        while True:
            await asyncio.sleep(1.0)
            for child in self._children:
                silent_s = self._loop.time() - child.beaten_at
                process = child.process
                if (
                    process is not None
                    and process.returncode is None
                    and silent_s > self._config.timeouts.hung_s
                ):
                    self._log.error("child is hung, killing it", role=child.role, silent_s=round(silent_s))
                    child.beaten_at = self._loop.time() + _START_S
                    process.kill()

    # --- reload and the end

    def _reload(self) -> None:
        try:
            changed = load(self._config_path, self._overrides)
        except ConfigError as error:
            self._log.error("configuration not reloaded, the old one stays", reason=str(error))
            return
        fixed = [name for name in ("listen", "admin", "workers") if _differ(self._config, changed, name)]
        fixed += [
            f"log.{name}" for name in ("level", "format") if _differ(self._config.log, changed.log, name)
        ]
        if fixed:
            self._log.warning("these keys need a restart", keys=fixed)
        self._config = changed
        plan = asdict(worker_plan(changed))
        config = changed.model_dump(mode="json")
        for child in self._children:
            key, value = ("config", config) if child.role == "monitor" else ("plan", plan)
            child.start[key] = value
            self._order(child, {"order": "reload", key: value})
        self._log.info("configuration reloaded", routes=[route.name for route in changed.all_routes])

    def _stop(self) -> None:
        if self._stopping.is_set():  # the second signal: do not wait any longer
            self._log.warning("stopping at once")
            for child in self._children:
                if child.process is not None and child.process.returncode is None:
                    child.process.kill()
            return
        self._log.info("draining", seconds=self._config.timeouts.drain_s)
        self._stopping.set()

    async def _shut_down(self, keepers: list[asyncio.Task[None]]) -> None:
        """Workers first, so that the monitor still hears their last captures."""
        monitor, *workers = self._children
        drain_s = self._config.timeouts.drain_s + _KILL_AFTER_S
        await asyncio.gather(*(self._end(child, drain_s) for child in workers))
        await self._end(monitor, _MONITOR_STOP_S)
        await asyncio.gather(*keepers, return_exceptions=True)
        self._log.info("stopped")

    async def _end(self, child: _Child, within_s: float) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        self._order(child, {"order": "stop"})
        try:
            async with asyncio.timeout(within_s):
                await process.wait()
        except TimeoutError:
            self._log.warning("child did not stop in time, killing it", role=child.role)
            process.kill()
            await process.wait()


def _differ(old: object, new: object, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))


def _listeners(address: str, count: int) -> list[socket.socket]:
    """`count` listening sockets on one address; a single one where the system cannot balance several."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets: list[socket.socket] = []
    try:
        for _ in range(count if sys.platform == "linux" else 1):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1 and sys.platform == "linux":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except OSError as error:
        for sock in sockets:
            sock.close()
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"cannot listen on {address}: {reason}") from None
    return sockets


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
