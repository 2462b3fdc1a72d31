"""The script: what the bundled clients ask, what the bundled chatbot answers, and what that is by the rubric.

One JSON object a line in `corpus/*.jsonl`, written for this demo. The classifier has never seen it and must
not be trained on it: the demo compares the classifier with these labels, and that comparison is only worth
something on unseen text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, Self, cast

from proxy.words.verdict import Outcome, PromptClass, Reason

OLD_MODEL: Final = "demo-chat-1"
NEW_MODEL: Final = "demo-chat-2"
ALIAS: Final = "demo-chat"

Native = Literal["stop_refusal", "message_refusal", "content_filter", "prompt_filter"]
Fault = Literal["breaks_off", "overloaded", "server_error", "rate_limited"]

SYSTEM_PROMPTS: Final[dict[str, str]] = {
    "shop": "You are the shopping assistant of Alpenheim, an outdoor outfitter. Help with products, sizes, "
    "orders, delivery and returns (60 days). Be warm and brief. Do not discuss anything else.",
    "bank": "You answer questions of Norden Bank's private customers about accounts, cards, transfers and "
    "limits. You cannot see accounts. Decline, politely, whatever is not about banking.",
    "clinic": "You are the front desk of the Linden Street clinic. Answer organisational questions. "
    "For medical questions, offer an appointment.",
}
OWN_TOPIC: Final = "returns_refunds"
OWN_TOPIC_EXAMPLES: Final = (
    "I would like to return an item I bought, how does that work?",
    "Where is my refund?",
    "Can I exchange this for a different size?",
    "The product arrived damaged and I want my money back",
    "How long do I have to send something back?",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A scripted response and what it is by the rubric."""

    text: str
    outcome: Outcome
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One prompt. `update` is what the newer, over-cautious model answers, where it answers differently.

    `earlier` holds the turns before, the user's first. `hard_negative` marks an answer that looks like a
    refusal (a rejection letter that was asked for). `native` and `fault` say how the API misbehaves.
    """

    id: str
    topic: str
    prompt_class: PromptClass
    prompt: str
    answer: Answer
    update: Answer | None = None
    own_topic: str = ""
    hard_negative: bool = False
    system: str = ""
    native: Native | None = None
    fault: Fault | None = None
    earlier: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        known = {key: row.pop(key) for key in _PLAIN if key in row}
        answer = Answer(row.pop("response"), row.pop("outcome"), row.pop("reason", None))
        update = row.pop("update", None)
        earlier = tuple(row.pop("earlier", ()))
        if row:
            raise ValueError(f"{known['id']}: unknown keys {sorted(row)}")
        return cls(
            **known,
            answer=answer,
            update=Answer(update["response"], update["outcome"], "safety") if update else None,
            earlier=earlier,
        )

    def answer_of(self, model: str) -> Answer:
        return self.update if self.update is not None and model == NEW_MODEL else self.answer

    @property
    def topics(self) -> frozenset[str]:
        """Topics that count as right: the operator's own one is finer than the built-in one."""
        return frozenset({self.topic, self.own_topic} - {""})


_PLAIN: Final = (
    "id",
    "topic",
    "prompt_class",
    "prompt",
    "own_topic",
    "hard_negative",
    "system",
    "native",
    "fault",
)


@cache
def script() -> tuple[Line, ...]:
    """Every line, in the order of the files' names."""
    return tuple(_read())


def _read() -> Iterator[Line]:
    folder = resources.files("proxy.assembly.demo") / "corpus"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".jsonl"):
            for row in file.read_text(encoding="utf-8").splitlines():
                yield Line.from_json(cast("dict[str, Any]", json.loads(row)))
