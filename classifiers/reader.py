"""Text in, token ids out; the same code reads for training and for scoring, so they cannot drift.

Two readings of an exchange go through one encoder:

    prompt   [CLS] prompt [SEP]                      token types 0           → prompt class, topic, embedding
    pair     [CLS] prompt [SEP] response [SEP]       token types 0, then 1   → outcome

A long text is read at its head and its tail with an ellipsis between: refusals open a response, and a
withheld part is mostly announced at its end. Text is clipped by characters before it is tokenised, so
that a megabyte costs no more than a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Ids = NDArray[np.int64]

CHARS_PER_TOKEN = 12  # English has 4 to 5, so a clip at 12 never decides what is read of plain text
SLACK_CHARS = 256


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many tokens of each text are read, head and tail apart (special tokens not counted)."""

    prompt_head: int = 64
    prompt_tail: int = 32
    pair_prompt_head: int = 24
    pair_prompt_tail: int = 16
    response_head: int = 88
    response_tail: int = 40


@dataclass(frozen=True, slots=True)
class Reading:
    """Token ids and token types of one input of the encoder, both of shape (length,), int64."""

    ids: Ids
    types: Ids


def clean(text: str, head: int, tail: int) -> str:
    """Return text that any tokenizer takes: at most about head + tail tokens' worth of characters.

    Lone surrogates become "?" (they cannot be encoded), runs of white space one blank.
    """
    head_chars, tail_chars = head * CHARS_PER_TOKEN + SLACK_CHARS, tail * CHARS_PER_TOKEN + SLACK_CHARS
    if len(text) > head_chars + tail_chars:
        text = f"{text[:head_chars]} … {text[-tail_chars:]}"
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


class Reader:
    """A tokenizer with input lengths. Not thread-safe to configure, safe to call."""

    def __init__(self, tokenizer: Tokenizer, lengths: Lengths) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.lengths = lengths
        self._tokenizer = tokenizer
        self._cls, self._sep, self._gap = (self._id(token) for token in ("[CLS]", "[SEP]", "…"))

    @classmethod
    def load(cls, path: Path, lengths: Lengths) -> Reader:
        """Load a `tokenizer.json`; raises whatever `tokenizers` raises for a file it cannot read."""
        return cls(Tokenizer.from_file(str(path)), lengths)

    def prompt(self, prompt: str) -> Reading:
        """Return the reading of a prompt alone, at most prompt_head + prompt_tail + 3 tokens."""
        tokens = self._tokens(prompt, self.lengths.prompt_head, self.lengths.prompt_tail)
        return self._reading([self._cls, *tokens, self._sep], 0)

    def pair(self, prompt: str, response: str) -> Reading:
        """Return the reading of prompt and response together."""
        size = self.lengths
        first = self._tokens(prompt, size.pair_prompt_head, size.pair_prompt_tail)
        second = self._tokens(response, size.response_head, size.response_tail)
        return self._reading([self._cls, *first, self._sep, *second, self._sep], len(second) + 1)

    def _tokens(self, text: str, head: int, tail: int) -> list[int]:
        ids: list[int] = self._tokenizer.encode(clean(text, head, tail), add_special_tokens=False).ids
        return ids if len(ids) <= head + tail + 1 else [*ids[:head], self._gap, *ids[-tail:]]

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no {token} token")
        return int(found)

    @staticmethod
    def _reading(ids: list[int], second: int) -> Reading:
        types = np.zeros(len(ids), dtype=np.int64)
        if second:
            types[-second:] = 1
        return Reading(np.asarray(ids, dtype=np.int64), types)


def pad(readings: Sequence[Reading]) -> tuple[Ids, Ids, Ids]:
    """Return (ids, types, mask), each (n, longest) int64, padded with zeros ([PAD] is 0)."""
    longest = max(len(reading.ids) for reading in readings)
    ids, types, mask = (np.zeros((len(readings), longest), dtype=np.int64) for _ in range(3))
    for row, reading in enumerate(readings):
        length = len(reading.ids)
        ids[row, :length], types[row, :length], mask[row, :length] = reading.ids, reading.types, 1
    return ids, types, mask
