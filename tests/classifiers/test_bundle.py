"""A bundle is used only when everything about it adds up, and says in one sentence what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from classifiers.bundle import CARD, MANIFEST, MODEL, TOKENIZER, digest, read_manifest, write_manifest
from classifiers.runtime import DEFAULT_BUNDLE, TOPICS, BundleError, Classifier

if TYPE_CHECKING:
    from pathlib import Path


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Classifier.load(folder)
    message = str(caught.value)
    assert "\n" not in message.strip()
    return message


def edit(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | changes))


def test_the_shipped_bundle_matches_its_hashes_and_stays_small() -> None:
    manifest = read_manifest(DEFAULT_BUNDLE)
    assert set(manifest.sha256) == {MODEL, TOKENIZER, CARD}
    assert all(digest(DEFAULT_BUNDLE / name) == sha for name, sha in manifest.sha256.items())
    assert sum(path.stat().st_size for path in DEFAULT_BUNDLE.iterdir()) <= 20 * 2**20


def test_the_shipped_bundle_says_where_it_came_from() -> None:
    manifest = read_manifest(DEFAULT_BUNDLE)
    assert {"commit", "seed", "data", "base_model"} <= set(manifest.training)
    assert not [name for name, licence in manifest.training["data"].items() if "NC" in licence]
    assert set(manifest.operating_points) == {"refusal", "harmful", "topic"}


def test_the_model_card_credits_the_base_model_and_its_licence() -> None:
    card = (DEFAULT_BUNDLE / CARD).read_text(encoding="utf-8")
    assert "all-MiniLM-L6-v2" in card
    assert "Apache-2.0" in card


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, CARD])
def test_one_flipped_byte_is_refused_by_name(broken: Path, name: str) -> None:
    content = bytearray((broken / name).read_bytes())
    content[len(content) // 2] ^= 1
    (broken / name).write_bytes(content)
    assert name in refusal(broken)
    assert "does not match" in refusal(broken)


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, MANIFEST])
def test_a_missing_file_is_refused_by_name(broken: Path, name: str) -> None:
    (broken / name).unlink()
    assert f"{name} is missing" in refusal(broken)


def test_a_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


def test_labels_in_another_order_are_refused(broken: Path) -> None:
    labels = orjson.loads((broken / MANIFEST).read_bytes())["labels"]
    edit(broken, labels=labels | {"topic": list(reversed(TOPICS))})
    assert "other labels" in refusal(broken)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 99},
        {"lengths": {"prompt_head": 3, "unknown": 1}},
        {"calibration": {}},
        {"calibration": {"outcome": {"temperature": 0, "bias": [0, 0, 0]}}},
        {"sha256": {}},
        {"thresholds": None},
    ],
)
def test_a_garbled_manifest_is_refused_by_name(broken: Path, changes: dict[str, object]) -> None:
    edit(broken, **changes)
    assert MANIFEST in refusal(broken)


def test_a_manifest_that_is_not_json_is_refused(broken: Path) -> None:
    (broken / MANIFEST).write_bytes(b"{")
    assert "not valid JSON" in refusal(broken)


@pytest.mark.parametrize("name", [MODEL, TOKENIZER])
def test_a_corrupt_file_with_a_fitting_hash_is_refused_by_name(broken: Path, name: str) -> None:
    manifest = read_manifest(broken)
    (broken / name).write_bytes(b"not what it says")
    write_manifest(broken, manifest)
    assert name in refusal(broken)
