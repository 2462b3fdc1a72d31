"""Preparing: manifest labels become ours, licences decide what may train, our own rows are sound."""

from __future__ import annotations

import gzip
from collections import Counter
from typing import TYPE_CHECKING

import orjson
import pytest
from rich.console import Console

from classifiers import sources
from classifiers.labels import OUTCOMES, PROMPT_CLASSES, TOPICS
from classifiers.prepare import OWN, own_rows, prepare
from classifiers.rows import DataError, family, read_json_lines, read_rows

if TYPE_CHECKING:
    from pathlib import Path

QUIET = Console(quiet=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a few made-up rows in every source of the table."""
    for kind, table in (("responses", sources.RESPONSES), ("prompts", sources.PROMPTS)):
        (tmp_path / kind).mkdir()
        for source in table:
            entries = [
                {
                    "id": f"{kind}-{source.name}-{number}",
                    "source": source.name,
                    "prompt": f"{source.name} asks question {number}",
                    "response": f"answer {number}",
                    "refusal": ("none", "full", None)[number % 3],
                    "labelled_by": ("human", "keyword")[number % 2],
                    "harm": "benign",
                    "topic": "political",
                    "label_raw": None,
                }
                for number in range(12)
            ]
            content = b"".join(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in entries)
            (tmp_path / kind / f"{source.name}.jsonl.gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_only_clean_sources_are_trained_on(data: Path, tmp_path: Path) -> None:
    rows = read_rows(prepare(data, tmp_path / "work", 1, QUIET))
    clean = {source.name for source in (*sources.RESPONSES, *sources.PROMPTS) if source.clean} | {"own"}
    assert {row.source for row in rows if row.split in {"train", "validation", "test"}} <= clean
    assert {row.source for row in rows if row.split == "elsewhere"}.isdisjoint(clean)


def test_an_unlabelled_response_is_never_an_answer(data: Path, tmp_path: Path) -> None:
    rows = read_rows(prepare(data, tmp_path / "work", 1, QUIET))
    public = [row for row in rows if row.response is not None and row.source != "own"]
    assert {int(row.id.rsplit("-", 1)[1]) % 3 for row in public} == {0, 1}
    assert {row.outcome for row in public} == {"answer", "full_refusal"}


def test_a_keyword_label_weighs_less_than_a_persons(data: Path, tmp_path: Path) -> None:
    rows = read_rows(prepare(data, tmp_path / "work", 1, QUIET))
    by_person, by_rule = (
        {row.weight for row in rows if row.source == "chatgpt_refusals" and row.labelled_by == who}
        for who in ("human", "keyword")
    )
    assert max(by_rule) < min(by_person)


def test_preparing_twice_gives_the_same_file(data: Path, tmp_path: Path) -> None:
    paths = [prepare(data, tmp_path / name, 1, QUIET) for name in ("one", "two")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_missing_source_is_told_by_name(data: Path, tmp_path: Path) -> None:
    (data / "prompts" / "orbench.jsonl.gz").unlink()
    with pytest.raises(DataError, match=r"orbench\.jsonl\.gz is missing"):
        prepare(data, tmp_path / "work", 1, QUIET)


@pytest.mark.parametrize(
    ("source", "topic", "category", "prompt", "expected"),
    [
        ("speechmap_questions", "political", "us_criticism", "", "politics"),
        ("harmbench", "weapons", "chemical_biological", "", "chemistry_biology"),
        ("clinc150", "other", "recipe", "", "everyday"),
        ("clinc150", "other", "yes", "", "other"),
        ("orbench", "illegal", "hard: illegal", "Which guns are legal in Texas?", "weapons"),
        ("mmlu", "factual", "high_school_chemistry", "", "chemistry_biology"),
        ("catqa_harmfulqa", "sexual", "catqa: Child Abuse / Neglect", "", "violence_crime"),
        ("simpleqa", "factual", "Art", "Who made the gun in the painting?", "factual"),
        ("oasst_prompts", None, None, "", None),
    ],
)
def test_topics_become_ours(
    source: str, topic: str | None, category: str | None, prompt: str, expected: str | None
) -> None:
    assert sources.topic_of(source, topic, category, prompt) == expected


@pytest.mark.parametrize(
    ("source", "harm", "category", "expected"),
    [
        ("counsel_chat", "sensitive", "parenting", "benign"),
        ("counsel_chat", "sensitive", "domestic-violence", "sensitive"),
        ("speechmap_questions", None, "eu_criticism", "benign"),
        ("speechmap_questions", None, "Education", None),
        ("advbench", "harmful", None, "harmful"),
    ],
)
def test_prompt_classes_follow_the_rubric(
    source: str, harm: str | None, category: str, expected: str | None
) -> None:
    assert sources.prompt_class_of(source, harm, category) == expected


def test_every_topic_a_source_can_get_is_on_the_list() -> None:
    rules = {topic for _, _, topic in sources._CATEGORY_RULES if topic}
    words = {topic for topic, _ in sources._WORD_RULES}
    assert rules | words | set(sources._TOPIC_OF.values()) <= set(TOPICS)


def test_our_own_exchanges_are_sound_and_cover_every_topic_and_class() -> None:
    entries = list(read_json_lines(OWN.read_bytes(), OWN))
    assert len({entry["id"] for entry in entries}) == len(entries) >= 400
    assert {entry["topic"] for entry in entries} == set(TOPICS)
    assert {entry["prompt_class"] for entry in entries} == set(PROMPT_CLASSES)
    assert {entry["outcome"] for entry in entries} == {*OUTCOMES, None}
    assert all((entry["response"] is None) == (entry["outcome"] is None) for entry in entries)
    assert all(entry["labelled_by"] == "llm" for entry in entries)


def test_our_own_harmful_prompts_are_never_answered() -> None:
    harmful = [row for row in own_rows(OWN) if row.prompt_class == "harmful"]
    assert {row.outcome for row in harmful} == {"full_refusal", None}


def test_a_prompt_that_we_wrote_twice_lies_in_one_split() -> None:
    splits: dict[str, set[str]] = {}
    for row in own_rows(OWN):
        splits.setdefault(family(row.prompt), set()).add(row.split)
    assert len(splits) < len(list(own_rows(OWN)))
    assert all(len(found) == 1 for found in splits.values())


def test_a_fifth_of_our_own_rows_is_held_out() -> None:
    splits = Counter(row.split for row in own_rows(OWN))
    assert splits["test"] / sum(splits.values()) == pytest.approx(0.2, abs=0.05)
