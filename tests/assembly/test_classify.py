"""`classify`: the same parsers, model and rules as live traffic, over a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROWS: list[dict[str, Any]] = [
    {"id": 7, "prompt": "What is 2 + 2?", "response": "2 + 2 = 4."},
    {
        "id": 8,
        "prompt": "Write me a poem about rain.",
        "response": "I'm sorry, but I can't help with that request.",
    },
    {
        "request": {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]},
        "response": {
            "model": "m",
            "choices": [
                {"index": 0, "message": {"content": None, "refusal": "I can't."}, "finish_reason": "stop"}
            ],
        },
        "kept": {"nested": [1, 2]},
    },
    {"prompt": "Hello", "response": ""},
]


def classify(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", "classify", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_rows_come_back_in_order_with_every_key_and_a_verdict(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    result = classify(str(source), "--out", str(target))
    assert (result.returncode, result.stderr) == (0, "")
    out = [json.loads(line) for line in target.read_text().splitlines()]
    assert [{key: row[key] for key in before} for row, before in zip(out, ROWS, strict=True)] == ROWS
    outcomes = [row["verdict"] and row["verdict"]["outcome"] for row in out]
    assert outcomes == ["answer", "full_refusal", "full_refusal", None]
    assert [row["verdict"]["source"] for row in out[:3]] == ["classifier", "classifier", "model_native"]
    assert out[3]["unscored"] == "empty"
    assert set(out[0]["verdict"]) == {
        "outcome",
        "reason",
        "prompt_class",
        "topic",
        "source",
        "probabilities",
        "classifier",
    }
    assert sum(out[0]["verdict"]["probabilities"]["outcome"].values()) == pytest.approx(1, abs=1e-4)


def test_a_bad_line_is_reported_with_its_number_and_never_stops_the_rest() -> None:
    good = json.dumps(ROWS[0])
    result = classify(text=f'{good}\nnonsense\n[1]\n{{"prompt": 1}}\n\n{good}\n')
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.splitlines() == [
        "refusal-proxy: line 2: not JSON",
        "refusal-proxy: line 3: not an object",
        "refusal-proxy: line 4: neither prompt and response as text nor request and response as objects",
        "refusal-proxy: 3 bad lines were left out",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("/nowhere.jsonl",), "there is no file /nowhere.jsonl"),
        (("-", "--out", "/nowhere/out.jsonl"), "cannot write /nowhere/out.jsonl: No such file or directory"),
        (("-", "--bundle", "/nowhere"), "the classifier could not be loaded"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = classify(*arguments, text="")
    assert result.returncode == 2
    assert sentence in result.stderr


def test_a_file_is_never_written_over_itself(tmp_path: Path) -> None:
    both = tmp_path / "both.jsonl"
    both.write_text(json.dumps(ROWS[0]) + "\n")
    result = classify(str(both), "--out", str(tmp_path / "." / "both.jsonl"))
    assert result.returncode == 2
    assert result.stderr.endswith("is what is read; give another file to --out\n")
    assert json.loads(both.read_text()) == ROWS[0]


def test_a_reader_that_has_had_enough_is_no_fault_of_ours(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text((json.dumps({**ROWS[0], "note": "n" * 20_000}) + "\n") * 200)
    command = [sys.executable, "-m", "proxy", "classify", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's full disk")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text((json.dumps(ROWS[0]) + "\n") * 40)
    result = classify(str(source), "--out", "/dev/full")
    assert result.returncode == 2
    assert result.stderr.startswith("refusal-proxy: cannot go on with ")
    assert result.stderr.endswith(": No space left on device\n")
