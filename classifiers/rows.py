"""One row of training data, its family and its split.

Invariant: a family (prompts that open alike once normalised) lies in one split only, whatever source or
response it came with; so nothing that was trained on is measured on in other words.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FAMILY_WORDS = 8
SPLITS = ("train", "validation", "test")


class DataError(Exception):
    """The data or an earlier step's output is missing or unreadable; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt, perhaps a response, and the labels that somebody gave; None means not labelled."""

    id: str
    source: str
    prompt: str
    response: str | None
    outcome: str | None
    prompt_class: str | None
    topic: str | None
    labelled_by: str
    weight: float
    split: str


def normalised(text: str) -> str:
    """Return the words of a text, lower case, without punctuation or repeated blanks."""
    plain = unicodedata.normalize("NFKD", text.encode("utf-8", "replace").decode("utf-8")).lower()
    return " ".join(re.findall(r"\w+", plain))


def family(prompt: str) -> str:
    """Return the key of a prompt's family: its first words, which re-wordings of one request share."""
    words = normalised(prompt).split()[:FAMILY_WORDS]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def split_of(key: str, *, test: float = 0.1, validation: float = 0.1) -> str:
    """Return the split of a key, by its hash alone: stable over runs, machines and added rows."""
    place = int(hashlib.sha256(f"split:{key}".encode()).hexdigest()[:12], 16) / 16**12
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"


def without_duplicates(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows whose normalised texts were not seen before; the first (most trusted) one stays."""
    seen: set[tuple[str, str | None]] = set()
    for row in rows:
        response = None if row.response is None else normalised(row.response)[:400]
        key = (normalised(row.prompt)[:400], response)
        if key not in seen:
            seen.add(key)
            yield row


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote; raises DataError where it is missing or broken."""
    return [Row(**entry) for entry in read_json_lines(path.read_bytes() if path.is_file() else None, path)]


def read_json_lines(content: bytes | None, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file's content (None: the file is missing)."""
    if content is None:
        raise DataError(f"{path} is missing")
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise DataError(f"line {number} of {path} is not JSON: {error}") from error
