"""A bundle is a folder that says all about itself; nothing of it is used before its hashes match.

    model.onnx       the int8 network: ids, types, mask → outcome, prompt_class, topic, embedding
    tokenizer.json   the WordPiece vocabulary
    MODEL_CARD.md    measured numbers, written by `evaluate`
    bundle.json      versions, labels, input lengths, calibration, thresholds, hashes, where it came from

Foreign errors (files, JSON, ONNX) end here as BundleError, one sentence that names the file.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from classifiers.calibration import Scaling
from classifiers.labels import HEADS
from classifiers.reader import Lengths

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = 1
MANIFEST: Final = "bundle.json"
MODEL: Final = "model.onnx"
TOKENIZER: Final = "tokenizer.json"
CARD: Final = "MODEL_CARD.md"
NEUTRAL: Final = {head: Scaling(1.0, (0.0,) * len(labels)) for head, labels in HEADS.items()}


class BundleError(Exception):
    """A bundle that cannot be trusted or read; the message is one sentence that names the file."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which probability on a verdict is given; below it the more cautious label stands."""

    refusal: float = 0.5  # partial + full; below: answer
    harmful: float = 0.5  # below: the likelier of benign and sensitive
    topic: float = 0.3  # below: "other"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of bundle.json."""

    version: str
    lengths: Lengths
    calibration: dict[str, Scaling] = field(default_factory=lambda: dict(NEUTRAL))
    thresholds: Thresholds = field(default_factory=Thresholds)
    operating_points: dict[str, dict[str, float]] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest:
    """Read bundle.json and check its format, its labels and the hash of every file it lists."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"the bundle folder {folder} does not exist")
    try:
        content = orjson.loads(_bytes(path))
        if (found := content["format"]) != FORMAT:
            raise BundleError(f"{path} has bundle format {found!r}, this version reads format {FORMAT}")
        if {head: tuple(labels) for head, labels in content["labels"].items()} != HEADS:
            raise BundleError(f"{path} lists other labels than this version scores")
        manifest = Manifest(
            version=str(content["version"]),
            lengths=Lengths(**content["lengths"]),
            calibration={
                head: Scaling(float(entry["temperature"]), tuple(map(float, entry["bias"])))
                for head, entry in content["calibration"].items()
            },
            thresholds=Thresholds(**content["thresholds"]),
            operating_points=content["operating_points"],
            sha256=dict(content["sha256"]),
            training=content["training"],
        )
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} lacks or garbles a field: {error!r}") from error
    _check(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write bundle.json with the present files' hashes; returns the manifest as written."""
    names = [name for name in (MODEL, TOKENIZER, CARD) if (folder / name).is_file()]
    manifest = replace(manifest, sha256={name: digest(folder / name) for name in names})
    content = {"format": FORMAT, "labels": HEADS, **asdict(manifest)}
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    (folder / MANIFEST).write_bytes(orjson.dumps(content, option=options))
    return manifest


def digest(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    return hashlib.sha256(_bytes(path)).hexdigest()


def _check(folder: Path, manifest: Manifest) -> None:
    for head, labels in HEADS.items():
        scaling = manifest.calibration.get(head)
        if scaling is None or len(scaling.bias) != len(labels) or scaling.temperature <= 0:
            raise BundleError(f"{folder / MANIFEST} has no usable calibration for the head {head}")
    for name in (MODEL, TOKENIZER):
        if name not in manifest.sha256:
            raise BundleError(f"{folder / MANIFEST} lists no hash for {name}")
    for name, expected in manifest.sha256.items():
        if digest(folder / name) != expected:
            raise BundleError(
                f"{folder / name} does not match the hash in {MANIFEST}; it was changed or damaged"
            )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
