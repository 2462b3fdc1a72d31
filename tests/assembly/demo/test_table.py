"""The table says what it must at 80 and at 140 columns, without colour, in any height."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from proxy.assembly.demo.reading import read
from proxy.assembly.demo.script import script
from proxy.assembly.demo.summary import summary
from proxy.assembly.demo.table import Dashboard, View, change, plain_line
from proxy.assembly.demo.traffic import Sent
from tests.assembly.demo.canned import METRICS, every_topic

VIEW = View(
    reading=read(METRICS),
    sent=Sent(conversations=278, other=3),
    url="http://127.0.0.1:40001",
    admin_url="http://127.0.0.1:40002",
    config="/tmp/refusal-proxy-demo-abc/refusal-proxy.toml",
    elapsed_s=83.4,
    story="The vendor moved demo-chat from demo-chat-1 to demo-chat-2.",
)


def drawn(width: int, height: int, view: View = VIEW) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None, no_color=True
    )
    console.print(Dashboard(view, height=height))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), (80, 50), (100, 30), (140, 24), (140, 41), (200, 60)]
)
def test_everything_important_is_there_in_every_window(width: int, height: int) -> None:
    lines = drawn(width, height)
    text = "\n".join(lines)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    for needed in (
        "http://127.0.0.1:40001",
        "http://127.0.0.1:40002",
        "/metrics",
        "Ctrl-C to stop",
        "01:23",
        "medical",
        "(9-21 %)",  # medical: 20 of 140
        "demo-chat-1",
        "demo-chat-2",
        "truncated 6",
        "The vendor moved",
    ):
        assert needed in text, (needed, text)
    assert "…" not in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 33), (80, 40), (100, 24), (140, 24), (180, 30)])
def test_all_topics_fill_the_window_and_no_more(width: int, height: int) -> None:
    lines = drawn(width, height, replace(VIEW, reading=read(METRICS + every_topic(100))))
    assert height - 1 <= len(lines) <= height or "more topics" not in "".join(lines)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "few: under 30" in "".join(lines)  # the last line


@pytest.mark.parametrize("width", [80, 140])
def test_few_samples_are_marked_and_hidden_topics_counted(width: int) -> None:
    text = "\n".join(drawn(width, 41))
    weapons = next(line for line in text.splitlines() if "weapons" in line)
    assert weapons.rstrip().endswith("few")
    assert "under 30" in text
    short = "\n".join(drawn(80, 17))
    assert "more topics" in short


def test_the_change_is_only_named_when_the_samples_carry_it() -> None:
    assert change(VIEW.reading, "benign") == "x 3.7"  # 30 of 90 against 12 of 132
    assert change(VIEW.reading, "sensitive") == "too few yet"
    same = METRICS.replace('outcome="full_refusal"} 30', 'outcome="full_refusal"} 8')
    assert same != METRICS
    assert change(read(same), "benign") == "intervals overlap"


def test_a_missing_classifier_and_bad_news_are_loud() -> None:
    down = read(METRICS.replace("refusal_classifier_up 1.0", "refusal_classifier_up 0.0"))
    view = replace(VIEW, reading=down, news=("12:00:00  serve says: child ended, starting it again",))
    for width, height in ((80, 24), (140, 41)):
        text = "\n".join(drawn(width, height, view))
        assert "NO CLASSIFIER" in text
        assert "child ended" in text


def test_an_empty_reading_draws_too() -> None:
    assert drawn(80, 24, replace(VIEW, reading=read("")))


def test_the_plain_line_and_the_summary_fit_a_pipe() -> None:
    line = plain_line(VIEW)
    assert "\n" not in line
    assert "scored 272" in line
    assert "demo-chat-2 33%" in line
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(summary(VIEW, script()))
    output = console.file
    assert isinstance(output, io.StringIO)
    assert "by the script" in output.getvalue()
    assert max(map(len, output.getvalue().splitlines())) <= 80
