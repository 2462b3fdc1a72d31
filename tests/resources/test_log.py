"""The log: one line an event, never in the way."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest

from proxy.resources.log import configure, place
from proxy.words.config import Log


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise ValueError("I/O operation on closed file")


def test_a_line_is_json_with_utc_time_level_and_event() -> None:
    lines = io.StringIO()
    configure(Log(), lines).bind(worker=3).warning("upstream slow", route="default")
    line = json.loads(lines.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("time"))
    assert line == {"level": "warning", "event": "upstream slow", "worker": 3, "route": "default"}


def test_a_line_break_in_a_fact_stays_inside_its_line() -> None:
    lines = io.StringIO()
    configure(Log(), lines).info("event", fact='a\nb"\x1b[31m', other=object())
    assert len(lines.getvalue().splitlines()) == 1
    assert "\x1b" not in lines.getvalue()


def test_lines_below_the_level_are_not_written() -> None:
    lines = io.StringIO()
    log = configure(Log(level="warning"), lines)
    log.info("quiet")
    log.debug("quiet")
    log.error("loud")
    assert len(lines.getvalue().splitlines()) == 1


def test_the_console_format_is_for_people() -> None:
    lines = io.StringIO()
    configure(Log(format="console"), lines).info("ready", port=8080)
    assert "ready" in lines.getvalue()
    assert "port=8080" in lines.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_that_cannot_be_written_is_no_error(form: str) -> None:
    configure(Log.model_validate({"format": form}), Broken()).error("lost")


def test_two_loggers_do_not_share_their_level() -> None:
    one, other = io.StringIO(), io.StringIO()
    log = configure(Log(level="debug"), one)
    configure(Log(level="error"), other)
    log.debug("seen")
    assert "seen" in one.getvalue()
    assert other.getvalue() == ""


def test_a_place_names_file_and_line_but_not_the_message() -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        int("secret")
    assert re.fullmatch(r"ValueError at test_log\.py:\d+ in test_a_place\w+", place(caught.value))
    assert place(KeyError("secret")) == "KeyError"


def test_importing_the_log_loads_no_model_and_no_metrics() -> None:
    heavy = {"numpy", "onnxruntime", "prometheus_client"}
    code = f"import sys, proxy.resources.log; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
