"""Step 1, prepare: public sources and our own exchanges → rows.jsonl, labelled, deduplicated, split.

Reads ../shared/data (never written to, never committed) and classifiers/data/own.jsonl. Sources that
may not train shipped weights become rows of the split `elsewhere`: measured on, never trained on.
"""

from __future__ import annotations

import gzip
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers import sources
from classifiers.rows import DataError, Row, family, read_json_lines, split_of, without_duplicates, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

OWN = Path(__file__).parent / "data" / "own.jsonl"
OWN_WEIGHT = 2.0  # few, but written for the cases that the public sources lack
ELSEWHERE_CAP = 400  # rows measured of each source that is not trained on


def prepare(data: Path, work: Path, seed: int, console: Console) -> Path:
    """Write work/rows.jsonl and return its path; raises DataError for missing or broken data."""
    rows = list(without_duplicates([*own_rows(OWN), *_responses(data, seed), *_prompts(data, seed)]))
    path = work / "rows.jsonl"
    write_rows(path, rows)
    for head in ("outcome", "prompt_class", "topic"):
        counts = Counter((row.split, getattr(row, head)) for row in rows if getattr(row, head))
        for split in ("train", "validation", "test", "elsewhere"):
            line = ", ".join(f"{label} {n}" for (where, label), n in sorted(counts.items()) if where == split)
            console.print(f"[b]{head}[/b] {split}: {line}", highlight=False)
    console.print(f"{len(rows)} rows written to {path}")
    return path


def own_rows(path: Path) -> Iterator[Row]:
    """Yield the project's own exchanges. A fifth is test, a tenth validation, by the hash of the id.

    Some prompts come twice, refused and answered; the first one's split holds for its whole family.
    """
    content = path.read_bytes() if path.is_file() else None
    splits: dict[str, str] = {}
    for entry in read_json_lines(content, path):
        yield Row(
            id=entry["id"],
            source="own",
            prompt=entry["prompt"],
            response=entry["response"],
            outcome=entry["outcome"],
            prompt_class=entry["prompt_class"],
            topic=entry["topic"],
            labelled_by=entry["labelled_by"],
            weight=OWN_WEIGHT,
            split=splits.setdefault(family(entry["prompt"]), split_of(entry["id"], test=0.2, validation=0.1)),
        )


def _responses(data: Path, seed: int) -> Iterator[Row]:
    for source in sources.RESPONSES:
        entries = [entry for entry in _read(data, "responses", source.name) if entry["refusal"]]
        cap = source.cap if source.clean else ELSEWHERE_CAP
        judged = _sample([entry for entry in entries if entry["labelled_by"] != "keyword"], cap, seed)
        keyword = [entry for entry in entries if entry["labelled_by"] == "keyword"]
        for entry in [*judged, *_sample(keyword, cap - len(judged), seed)]:
            yield Row(
                id=entry["id"],
                source=source.name,
                prompt=entry["prompt"],
                response=entry["response"],
                outcome=sources.OUTCOME_OF[entry["refusal"]],
                prompt_class=None,
                topic=None,
                labelled_by=entry["labelled_by"],
                weight=source.trust * sources.LABELLER_WEIGHT[entry["labelled_by"]],
                split=split_of(family(entry["prompt"])) if source.clean else "elsewhere",
            )


def _prompts(data: Path, seed: int) -> Iterator[Row]:
    for source in sources.PROMPTS:
        entries = _read(data, "prompts", source.name)
        for entry in entries if source.clean else _sample(entries, ELSEWHERE_CAP, seed):
            prompt, category = entry["prompt"], entry["label_raw"]
            prompt_class = sources.prompt_class_of(source.name, entry["harm"], category)
            topic = sources.topic_of(source.name, entry["topic"], category, prompt)
            if prompt_class or topic:
                yield Row(
                    id=entry["id"],
                    source=source.name,
                    prompt=prompt,
                    response=None,
                    outcome=None,
                    prompt_class=prompt_class,
                    topic=topic,
                    labelled_by=entry["labelled_by"],
                    weight=source.trust * sources.LABELLER_WEIGHT[entry["labelled_by"]],
                    split=split_of(family(prompt)) if source.clean else "elsewhere",
                )


def _read(data: Path, kind: str, name: str) -> list[dict[str, Any]]:
    path = data / kind / f"{name}.jsonl.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; --data should name the folder of MANIFEST.md") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return list(read_json_lines(content, path))


def _sample(entries: list[dict[str, Any]], cap: int, seed: int) -> list[dict[str, Any]]:
    """Return at most `cap` entries, as many of each refusal label as there are, the rest at random."""
    if len(entries) <= cap:
        return entries
    by_label: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in random.Random(seed).sample(entries, len(entries)):  # noqa: S311 - sampling, not secrecy
        by_label[str(entry.get("refusal"))].append(entry)
    share = cap // max(1, len(by_label))
    kept = [entry for group in by_label.values() for entry in group[:share]]
    spare = [entry for group in by_label.values() for entry in group[share:]]
    return [*kept, *spare[: cap - len(kept)]]
