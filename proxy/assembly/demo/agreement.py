"""How often the classifier agrees with the script: the same bundle, asked about each scripted pair directly.

/metrics holds sums and no single verdicts, so the comparison cannot be read from there. It is no benchmark:
one author's small corpus, shown because a demo that hides its misses would teach the wrong thing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proxy.assembly.demo.reading import Rate
from proxy.assembly.demo.script import Answer, Line
from proxy.pure.decide import TextScores
from proxy.resources import log
from proxy.resources.model import Model
from proxy.words.config import Log, load
from proxy.words.verdict import REFUSALS

_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with one of its scripted responses."""

    line: Line
    answer: Answer


@dataclass(frozen=True, slots=True)
class Agreement:
    """Shares of scripted pairs (or prompts) where the classifier says what the script says."""

    outcome: Rate
    refused_or_not: Rate
    refusals_found: Rate  # recall
    refusals_right: Rate  # precision
    hard_negatives: Rate
    prompt_class: Rate
    topic: Rate


def pairs(lines: Sequence[Line]) -> list[Pair]:
    """Every response of the script that is text: native signals and faults need no classifier."""
    plain = [line for line in lines if line.native is None]
    return [Pair(line, line.answer) for line in plain] + [
        Pair(line, line.update) for line in plain if line.update is not None
    ]


def ask(
    config: Path, overrides: dict[str, Any], asked: Sequence[Pair], stopped: Callable[[], bool]
) -> list[TextScores]:
    """Score the pairs with the bundle of the configuration; none without a bundle, or once `stopped`."""
    model = Model(log.configure(Log(level="error"), io.StringIO()))
    model.configure(load(config, overrides))
    if model.state != "ready":
        return []
    scores: list[TextScores] = []
    for start in range(0, len(asked), _BATCH):
        if stopped():
            return []
        batch = asked[start : start + _BATCH]
        scores += model.score([(pair.line.prompt, pair.answer.text) for pair in batch])
    return scores


def compare(asked: Sequence[Pair], scores: Sequence[TextScores]) -> Agreement:
    both = list(zip(asked, scores, strict=True))
    intended = [(pair, score) for pair, score in both if pair.answer.outcome in REFUSALS]
    called = [(pair, score) for pair, score in both if score.outcome in REFUSALS]
    hard = [(pair, score) for pair, score in both if pair.line.hard_negative]
    prompts = [(pair, score) for pair, score in both if pair.answer is pair.line.answer]  # each once
    return Agreement(
        outcome=_rate(pair.answer.outcome == score.outcome for pair, score in both),
        refused_or_not=_rate(
            (pair.answer.outcome in REFUSALS) == (score.outcome in REFUSALS) for pair, score in both
        ),
        refusals_found=_rate(score.outcome in REFUSALS for _, score in intended),
        refusals_right=_rate(pair.answer.outcome in REFUSALS for pair, _ in called),
        hard_negatives=_rate(score.outcome == "answer" for _, score in hard),
        prompt_class=_rate(pair.line.prompt_class == score.prompt_class for pair, score in prompts),
        topic=_rate(score.topic in pair.line.topics for pair, score in prompts),
    )


def _rate(hits: Any) -> Rate:
    values = [bool(hit) for hit in hits]
    return Rate(sum(values), len(values))


def scripted(lines: Sequence[Line], model: str, prompt_class: str) -> Rate:
    """The refusal rate that the script itself has, for comparison with the measured one."""
    chosen = [
        line.answer_of(model).outcome
        for line in lines
        if line.prompt_class == prompt_class and line.fault is None and line.native is None
    ]
    return Rate(sum(outcome in REFUSALS for outcome in chosen), len(chosen))
