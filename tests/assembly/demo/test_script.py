"""The corpus is what the demo's story rests on: its labels are closed, its mix is what the page promises."""

from __future__ import annotations

import hashlib
from collections import Counter

from proxy.assembly.demo.script import NEW_MODEL, OLD_MODEL, OWN_TOPIC, SYSTEM_PROMPTS, script
from proxy.words.verdict import OUTCOMES, PROMPT_CLASSES, REASONS, REFUSALS, TOPICS

LINES = script()
ANSWERS = [answer for line in LINES for answer in (line.answer, line.update) if answer is not None]


def test_prompts_and_ids_are_unique() -> None:
    assert len(LINES) >= 320
    assert len({line.prompt for line in LINES}) == len(LINES)
    assert len({line.id for line in LINES}) == len(LINES)


def test_labels_come_from_the_closed_lists() -> None:
    for line in LINES:
        assert line.topic in TOPICS, line.id
        assert line.prompt_class in PROMPT_CLASSES, line.id
        assert line.own_topic in ("", OWN_TOPIC), line.id
        assert line.system in ("", *SYSTEM_PROMPTS), line.id
        assert len(line.earlier) % 2 == 0, line.id  # user, assistant, … and then the prompt
    for answer in ANSWERS:
        assert answer.outcome in OUTCOMES[:3]
        assert (answer.reason in REASONS) if answer.outcome in REFUSALS else answer.reason is None


def test_every_topic_is_there_and_most_prompts_are_benign() -> None:
    topics = Counter(line.topic for line in LINES)
    classes = Counter(line.prompt_class for line in LINES)
    assert set(topics) == set(TOPICS)
    assert min(topics.values()) >= 8
    assert classes["benign"] > len(LINES) / 2
    assert classes["sensitive"] >= 60
    assert 15 <= classes["harmful"] <= 50


def test_harmful_prompts_are_refused_in_general_terms() -> None:
    for line in LINES:
        if line.prompt_class == "harmful":
            assert line.answer.outcome == "full_refusal", line.id
            assert line.update is None, line.id
            assert len(line.prompt) < 200, line.id


def test_there_are_refusals_of_each_kind_and_hard_negatives() -> None:
    kinds = Counter((answer.outcome, answer.reason) for answer in ANSWERS)
    assert kinds["full_refusal", "safety"] >= 80
    assert kinds["partial_refusal", "safety"] >= 20
    assert kinds["full_refusal", "capability"] >= 8
    assert kinds["full_refusal", "scope"] >= 3
    hard = [line for line in LINES if line.hard_negative]
    assert len(hard) >= 15
    assert all(line.answer.outcome == "answer" for line in hard)


def test_the_update_only_adds_refusals_and_at_least_doubles_the_false_ones() -> None:
    for line in LINES:
        if line.update is not None:
            assert line.update.outcome in REFUSALS, line.id
            assert line.update.text != line.answer.text, line.id
    harmless = [line for line in LINES if line.prompt_class != "harmful"]

    def false(model: str) -> int:
        answers = [line.answer_of(model) for line in harmless]
        return sum(answer.outcome in REFUSALS and answer.reason == "safety" for answer in answers)

    assert false(NEW_MODEL) >= 2 * false(OLD_MODEL)


def test_responses_vary_in_length_and_none_is_a_template() -> None:
    lengths = sorted(len(answer.text.split()) for answer in ANSWERS)
    assert lengths[0] <= 3
    assert lengths[-1] >= 120
    assert lengths[-1] <= 260
    openings = Counter(" ".join(answer.text.lower().split()[:8]) for answer in ANSWERS)
    assert openings.most_common(1)[0][1] <= 4
    texts = Counter(hashlib.sha256(answer.text.encode()).hexdigest() for answer in ANSWERS)
    assert texts.most_common(1)[0][1] <= 2


def test_native_signals_and_faults_are_there() -> None:
    assert {line.native for line in LINES} >= {
        "stop_refusal",
        "message_refusal",
        "content_filter",
        "prompt_filter",
    }
    assert {line.fault for line in LINES} >= {"breaks_off", "overloaded", "server_error", "rate_limited"}
