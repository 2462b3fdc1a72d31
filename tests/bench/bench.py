"""Measure the proxy beside a bare aiohttp proxy, nginx and nothing at all, in one run. Linux, C compiler.

    python -m tests.bench.bench                  five rounds, about ten minutes
    python -m tests.bench.bench --quick          one short round

The worker has one core to itself; upstream, load, supervisor and monitor share the other. Rounds go peer by
peer, so that slow drift of the machine touches all. Rates and CPU are medians over rounds, ratios medians of
the rounds' own ratios, differences of p99s likewise. A test
during which strangers took more than 8 % of a core is run again, and the least disturbed run counts, not the
best one. docs/benchmark.md says what each row means.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.bench import machine, peers, report
from tests.bench.peers import DIRECT, HERE, OURS, PATH, Peer

Figures = dict[str, Any]
DISTURBED: Final = 0.08  # of one core, taken by processes that are not ours
LIMIT_S: Final = 180.0


class Bench:
    """One run. `cores`: (the worker's, everybody else's)."""

    def __init__(self, options: argparse.Namespace, work: Path, processes: machine.Processes) -> None:
        self._options = options
        self._work = work
        self._processes = processes
        self._cores: tuple[int, int] = options.worker_core, options.load_core
        self._upstream_port = machine.free_port()
        for name in ("upstream", "load"):
            _compile(HERE / f"{name}.c", work / name)
        # Before the peers where we may: the load side must never be what limits.
        self._upstream = processes.start(
            [work / "upstream", str(self._upstream_port)], options.load_core, nice=options.nice - 5
        )
        while not machine.listening(self._upstream_port):
            if self._upstream.poll() is not None:
                raise RuntimeError("the mock upstream did not start")
            time.sleep(0.02)
        self._bodies: list[str] = []
        self.failed: dict[str, str] = {}

    def run(self) -> dict[str, list[Figures]]:
        """All rounds: peer → figures, one dictionary a round."""
        rounds: dict[str, list[Figures]] = {name: [] for name in self._options.peers}
        for number in range(self._options.rounds):
            for name, figures in rounds.items():
                if name not in self.failed:
                    self._round(name, number + 1, figures)
        return rounds

    def _round(self, name: str, number: int, into: list[Figures]) -> None:
        try:
            peer = self._start(name)
            into.append(self._measure(peer))
            print(f"round {number} {name}: {report.brief(into[-1])}", file=sys.stderr, flush=True)
        except (OSError, RuntimeError, LookupError, http.client.HTTPException) as error:
            self.failed[name] = f"{type(error).__name__}: {error}"[:600]
            print(f"round {number} {name} FAILED: {self.failed[name]}", file=sys.stderr, flush=True)
        finally:
            self._processes.stop_all(keep=self._upstream)

    def _start(self, name: str) -> Peer:
        worker, load = self._cores
        return peers.start(
            name,
            self._processes,
            self._work / name,
            upstream=self._upstream_port,
            core=worker,
            helpers=worker if self._options.shared_core else load,
            nice=self._options.nice,
        )

    # --- one peer, one round

    def _measure(self, peer: Peer) -> Figures:
        """From gentle to heavy: a backlog of captures must not spill from a flood into a latency."""
        figures: Figures = {}
        self._equality(peer, figures)
        if peer.worker is not None:
            self._memory(peer, figures)
        for test in (self._first_byte, self._chunks, self._flat, self._saturated, self._requests):
            test(peer, figures)
        if peer.worker is not None:
            figures["rss_after"] = machine.memory_kib(peer.worker, "Rss")
        if peer.name == OURS:
            figures["monitor"] = peer.monitored()
        return figures

    def _equality(self, peer: Peer, figures: Figures) -> None:
        found = [peer.fetch(stream=False), peer.fetch(stream=True)]
        bodies = [digest for _, digest, _ in found]
        self._bodies = self._bodies or bodies
        figures["same_json"], figures["same_sse"] = (
            status == 200 and digest == wanted
            for (status, digest, _), wanted in zip(found, self._bodies, strict=True)
        )
        figures["same_request_id"] = all(kept for _, _, kept in found)

    def _memory(self, peer: Peer, figures: Figures) -> None:
        worker, streams = peer.worker, self._options.streams
        assert worker is not None
        machine.settle([worker, *peer.others], self._settle_s)
        figures["rss_start"] = machine.memory_kib(worker, "Rss")
        figures["pss_start"] = machine.memory_kib(worker, "Pss")

        def peek(load: subprocess.Popen[str]) -> None:
            assert load.stderr is not None
            if "ready" not in load.stderr.readline():
                raise RuntimeError(f"{peer.name} did not open {streams} streams")
            time.sleep(0.3)
            figures["rss_streams"] = machine.memory_kib(worker, "Rss")
            figures["pss_streams"] = machine.memory_kib(worker, "Pss")
            load.terminate()

        run = self._load_once(peer, ("idle", "-c", streams, "-t", 30), peek)
        figures["streams"] = run["open"]
        for kind in ("rss", "pss"):
            grown = figures[f"{kind}_streams"] - figures[f"{kind}_start"]
            figures[f"{kind}_stream"] = grown / run["open"]

    def _first_byte(self, peer: Peer, figures: Figures) -> None:
        rate = self._options.rate
        run = self._load(peer, "open", "-c", 64, "-r", rate, "-t", 4 * self._seconds, "-w", 0.3, steady=True)
        self._note(figures, "ttfb", run)
        figures["ttfb_p50"], figures["ttfb_p99"] = run["ttfb_us"]["p50"], run["ttfb_us"]["p99"]

    def _chunks(self, peer: Peer, figures: Figures) -> None:
        run = self._load(
            peer, "stream", "-c", 100, "-n", self._chunk_count, "-i", 10_000, "-s", 1, "-t", 60, steady=True
        )
        self._note(figures, "paced", run)
        figures["cpu_chunk"] = 1e6 * run["cpu_s"] / max(run["events"], 1)
        figures["chunk_p50"], figures["chunk_p99"] = run["oneway_us"]["p50"], run["oneway_us"]["p99"]

    def _flat(self, peer: Peer, figures: Figures) -> None:
        run = self._load(peer, "flat", "-c", 16, "-n", 1000, "-t", self._seconds, "-w", 0.3)
        self._note(figures, "flat", run)
        figures["flat_rate"] = run["events_s"]
        figures["cpu_flat"] = 1e6 * run["cpu_s"] / max(run["events_s"] * run["wall_s"], 1)

    def _saturated(self, peer: Peer, figures: Figures) -> None:
        seconds = 2 * self._seconds
        run = self._load(
            peer, "stream", "-c", 500, "-n", self._chunk_count, "-i", 10_000, "-s", 0, "-t", seconds
        )
        self._note(figures, "saturated", run, unfinished_counts=False)
        figures["saturated_rate"] = run["events_s"]
        figures["cpu_saturated"] = 1e6 * run["cpu_s"] / max(run["events"], 1)

    def _requests(self, peer: Peer, figures: Figures) -> None:
        run = self._load(peer, "rps", "-c", 64, "-t", self._seconds, "-w", 0.3)
        self._note(figures, "requests", run)
        figures["requests_rate"] = run["rps"]
        figures["cpu_request"] = 1e6 * run["cpu_s"] / max(run["rps"] * run["wall_s"], 1)

    def _note(self, figures: Figures, test: str, run: Figures, *, unfinished_counts: bool = True) -> None:
        """What tells whether a figure can be trusted."""
        figures[f"{test}_foreign"], figures[f"{test}_core"] = run["foreign"], run["core"]
        failed = run["errors"] + run["non200"] + run["mismatches"]
        figures["failed"] = figures.get("failed", 0) + failed + run["unfinished"] * unfinished_counts

    @property
    def _seconds(self) -> float:
        seconds: float = self._options.seconds
        return seconds

    @property
    def _settle_s(self) -> float:
        """For the worker to finish, and the monitor to score what the last test left in its queue."""
        return max(1.0, 7 * self._seconds)

    @property
    def _chunk_count(self) -> int:
        return max(20, int(self._seconds * 70))  # one every 10 ms, so about 0.7 of the test's seconds

    # --- one run of the load generator

    def _load(self, peer: Peer, *arguments: object, steady: bool = False) -> Figures:
        """The least disturbed of several runs. `steady` keeps both cores awake: a virtual core that halts
        adds up to milliseconds to a wake-up, for whoever is measured."""
        best: Figures | None = None
        for _ in range(1 + self._options.retries):
            machine.settle([pid for pid in (peer.worker, *peer.others) if pid], self._settle_s)
            run = self._load_once(peer, arguments, steady=steady)
            if best is None or run["foreign"] < best["foreign"]:
                best = run
            if run["foreign"] < DISTURBED:
                break
        assert best is not None
        return best

    def _load_once(
        self,
        peer: Peer,
        arguments: tuple[object, ...],
        during: Callable[[subprocess.Popen[str]], None] | None = None,
        *,
        steady: bool = False,
    ) -> Figures:
        load, start = self._work / "load", self._processes.start
        spinners = [start([load, "spin", "-t", "60"], core, nice=19) for core in {*self._cores} if steady]
        worker = [peer.worker] if peer.worker else []
        ours = [*worker, *peer.others, self._upstream.pid, *(one.pid for one in spinners)]
        busy, own, used = machine.busy_s({*self._cores}), machine.cpu_s(ours), machine.cpu_s(worker)
        gone, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        command = [load, arguments[0], "-p", peer.port, "-P", PATH, *arguments[1:]]
        process = start(
            [str(part) for part in command],
            self._cores[1],
            nice=self._options.nice - 5,
            output=subprocess.PIPE,
            errors=subprocess.PIPE,
        )
        if during is not None:
            during(process)
        text, errors = process.communicate(timeout=LIMIT_S)
        wall = time.monotonic() - began
        used, own = machine.cpu_s(worker) - used, machine.cpu_s(ours) - own
        busy = machine.busy_s({*self._cores}) - busy
        own += _spent(resource.getrusage(resource.RUSAGE_CHILDREN)) - _spent(gone)  # the load generator's
        for one in (process, *spinners):
            self._processes.stop(one)
        if process.returncode or not text:
            raise RuntimeError(f"the load generator failed at {arguments[0]}: {errors[-300:]}")
        result: Figures = json.loads(text)
        foreign = max(0.0, busy - own) / wall
        return {**result, "cpu_s": used, "wall_s": wall, "core": used / wall, "foreign": foreign}


def _spent(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _compiler() -> str | None:
    return next((name for name in (os.environ.get("CC", "cc"), "gcc", "clang") if shutil.which(name)), None)


def _compile(source: Path, target: Path) -> None:
    checksums = ["-msse4.2"] if platform.machine() in ("x86_64", "AMD64") else []
    subprocess.run([_compiler() or "cc", "-O2", *checksums, "-o", target, source], check=True)


def facts(options: argparse.Namespace) -> Figures:
    """What a reader must know before believing a number."""
    packages = {name: version(name) for name in ("aiohttp", "uvloop", "httptools")}
    return {
        **machine.facts(),
        "time": time.strftime("%Y-%m-%d %H:%M %Z"),
        "python": platform.python_version(),
        **packages,
        **{name: value for name, value in vars(options).items() if name != "json"},
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--quick", action="store_true", help="one short round, nothing run again")
    parser.add_argument("--seconds", type=float, help="of each test (3; quick: 1.5)")
    parser.add_argument("--retries", type=int, help="more runs of a disturbed test (2; quick: 0)")
    parser.add_argument("--streams", type=int, default=1000, help="open silent streams of the memory test")
    parser.add_argument("--rate", type=int, default=200, help="requests/s of the open loop")
    parser.add_argument("--peers", type=lambda text: text.split(","), help="a,b,c; default: all installed")
    parser.add_argument("--shared-core", action="store_true", help="the monitor shares the worker's core")
    parser.add_argument("--nice", type=int, default=0, help="the peers' priority (root: below 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds here")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, complete; ends the program with one sentence where it cannot run at all."""
    options = parser.parse_args()
    if sys.platform != "linux":
        parser.exit(2, "bench: it needs Linux, because CPU and memory are read from /proc\n")
    if _compiler() is None:
        parser.exit(2, "bench: it needs a C compiler (Debian: apt-get install gcc libc6-dev)\n")
    quick = options.quick
    options.rounds = options.rounds or (1 if quick else 5)
    options.seconds = options.seconds or (1.5 if quick else 3.0)
    options.retries = (0 if quick else 2) if options.retries is None else options.retries
    options.peers = list(dict.fromkeys([DIRECT, *(options.peers or peers.installed())]))
    if unknown := set(options.peers) - set(peers.installed()):
        parser.exit(2, f"bench: unknown or not installed: {', '.join(sorted(unknown))}\n")
    cores = sorted(os.sched_getaffinity(0))
    options.load_core, options.worker_core = cores[0], cores[1 % len(cores)]
    return options


def main() -> int:
    """Exit status: 0, 1 when a peer failed, 2 when the benchmark cannot run here, 130 after Ctrl-C."""
    options = parsed(arguments())
    _allow_files(4 * options.streams + 1024)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes, work = machine.Processes(), Path(tempfile.mkdtemp(prefix="bench-"))
    known = facts(options)
    try:
        bench = Bench(options, work, processes)
        rounds = bench.run()
        print(report.table(rounds, known), flush=True)
        for name, why in bench.failed.items():
            print(f"FAILED {name}: {why}")
        if options.json:
            result = {"facts": known, "rounds": rounds, "failed": bench.failed}
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        processes.stop_all()
        shutil.rmtree(work, ignore_errors=True)
    return 1 if bench.failed else 0


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


if __name__ == "__main__":
    sys.exit(main())
