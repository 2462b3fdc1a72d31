"""A smoke run of the benchmark: the real thing, for moments. What it measures there means nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.report import ROWS, SAME

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("direct", "bare-aiohttp", "refusal-proxy")
TINY = ("--quick", "--seconds", "0.25", "--streams", "50", "--peers", ",".join(PEERS))
MARK = "BENCH_SMOKE_RUN"

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler"),
]


@pytest.fixture
def files() -> Iterator[Path]:
    """A place for temporary files; pytest's own is too deep for the path of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        yield Path(folder)


def start(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """The benchmark with a mark that all its processes inherit, and with `folder` for its files."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bench", *arguments],
        cwd=ROOT,
        env={**os.environ, MARK: mark, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, mark


def left(mark: str) -> Iterator[str]:
    """Command lines of processes that carry the mark."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def test_a_run_reports_every_row_and_leaves_nothing_behind(files: Path, tmp_path: Path) -> None:
    process, mark = start(files, *TINY, "--json", str(tmp_path / "figures.json"))
    report, errors = process.communicate(timeout=110)
    assert process.returncode == 0, errors[-2000:] + report[-2000:]
    lines = report.splitlines()
    for row in ROWS:
        (line,) = (line for line in lines if line.startswith(row.label))
        assert len(line[42:].split()) >= len(PEERS), line
    assert "to reach, one worker on one core" in report
    assert "classifier: bundle" in report
    rounds = json.loads((tmp_path / "figures.json").read_text())["rounds"]
    assert set(rounds) == set(PEERS)
    for name, (figures,) in rounds.items():
        assert all(figures[key] for key, _ in SAME), name
        assert figures["failed"] == 0, name
    assert not list(left(mark))
    assert not list(files.iterdir())


def test_ctrl_c_stops_everything_that_was_started(files: Path) -> None:
    process, mark = start(files, *TINY)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("round 1 direct")  # from here on a proxy is starting
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("stopped\n")
    assert not list(left(mark))
    assert not list(files.iterdir())
