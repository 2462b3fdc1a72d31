"""The model: a bundle that cannot be used is a state and one clear line, never a crash."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.resources.log import configure
from proxy.resources.model import Embed, Model
from proxy.words.config import Log
from proxy.words.verdict import TOPICS
from tests.flows.captures import config


class BundleError(Exception):
    """As `classifiers.bundle` names its own."""


@dataclass
class Scores:
    outcome: tuple[float, ...] = (0.1, 0.2, 0.7)
    prompt_class: tuple[float, ...] = (0.6, 0.3, 0.1)
    topic: tuple[float, ...] = (0.9, 0.1)
    outcome_label: str = "full_refusal"
    prompt_class_label: str = "benign"
    topic_label: str = "medical"
    embedding: object = None


@dataclass
class Scorer:
    version: str = "v7"
    answer: Scores = field(default_factory=Scores)

    def score(self, items: Sequence[tuple[str, str]]) -> list[Scores]:
        return [self.answer for _ in items]

    def embed(self, prompts: Sequence[str]) -> Any:
        return list(prompts)


class Loader:
    """Opens what it is given, in turn; an exception is raised."""

    def __init__(self, *results: Scorer | Exception) -> None:
        self.results = list(results)
        self.asked: list[tuple[Path | None, int]] = []

    def __call__(self, path: Path | None, threads: int) -> Any:
        self.asked.append((path, threads))
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@dataclass
class FakeTopics:
    names: tuple[str, ...]
    chosen: str

    def similarities(self, embedding: object) -> list[float]:
        return [0.625 for _ in self.names]

    def label(self, embedding: object, builtin: str, probabilities: Sequence[float]) -> str:
        return self.chosen or builtin


def model(*results: Scorer | Exception, topics: Any = None) -> tuple[Model, io.StringIO, Loader]:
    lines, loader = io.StringIO(), Loader(*results)

    def make_topics(
        examples: Mapping[str, Sequence[str]], embed: Embed, threshold: float, replace: bool
    ) -> Any:
        if isinstance(topics, Exception):
            raise topics
        return topics

    return Model(configure(Log(), lines), loader, make_topics), lines, loader


def test_a_loaded_bundle_scores_in_neutral_words() -> None:
    one, _, loader = model(Scorer())
    assert one.state == "loading"
    one.configure(config(classifier={"bundle": "/some/bundle", "threads": 3}))
    assert loader.asked == [(Path("/some/bundle"), 3)]
    assert (one.state, one.version) == ("ready", "v7")
    (scores,) = one.score([("p", "r")])
    assert scores.p_outcome == {"answer": 0.1, "partial_refusal": 0.2, "full_refusal": 0.7}
    assert scores.p_prompt_class == {"benign": 0.6, "sensitive": 0.3, "harmful": 0.1}
    assert (scores.outcome, scores.prompt_class, scores.topic, scores.p_topic) == (
        *("full_refusal", "benign", "medical"),
        0.9,
    )


def test_a_corrupt_bundle_is_unavailable_and_one_line_names_the_file() -> None:
    one, lines, _ = model(BundleError("/some/bundle/model.onnx does not match its hash"))
    one.configure(config(classifier={"bundle": "/some/bundle"}))
    assert (one.state, one.version) == ("unavailable", "")
    (line,) = (json.loads(line) for line in lines.getvalue().splitlines())
    assert line["level"] == "error"
    assert line["bundle"] == "/some/bundle"
    assert line["error"] == "/some/bundle/model.onnx does not match its hash"


def test_a_missing_bundle_is_unavailable_with_the_real_loader_too(tmp_path: Path) -> None:
    lines = io.StringIO()
    one = Model(configure(Log(), lines))
    one.configure(config(classifier={"bundle": tmp_path / "nowhere"}))
    assert one.state == "unavailable"
    assert str(tmp_path / "nowhere") in lines.getvalue()
    assert len(lines.getvalue().splitlines()) == 1


def test_a_foreign_error_is_logged_by_its_place_not_its_words() -> None:
    one, lines, _ = model(RuntimeError("these bytes were in the file"))
    one.configure(config())
    assert one.state == "unavailable"
    assert "RuntimeError at test_model.py" in lines.getvalue()
    assert "these bytes" not in lines.getvalue()


def test_a_reload_that_fails_keeps_the_bundle_that_works() -> None:
    one, lines, _ = model(Scorer("v1"), BundleError("no such file"), Scorer("v2"))
    one.configure(config())
    one.configure(config())
    assert (one.state, one.version) == ("ready", "v1")
    assert "the bundle loaded before goes on" in lines.getvalue()
    one.configure(config())
    assert one.version == "v2"


def test_switching_off_opens_nothing_and_forgets_the_bundle() -> None:
    one, _, loader = model(Scorer())
    one.configure(config(classifier={"enabled": False}))
    assert (one.state, loader.asked) == ("off", [])
    one.configure(config())
    one.configure(config(classifier={"enabled": False}))
    assert (one.state, one.version) == ("off", "")


def test_a_topic_outside_the_closed_list_is_other() -> None:
    one, _, _ = model(Scorer(answer=Scores(topic_label="invented")))
    one.configure(config())
    assert one.score([("p", "r")])[0].topic == "other"


OWN = {"topics": [{"name": "billing", "examples": ["Why was I charged twice?"]}]}


def test_own_topics_extend_the_list() -> None:
    one, _, _ = model(Scorer(), topics=FakeTopics(("billing",), "billing"))
    one.configure(config(**OWN))
    assert one.topics == ("billing", *TOPICS)
    (scores,) = one.score([("p", "r")])
    assert (scores.topic, scores.p_topic) == ("billing", 0.625)


def test_own_topics_leave_the_built_in_one_where_none_is_near() -> None:
    one, _, _ = model(Scorer(), topics=FakeTopics(("billing",), ""))
    one.configure(config(**OWN))
    (scores,) = one.score([("p", "r")])
    assert (scores.topic, scores.p_topic) == ("medical", 0.9)


def test_own_topics_replace_the_list() -> None:
    one, _, _ = model(Scorer(), topics=FakeTopics(("billing",), "other"))
    one.configure(config(**OWN, replace_topics=True))
    assert one.topics == ("billing", "other")
    (scores,) = one.score([("p", "r")])
    assert (scores.topic, scores.p_topic) == ("other", 0.0)


@pytest.mark.parametrize(
    "problem", [ValueError("the topic 'billing' has no example prompts"), RuntimeError("x")]
)
def test_own_topics_that_cannot_be_used_leave_the_built_in_ones(problem: Exception) -> None:
    one, lines, _ = model(Scorer(), topics=problem)
    one.configure(config(**OWN))
    assert (one.state, one.topics) == ("ready", TOPICS)
    assert "own topics not usable" in lines.getvalue()
    assert one.score([("p", "r")])[0].topic == "medical"
