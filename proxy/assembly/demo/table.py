"""The live table and its plain lines. Only rendering: numbers come in, renderables go out.

Nothing is said by colour alone, so that it reads the same in a terminal without any. Narrow terminals get
everything in one column, wide ones the topics beside the rest; topics that do not fit are counted, not lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from proxy.assembly.demo.reading import FEW, Rate, Reading
from proxy.assembly.demo.script import NEW_MODEL, OLD_MODEL
from proxy.assembly.demo.traffic import Sent

WIDE: Final = 140  # columns
VERY_WIDE: Final = 160
_LEFT: Final = 61
TALL: Final = 34  # lines
_BAR: Final = 16
_LINES_OF_A_TABLE: Final = 4  # title, header, rule, and one for the topics that did not fit


@dataclass(frozen=True, slots=True)
class View:
    """What there is to see at one moment. `story` is the sentence about the model update."""

    reading: Reading
    sent: Sent
    url: str
    admin_url: str
    config: str
    elapsed_s: float
    story: str
    news: tuple[str, ...] = ()
    footer: str = "Ctrl-C to stop"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Measures the terminal at each drawing, so that a resized window is filled anew."""

    view: View
    height: int | None = field(default=None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = self.height or options.height or console.height
        fancy = options.encoding.startswith("utf")
        reading, story = self.view.reading, _story(self.view)
        if options.max_width < WIDE and height < TALL:
            top: list[RenderableType] = [_headline(self.view), _addresses(self.view)]
            left: list[RenderableType] = [_sentences(reading), models_table(reading), *story]
        else:
            top = [_headline(self.view), _places(self.view), Text("")]
            left = [_totals(reading), Text(""), models_table(reading), Text(""), *story]
        if options.max_width >= WIDE:
            room = height - _lines(top, console, options) - _LINES_OF_A_TABLE
            bars = options.max_width >= VERY_WIDE
            grid = Table.grid(padding=(0, 3))
            grid.add_column(width=_LEFT)
            grid.add_row(Group(*left), topics_table(reading, rows=room, bars=bars, fancy=fancy))
            yield Group(*top, grid)
            return
        room = height - _lines([*top, *left], console, options) - _LINES_OF_A_TABLE
        yield Group(*top, *left, topics_table(reading, rows=max(1, room), bars=False, fancy=fancy))


def _lines(parts: list[RenderableType], console: Console, options: ConsoleOptions) -> int:
    """How many lines the parts take at this width."""
    return len(console.render_lines(Group(*parts), options.update(height=None), pad=False))


def _headline(view: View) -> Table:
    minutes, seconds = divmod(int(view.elapsed_s), 60)
    line = Table.grid(expand=True)
    line.add_column()
    line.add_column(justify="right")
    line.add_row(
        Text("refusal-proxy demo", style="bold reverse"),
        Text(f"{minutes:02d}:{seconds:02d}  {view.footer}", style="bold"),
    )
    return line


def _places(view: View) -> Table:
    """The addresses to try out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text("proxy", style="dim"), Text(f"{view.url}/openai/v1   {view.url}/anthropic"))
    grid.add_row(Text("look", style="dim"), Text(f"{view.admin_url}/   /metrics   /healthz   /readyz"))
    grid.add_row(Text("config", style="dim"), Text(view.config, overflow="ellipsis", no_wrap=True))
    return grid


def _addresses(view: View) -> Text:
    return Text(f"proxy {view.url}/openai/v1   look {view.admin_url}/metrics", no_wrap=True, style="dim")


def _sentences(reading: Reading) -> Text:
    """The totals in three lines, for a terminal of the classic 24."""
    full, part = reading.outcome("full_refusal"), reading.outcome("partial_refusal")
    harmless = reading.rate("harmless")
    blocked, unscored = reading.outcome("provider_block"), reading.unscored.total()
    causes = f" ({_causes(reading.unscored)})" if unscored else ""
    scored = "scored" if reading.classifier_up else "scored, NO CLASSIFIER"
    return Text.assemble(
        f"{reading.requests:,} requests, {reading.scored:,} {scored}, {full + part:,} refused "
        f"({full:,} full, {part:,} part), {blocked:,} blocked\n",
        (f"{harmless.hits:,} false refusals", "bold red"),
        f" of {harmless.total:,} harmless prompts: {percent(harmless)} {between(harmless)}\n",
        f"{unscored:,} unscored{causes}, {reading.dropped.total():,} dropped",
    )


def _totals(reading: Reading) -> Table:
    refused = reading.outcome("partial_refusal") + reading.outcome("full_refusal")
    harmless = reading.rate("harmless")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(justify="right")
    grid.add_column()
    grid.add_row("requests", f"{reading.requests:,}", _statuses(reading))
    grid.add_row("scored", f"{reading.scored:,}", _classifier(reading))
    grid.add_row(
        "refused",
        f"{refused:,}",
        f"{reading.outcome('full_refusal'):,} in full, {reading.outcome('partial_refusal'):,} in part",
    )
    grid.add_row(
        Text("false refusals", style="bold red"),
        f"{harmless.hits:,}",
        Text(f"of {harmless.total:,} harmless prompts: {percent(harmless)} {between(harmless)}"),
    )
    grid.add_row("provider blocks", f"{reading.outcome('provider_block'):,}", "a filter's, not the model's")
    grid.add_row("unscored", f"{reading.unscored.total():,}", _causes(reading.unscored))
    grid.add_row("dropped", f"{reading.dropped.total():,}", _causes(reading.dropped) or "none lost")
    return grid


def _statuses(reading: Reading) -> str:
    total = reading.requests
    fine = sum(number for code, number in reading.statuses.items() if code.startswith("2"))
    return f"{fine / total:.1%} of them HTTP 2xx" if total else ""


def _classifier(reading: Reading) -> str:
    if not reading.classifier_up:
        return "NO CLASSIFIER: only native signals are scored"
    return f"{reading.lag_s:.1f} s behind" if reading.lag_s >= 0.5 else "as they come"


def _causes(causes: dict[str, int]) -> str:
    return ", ".join(f"{cause} {number:,}" for cause, number in sorted(causes.items()) if number)


def models_table(reading: Reading) -> Table:
    """The two rates of each model version, side by side: what the update did."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("scored", justify="right")
    table.add_column("false refusals of\nbenign prompts", justify="right", no_wrap=True)
    table.add_column("alignment tax on\nsensitive prompts", justify="right", no_wrap=True)
    models = _answering(reading) or [OLD_MODEL]
    for model in models:
        scored = reading.count(lambda kind, model=model: kind.model == model)  # type: ignore[misc]
        rates = [reading.rate(prompts, model=model) for prompts in ("benign", "sensitive")]
        table.add_row(model, f"{scored:,}", *(f"{percent(rate)} {between(rate)}" for rate in rates))
    if {OLD_MODEL, NEW_MODEL} <= set(models):
        changes = [Text(change(reading, prompts), style="bold") for prompts in ("benign", "sensitive")]
        table.add_row("change", "", *changes)
    return table


def _answering(reading: Reading) -> list[str]:
    """Models that answered; a blocked prompt counts under the name that the request had, here the alias."""
    return sorted({kind.model for kind in reading.exchanges if kind.outcome != "provider_block"})


def change(reading: Reading, prompts: str) -> str:
    """The newer version's rate against the older one's, in words that do not outrun the samples."""
    old, new = reading.rate(prompts, model=OLD_MODEL), reading.rate(prompts, model=NEW_MODEL)
    if old.few or new.few:
        return "too few yet"
    if old.interval[0] <= new.interval[1] and new.interval[0] <= old.interval[1]:
        return "intervals overlap"
    return f"x {new.share / old.share:.1f}" if old.hits else f"+{new.share:.0%}"


def _story(view: View) -> list[Text]:
    news = [Text(line, style="red", overflow="ellipsis", no_wrap=True) for line in view.news]
    return [Text(view.story, style="bold yellow"), *news]


def topics_table(reading: Reading, *, rows: int, bars: bool, fancy: bool) -> Table:
    """A row a topic, the surest trouble first: by the rate's lower bound, few samples last."""
    ranked = sorted(
        ((topic, reading.rate("harmless", topic=topic)) for topic in reading.topics()),
        key=_urgency,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("topic", no_wrap=True)
    for heading in ("scored", "refused", "harmless", "of them\nrefused", "rate", "95 %\ninterval"):
        table.add_column(heading, justify="right", no_wrap=True)
    if bars:
        table.add_column("")
    table.add_column("", style="dim", no_wrap=True)
    for topic, rate in ranked[:rows]:
        scored = reading.count(lambda kind, topic=topic: kind.topic == topic)  # type: ignore[misc]
        numbers = (f"{scored:,}", f"{reading.refused(topic=topic):,}", f"{rate.total:,}", f"{rate.hits:,}")
        bar = (_bar(rate, fancy=fancy),) if bars else ()
        note = "few" if rate.few else ""
        table.add_row(topic, *numbers, percent(rate), between(rate), *bar, note)
    hidden = len(ranked) - rows
    more = f"{hidden} more topics in a taller window; " if hidden > 0 else ""
    table.caption = f"{more}few: under {FEW} harmless"
    table.caption_justify = "left"
    return table


def _urgency(ranked: tuple[str, Rate]) -> tuple[bool, float, str]:
    topic, rate = ranked
    return rate.few, float(-rate.total) if rate.few else -rate.interval[0], topic


def _bar(rate: Rate, *, fancy: bool) -> Text:
    filled = round(rate.share * _BAR)
    return Text(("█" if fancy else "#") * filled + ("·" if fancy else ".") * (_BAR - filled), style="red")


def percent(rate: Rate) -> str:
    return f"{rate.share:.0%}" if rate.total else "-"


def between(rate: Rate) -> str:
    """The interval; an ASCII hyphen, because not every terminal has a dash."""
    low, high = rate.interval
    return f"({low * 100:.0f}-{high * 100:.0f} %)" if rate.total else ""


def plain_line(view: View) -> str:
    """One line for a log or a pipe."""
    reading = view.reading
    refused = reading.outcome("partial_refusal") + reading.outcome("full_refusal")
    rates = ", ".join(
        f"{model} {percent(rate)} {between(rate)}"
        for model in _answering(reading)
        if (rate := reading.rate("benign", model=model)).total
    )
    return (
        f"{int(view.elapsed_s):4d} s  sent {view.sent.total}, scored {reading.scored}, refused {refused}, "
        f"false refusals {reading.rate('harmless').hits}, blocks {reading.outcome('provider_block')}, "
        f"unscored {reading.unscored.total()}, dropped {reading.dropped.total()}"
        + (f"; false refusal rate on benign prompts: {rates}" if rates else "")
    )
