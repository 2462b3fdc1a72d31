"""`refusal-proxy classify`: verdicts for a file of exchanges, by the same parsers, model and rules as live.

Rows come out in the order in which they came in, with every key they had and a `verdict`; a row that cannot
be scored has `"verdict": null` and says why in `unscored`. A line that is no row at all is reported with its
number and left out; it makes the exit status 1 and never stops the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from proxy.pure.decide import decide, wants_scores
from proxy.pure.raw_exchange import exchanges_of
from proxy.resources.log import configure
from proxy.resources.model import Model
from proxy.words.config import Log, load
from proxy.words.errors import ConfigError, Unscored
from proxy.words.exchange import Exchange
from proxy.words.verdict import Verdict

_BATCH: Final = 32
Row = dict[str, Any]


def run(source: str, target: str, bundle: Path | None) -> int:
    """Score every row; 0, or 1 where a line was bad. Raises ConfigError."""
    log = Log(level="error")
    model = Model(configure(log))
    classifier = {"bundle": bundle} if bundle else {}
    model.configure(load(None, {"upstream": "http://offline.invalid", "classifier": classifier}))
    if model.state != "ready":
        raise ConfigError("the classifier could not be loaded, see above")
    if "-" not in (source, target) and Path(target).exists() and Path(target).samefile(_existing(source)):
        raise ConfigError(f"{target} is what is read; give another file to --out")
    try:
        return _Job(model).run(source, target)
    except BrokenPipeError:  # whoever read the verdicts has had enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        raise ConfigError(f"cannot go on with {source} and {target}: {error.strerror}") from None


class _Job:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._bad = 0

    def run(self, source: str, target: str) -> int:
        console = Console(stderr=True)
        columns = (TextColumn("classify"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with ExitStack() as stack:
            rows, total = _rows(source, stack, self._report)
            write = _writer(target, stack)
            bar = stack.enter_context(Progress(*columns, console=console, disable=not console.is_terminal))
            task = bar.add_task("", total=total)
            while batch := list(islice(rows, _BATCH)):
                for row in self._score(batch):
                    write(row)
                bar.advance(task, len(batch))
        if self._bad:
            print(f"refusal-proxy: {self._bad} bad lines were left out", file=sys.stderr)  # noqa: T201
        return 1 if self._bad else 0

    def _report(self, number: int, reason: str) -> None:
        self._bad += 1
        print(f"refusal-proxy: line {number}: {reason}", file=sys.stderr)  # noqa: T201

    def _score(self, batch: list[tuple[int, Any]]) -> Iterator[Row]:
        parsed: list[tuple[int, Row, Exchange | Unscored]] = []
        for number, row in batch:
            try:
                parsed.append((number, row, exchanges_of(row)[0]))
            except Unscored as unscored:
                if unscored.cause == "unreadable":
                    self._report(number, unscored.detail or "unreadable")
                else:
                    parsed.append((number, row, unscored))
        asked = [one for _, _, one in parsed if isinstance(one, Exchange) and wants_scores(one)]
        scores = iter(self._model.score([(one.prompt, one.response) for one in asked]) if asked else ())
        for _, row, one in parsed:
            try:
                if isinstance(one, Unscored):
                    raise one
                verdict = decide(
                    one, next(scores) if wants_scores(one) else None, "ready", self._model.version
                )
                yield {**row, "verdict": as_json(verdict)}
            except Unscored as unscored:
                yield {**row, "verdict": None, "unscored": unscored.cause}


def as_json(verdict: Verdict) -> Row:
    """DESIGN.md §5: the shape that `classify` writes."""
    return {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "prompt_class": verdict.prompt_class,
        "topic": verdict.topic,
        "source": verdict.source,
        "probabilities": {"outcome": verdict.p_outcome, "prompt_class": verdict.p_prompt_class},
        "classifier": verdict.classifier,
    }


def _rows(source: str, stack: ExitStack, report: Any) -> tuple[Iterator[tuple[int, Any]], int | None]:
    """Numbered rows, and how many there are where that is known."""
    if source.endswith(".parquet"):
        table = _pyarrow().read_table(_existing(source))
        return enumerate(table.to_pylist(), 1), int(table.num_rows)
    stream: BinaryIO = (
        sys.stdin.buffer if source == "-" else stack.enter_context(_existing(source).open("rb"))
    )
    total = None if source == "-" else sum(1 for _ in _existing(source).open("rb"))
    return _lines(stream, report), total


def _lines(stream: Iterable[bytes], report: Any) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError:
                report(number, "not JSON")


def _writer(target: str, stack: ExitStack) -> Any:
    if target.endswith(".parquet"):
        arrow = _pyarrow()
        rows: list[Row] = []
        stack.callback(lambda: arrow.write_table(_table(rows), target))
        return rows.append
    if target == "-":
        stream: BinaryIO = sys.stdout.buffer
        stack.callback(stream.flush)
    else:
        stream = stack.enter_context(_openable(target))

    def write(row: Row) -> None:
        stream.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    return write


def _table(rows: list[Row]) -> Any:
    from pyarrow import Table  # noqa: PLC0415 - an extra

    return Table.from_pylist(rows)


def _pyarrow() -> Any:
    try:
        from pyarrow import parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'refusal-proxy[parquet]'") from None
    return parquet


def _existing(source: str) -> Path:
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"there is no file {source}")
    return path


def _openable(target: str) -> Any:
    try:
        return Path(target).open("wb")
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from None
