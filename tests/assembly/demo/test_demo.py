"""The whole demo as a person starts it: real processes, real sockets, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "proxy.assembly.cli", "demo")
ON_LINUX = sys.platform == "linux"


def _left_behind(mark: str) -> list[str]:
    """Command lines of processes that inherited the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile, or is not ours
            continue
    return found


def _environment(mark: str) -> dict[str, str]:
    return {**os.environ, "DEMO_TEST_MARK": mark, "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}


@pytest.mark.timeout(240)
def test_once_adds_up_ends_with_0_and_leaves_no_process() -> None:
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [*COMMAND, "--once"], env=_environment(mark), capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    sent = re.search(r"sent +(\d+): (\d+) conversations, (\d+) other", done.stdout)
    pattern = r"accounted for +(\d+): (\d+) scored, (\d+) unscored.*?(\d+) dropped"
    counted = re.search(pattern, done.stdout, re.DOTALL)
    assert sent, done.stdout
    assert counted, done.stdout
    total, scored, unscored, dropped = map(int, counted.groups())
    assert total == scored + unscored + dropped == int(sent[1]) == int(sent[2]) + int(sent[3])
    assert int(sent[2]) >= 640
    if ON_LINUX:
        assert _left_behind(mark) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        COMMAND, env=_environment(mark), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "sent" in line:  # traffic flows
                break
        demo.send_signal(number)
        output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, errors
    assert errors == ""
    if number != signal.SIGHUP:  # then nobody is there to read
        assert "summary" in output
    if ON_LINUX:
        assert _left_behind(mark) == []


def test_a_reader_that_goes_away_ends_it_in_order() -> None:
    """`refusal-proxy demo | head`: no traceback, no process left."""
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        COMMAND, env=_environment(mark), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        demo.stdout.close()
        assert demo.stderr is not None
        errors = demo.stderr.read()
        assert demo.wait(timeout=60) == 0, errors
    assert errors == ""
    if ON_LINUX:
        assert _left_behind(mark) == []


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--twice"], "unrecognized arguments: --twice"),
        (["--port", "x"], "expected a port"),
        (["--port", "70000"], "expected a port"),
    ],
)
def test_bad_input_is_one_sentence_and_2(flags: list[str], says: str) -> None:
    done = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
