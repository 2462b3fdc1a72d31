"""Figures of all rounds → the table, the ratios and what the issue asks to reach."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tests.bench.peers import BARE, DIRECT, OURS

Figures = dict[str, Any]
Rounds = dict[str, list[Figures]]

NOISY: Final = 0.10  # of a core, taken by strangers: the figure is marked ~
FULL: Final = 0.90  # of its own core; below it the load side was the limit: the figure is marked ^


class Row(NamedTuple):
    """One line of the table. `test` names the test whose disturbance counts, "" where it hardly matters.

    kind: `rate` (marked ^ where the worker's core was not full), `cost`, or what direct's figure is taken
    off of: `added median`, `added tail`.
    """

    label: str
    key: str
    scale: float
    decimals: int
    test: str
    kind: str


ROWS: Final = tuple(
    Row(*row)
    for row in (
        ("requests/s, closed loop, 64 connections", "requests_rate", 1, 0, "requests", "rate"),
        ("CPU µs a request", "cpu_request", 1, 1, "", "cost"),
        ("chunks/s, saturated (500 paced streams)", "saturated_rate", 1, 0, "saturated", "rate"),
        ("chunks/s, flat out (16 streams)", "flat_rate", 1, 0, "flat", "rate"),
        ("CPU µs a saturated chunk", "cpu_saturated", 1, 1, "", "cost"),
        ("CPU µs a paced chunk (100 streams)", "cpu_chunk", 1, 1, "", "cost"),
        ("CPU µs a flat-out chunk", "cpu_flat", 1, 2, "", "cost"),
        ("first byte p50, µs, added to direct", "ttfb_p50", 1, 0, "ttfb", "added median"),
        ("first byte p99, µs, added to direct", "ttfb_p99", 1, 0, "ttfb", "added median"),
        ("chunk delay p50, µs, added to direct", "chunk_p50", 1, 0, "paced", "added median"),
        ("chunk delay p99, µs, added to direct", "chunk_p99", 1, 0, "paced", "added median"),
        ("worker at start, MiB RSS", "rss_start", 1 / 1024, 1, "", "cost"),
        ("worker at start, MiB PSS", "pss_start", 1 / 1024, 1, "", "cost"),
        ("worker with open streams, MiB RSS", "rss_streams", 1 / 1024, 1, "", "cost"),
        ("KiB RSS an open stream", "rss_stream", 1, 1, "", "cost"),
        ("KiB PSS an open stream", "pss_stream", 1, 1, "", "cost"),
        ("worker after all load, MiB RSS", "rss_after", 1 / 1024, 1, "", "cost"),
        ("requests or streams that failed", "failed", 1, 0, "", "cost"),
    )
)
NOTES: Final = """\
Medians of the rounds, p99s too. direct's first-byte and delay rows are absolute.
By CPU: the ratio of CPU time, what a whole free core would do; neighbours hardly move it.
~ strangers took over 10 % of a core in the median round.
^ the worker's core was not full: the load side (or a stranger) was the limit, the true figure is higher."""
SAME: Final = (("same_json", "J"), ("same_sse", "S"), ("same_request_id", "h"))
MIB, STREAM_KIB = 60, 40
# what, its rate, and the CPU time that limits it
RATES: Final = (
    ("requests/s", "requests_rate", "cpu_request"),
    ("chunks/s saturated", "saturated_rate", "cpu_saturated"),
    ("chunks/s flat out", "flat_rate", "cpu_flat"),
)


def median(rounds: list[Figures], key: str) -> float | None:
    values = [figures[key] for figures in rounds if figures.get(key) is not None]
    return statistics.median(values) if values else None


def ratio(rounds: Rounds, key: str, above: str = OURS, below: str = BARE) -> float | None:
    """The median of the rounds' own ratios: two peers of one round saw the same machine, nearly."""
    pairs = zip(rounds.get(above, ()), rounds.get(below, ()), strict=False)
    values = [one[key] / other[key] for one, other in pairs if one.get(key) and other.get(key)]
    return statistics.median(values) if values else None


def table(rounds: Rounds, facts: Figures) -> str:
    """The whole report as text."""
    names = [name for name, figures in rounds.items() if figures]
    monitor_core = facts["worker_core" if facts["shared_core"] else "load_core"]
    heading = ["row".ljust(42), *(name.rjust(15) for name in names), "ours/bare".rjust(12)]
    lines = [
        "{time}, {cpu}, {cores} cores, Linux {kernel}, load average {load_average} at the start".format(
            **facts
        ),
        "Python {python}, aiohttp {aiohttp}, uvloop {uvloop}, httptools {httptools}".format(**facts),
        "{rounds} rounds, {seconds:g} s a test, {streams} open streams, {rate} requests/s open loop; "
        "worker on core {worker_core}, ".format(**facts)
        + f"monitor on core {monitor_core}",
        "",
        "".join(heading),
    ]
    for row in ROWS:
        cells = [_cell(row, name, rounds).rjust(15) for name in names]
        compared = "" if row.kind.startswith("added") else _number(ratio(rounds, row.key), 2)
        lines.append("".join([row.label.ljust(42), *cells, compared.rjust(12)]))
    same = [_same(rounds[name]).rjust(15) for name in names]
    lines += ["".join(["same bytes: J JSON, S SSE, h request id".ljust(42), *same]), ""]
    return "\n".join([*lines, *_monitor(rounds), "", *_goals(rounds), "", NOTES])


def _cell(row: Row, name: str, rounds: Rounds) -> str:
    value = median(rounds[name], row.key)
    if value is None or (name == DIRECT and row.key.startswith("cpu")):
        return "-"
    if row.kind.startswith("added") and name != DIRECT:
        value -= median(rounds.get(DIRECT, []), row.key) or 0.0
    return _number(value * row.scale, row.decimals) + _mark(row, name, rounds[name])


def _mark(row: Row, name: str, figures: list[Figures]) -> str:
    if not row.test:
        return ""
    foreign = [one[f"{row.test}_foreign"] for one in figures]
    noise: float = statistics.median(foreign)
    full = (median(figures, f"{row.test}_core") or 0.0) >= FULL
    limited = row.kind == "rate" and name != DIRECT and not full
    return "~" * (noise > NOISY) + "^" * limited


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"


def _same(figures: list[Figures]) -> str:
    return "".join(mark for key, mark in SAME if all(one[key] for one in figures)) or "none"


def _monitor(rounds: Rounds) -> list[str]:
    """Which classifier, and what became of the captures; counts are of all rounds together."""
    seen = [one["monitor"] for one in rounds.get(OURS, ()) if "monitor" in one]
    if not seen:
        return ["refusal-proxy was not measured"]
    unscored: dict[str, float] = {}
    for one in seen:
        for cause, count in one["unscored"].items():
            unscored[cause] = unscored.get(cause, 0) + count
    causes = ", ".join(f"{count:,.0f} {cause}" for cause, count in sorted(unscored.items())) or "none"
    scored, dropped = sum(one["scored"] for one in seen), sum(one["dropped"] for one in seen)
    return [
        f"classifier: bundle {seen[-1]['bundle'] or '(none)'}, {seen[-1]['classifier']}",
        f"captures by the end of a round, all rounds: {scored:,.0f} scored, {dropped:,.0f} dropped at random",
        f"unscored: {causes} (most are clients that left: the load generator, when its time is over)",
    ]


# --- the "To reach"


def _goals(rounds: Rounds) -> list[str]:
    ours, bare = rounds.get(OURS, []), rounds.get(BARE, [])
    if not ours or not bare:
        return [f"to reach: needs both {OURS} and {BARE}"]
    up = all(one["monitor"]["classifier"] == "ready" for one in ours)
    streams = ours[0]["streams"]
    room = MIB + STREAM_KIB * streams / 1024
    goals: list[tuple[str, float | None, str, Callable[[float], bool], str]] = [
        *(
            (f"{what}, of {BARE}'s", ratio(rounds, key), ">= 0.9", lambda x: x >= 0.9, cost)
            for what, key, cost in RATES
        ),
        ("first byte p99, ms more than bare's", _later(ours, bare), "<= 1", lambda x: x <= 1, ""),
        ("worker at start, MiB RSS", _mib(ours, "rss_start"), f"< {MIB}", lambda x: x < MIB, ""),
        (
            f"worker with {streams} streams, MiB RSS",
            _mib(ours, "rss_streams"),
            f"< {room:.1f}",
            lambda x: x < room,
            "",
        ),
    ]
    title = f"to reach, one worker on one core, classifier {'on' if up else 'NOT on in every round'}"
    lines = [f"{title:<56}{'measured':>10}{'bound':>10}          by CPU"]
    for label, value, bound, reached, cost in goals:
        verdict = "-" if value is None else "pass" if reached(value) else "MISSED"
        by_cpu = _number(ratio(rounds, cost, BARE, OURS), 2) if cost else ""
        lines.append(f"  {label:<54}{_number(value, 2):>10}{bound:>10}  {verdict:<6}{by_cpu:>8}")
    return lines


def _mib(rounds: list[Figures], key: str) -> float | None:
    value = median(rounds, key)
    return None if value is None else value / 1024


def _later(ours: list[Figures], bare: list[Figures]) -> float | None:
    """Milliseconds that our tail is later than bare's: the median of the rounds' own differences."""
    pairs = [(one["ttfb_p99"], other["ttfb_p99"]) for one, other in zip(ours, bare, strict=False)]
    return statistics.median(one - other for one, other in pairs) / 1000 if pairs else None


def brief(figures: Figures) -> str:
    """One line while the run goes on."""
    keys = ("requests_rate", "cpu_request", "saturated_rate", "flat_rate", "ttfb_p99", "rss_stream")
    return " ".join(f"{key}={figures[key]:,.0f}" for key in keys if key in figures)
