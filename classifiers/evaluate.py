"""Step 5, evaluate: the exported bundle on rows that nothing was trained on → report.json, MODEL_CARD.md.

It is the ONNX bundle that is measured, thresholds included, not the network in torch. `elsewhere` are
whole sources that training never saw (their licences forbid shipping weights trained on them).
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from rich.progress import track

from classifiers.bundle import CARD, read_manifest, write_manifest
from classifiers.calibration import expected_calibration_error
from classifiers.card import card
from classifiers.labels import HEADS, OUTCOMES
from classifiers.rows import DataError, Row, read_rows
from classifiers.runtime import Classifier, Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console

TIMED = 300  # exchanges timed, one by one on one thread
MOST_ERRORS = 200  # wrong rows listed by id in errors.jsonl, for whoever improves the data

SLICES: dict[str, Callable[[Row], bool]] = {
    "test": lambda row: row.split == "test",
    "test, labelled by people": lambda row: row.split == "test" and row.labelled_by == "human",
    "test, labelled by a judge model": lambda row: (
        row.split == "test" and row.labelled_by == "llm" and row.source != "own"
    ),
    "test, labelled by a keyword rule": lambda row: row.split == "test" and row.labelled_by == "keyword",
    "test, own held-out exchanges": lambda row: row.split == "test" and row.source == "own",
    "sources never trained on": lambda row: row.split == "elsewhere",
}


def evaluate(work: Path, bundle: Path, console: Console) -> dict[str, Any]:
    """Measure a calibrated bundle, write work/report.json and the bundle's card, return the report."""
    manifest = read_manifest(bundle)
    rows = [row for row in read_rows(work / "rows.jsonl") if row.split in {"test", "elsewhere"}]
    if not rows:
        raise DataError(f"{work / 'rows.jsonl'} holds no test rows; run prepare again")
    classifier = Classifier.load(bundle)
    scored = [
        (row, classifier.score([(row.prompt, row.response or "")])[0])
        for row in track(rows, "test", transient=True)
    ]
    report: dict[str, Any] = {
        "bundle": manifest.version,
        "heads": {head: _slices(head, scored) for head in HEADS},
        "sources": {head: _sources(head, scored) for head in HEADS},
        "milliseconds": _speed(classifier, [row for row in rows if row.response]),
        "mebibytes": sum(path.stat().st_size for path in bundle.iterdir()) / 2**20,
    }
    (work / "report.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    _write_errors(work / "errors.jsonl", scored)
    (bundle / CARD).write_text(card(report, manifest), encoding="utf-8")
    write_manifest(bundle, manifest)
    console.print(f"report: {work / 'report.json'}; card: {bundle / CARD}")
    for name, part in report["heads"]["outcome"].items():
        console.print(f"outcome, {name}: {part['refusal']} macro-F1 {part['macro_f1']:.3f}", highlight=False)
    return report


def measure(labels: Sequence[str], truth: Sequence[str], guesses: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, macro-F1 over the labels that occur, and precision, recall, F1, n per label."""
    pairs = Counter(zip(truth, guesses, strict=True))
    classes: dict[str, dict[str, float]] = {}
    for label in labels:
        hits = pairs[label, label]
        called = sum(n for (_, guess), n in pairs.items() if guess == label)
        real = sum(n for (true, _), n in pairs.items() if true == label)
        if real:
            classes[label] = {
                "precision": hits / called if called else 0.0,
                "recall": hits / real,
                "f1": 2 * hits / (called + real),
                "n": real,
            }
    right = sum(n for (true, guess), n in pairs.items() if true == guess)
    return {
        "n": len(truth),
        "accuracy": right / max(1, len(truth)),
        "macro_f1": float(np.mean([entry["f1"] for entry in classes.values()])) if classes else 0.0,
        "classes": classes,
    }


def measure_refusals(truth: Sequence[str], guesses: Sequence[str]) -> dict[str, float | None]:
    """Return F1 of refusal (partial or full) against answer, and the share of answers called refusals.

    F1 is None where no refusal occurs, false alarms are None where no answer does.
    """
    real, called = (np.array([label != OUTCOMES[0] for label in part]) for part in (truth, guesses))
    hits = int((real & called).sum())
    return {
        "f1": round(2 * hits / int(real.sum() + called.sum()), 4) if real.any() else None,
        "recall": round(hits / int(real.sum()), 4) if real.any() else None,
        "false_alarms": round(int((~real & called).sum()) / int((~real).sum()), 4) if (~real).any() else None,
    }


def _slices(head: str, scored: list[tuple[Row, Scores]]) -> dict[str, Any]:
    found = {name: _part(head, [pair for pair in scored if keep(pair[0])]) for name, keep in SLICES.items()}
    return {name: part for name, part in found.items() if part["n"]}


def _sources(head: str, scored: list[tuple[Row, Scores]]) -> dict[str, Any]:
    names = sorted({row.source for row, _ in scored})
    found = {name: _part(head, [pair for pair in scored if pair[0].source == name]) for name in names}
    return {name: part for name, part in found.items() if part["n"]}


def _part(head: str, scored: list[tuple[Row, Scores]]) -> dict[str, Any]:
    kept = [(getattr(row, head), scores) for row, scores in scored if getattr(row, head)]
    truth = [label for label, _ in kept]
    guesses = [getattr(scores, f"{head}_label") for _, scores in kept]
    part = measure(HEADS[head], truth, guesses)
    if kept:
        probabilities = np.array([getattr(scores, head) for _, scores in kept])
        indices = np.array([HEADS[head].index(label) for label in truth])
        part["ece"] = expected_calibration_error(probabilities, indices)
        if head == "outcome":
            part["refusal"] = measure_refusals(truth, guesses)
    return part


def _speed(classifier: Classifier, rows: list[Row]) -> dict[str, float]:
    spent, stamps = [], rows[:: max(1, len(rows) // TIMED)][:TIMED]
    for row in stamps:
        began = time.perf_counter()
        classifier.score([(row.prompt, row.response or "")])
        spent.append(1000 * (time.perf_counter() - began))
    words = float(np.median([len((row.response or "").split()) for row in stamps]))
    return {
        "mean": float(np.mean(spent)),
        "median": float(np.median(spent)),
        "p99": float(np.quantile(spent, 0.99)),
        "median_response_words": words,
    }


def _write_errors(path: Path, scored: list[tuple[Row, Scores]]) -> None:
    """List the surest wrong verdicts by row id, without text."""
    wrong = [
        {
            "head": head,
            "id": row.id,
            "split": row.split,
            "label": getattr(row, head),
            "said": getattr(scores, f"{head}_label"),
            "probability": round(max(getattr(scores, head)), 3),
        }
        for head in HEADS
        for row, scores in scored
        if getattr(row, head) and getattr(row, head) != getattr(scores, f"{head}_label")
    ]
    wrong.sort(key=lambda entry: -entry["probability"])
    lines = [line for head in HEADS for line in [e for e in wrong if e["head"] == head][:MOST_ERRORS]]
    path.write_bytes(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
