"""What stays in the terminal when the live table is gone: totals, the models, and the honest comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.assembly.demo.agreement import ask, compare, pairs, scripted
from proxy.assembly.demo.reading import Rate
from proxy.assembly.demo.script import NEW_MODEL, OLD_MODEL, Line
from proxy.assembly.demo.table import View, between, models_table, percent, plain_line, topics_table


def summary(view: View, lines: Sequence[Line]) -> RenderableType:
    """The last reading, with what the script itself would give beside it."""
    reading, sent = view.reading, view.sent
    unscored = ", ".join(f"{cause} {number}" for cause, number in sorted(reading.unscored.items()) if number)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("sent", f"{sent.total}: {sent.conversations} conversations, {sent.other} other requests")
    facts.add_row(
        "accounted for",
        f"{reading.accounted}: {reading.scored} scored, {reading.unscored.total()} unscored"
        f" ({unscored or 'none'}), {reading.dropped.total()} dropped",
    )
    if reading.accounted < sent.total:
        facts.add_row("", f"{sent.total - reading.accounted} were on their way when it stopped")
    facts.add_row("clients that left", str(sent.left))
    facts.add_row("streams that broke", f"{sent.broken}, as scripted")
    return Group(
        Text(""),
        Text("refusal-proxy demo: summary", style="bold"),
        Text(plain_line(view).strip()),
        Text(""),
        facts,
        Text(""),
        models_table(reading),
        Text(""),
        _truth(lines),
        Text(
            "The script's rates go by its own prompt classes, the measured ones by the classifier's.",
            style="dim",
        ),
        Text(""),
        topics_table(reading, rows=100, bars=False, fancy=False),
    )


def _truth(lines: Sequence[Line]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("by the script", no_wrap=True)
    table.add_column("false refusal rate\n(benign prompts)", justify="right")
    table.add_column("alignment tax\n(sensitive prompts)", justify="right")
    for model in (OLD_MODEL, NEW_MODEL):
        rates = [scripted(lines, model, prompt_class) for prompt_class in ("benign", "sensitive")]
        table.add_row(model, *(f"{percent(rate)} ({rate.hits} of {rate.total})" for rate in rates))
    return table


def agreement_table(
    config: Path, upstream: str, lines: Sequence[Line], stopped: Callable[[], bool]
) -> RenderableType:
    """Ask the classifier about each scripted pair, and say how often it agrees. Takes seconds."""
    asked = pairs(lines)
    overrides = {
        # What the environment must not decide: see house.py.
        "upstream": upstream,
        "routes": [],
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "workers": 1,
        "classifier": {"threads": 2},  # nothing else has work to do now
    }
    scores = ask(config, overrides, asked, stopped)
    if stopped():
        return Text("Stopped before the comparison was done.")
    if not scores:
        return Text("No classifier could be loaded, so there is nothing to compare with the script.")
    result = compare(asked, scores)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("agreement with the script", no_wrap=True)
    table.add_column("", justify="right")
    table.add_column("95 % interval", justify="right", no_wrap=True)
    rows: tuple[tuple[str, Rate], ...] = (
        ("outcome (answer, partial, full)", result.outcome),
        ("refused or not", result.refused_or_not),
        ("scripted refusals that it finds", result.refusals_found),
        ("its refusals that are scripted ones", result.refusals_right),
        ("answers that only look like refusals", result.hard_negatives),
        ("prompt class", result.prompt_class),
        ("topic", result.topic),
    )
    for name, rate in rows:
        table.add_row(name, f"{rate.hits} of {rate.total} = {percent(rate)}", between(rate))
    note = "Unseen by the classifier, one author, small: a look, not a benchmark."
    return Group(Text(""), table, Text(note, style="dim"))
