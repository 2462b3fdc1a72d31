"""Capture and exchange: what the data side saw, and what it means.

A capture is raw and bounded; only the monitor turns it into exchanges. One capture holds several
exchanges when the request asked for several choices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Origin = Literal["live", "probe", "baseline"]
End = Literal[
    "complete",  # the upstream ended its message as its framing says
    "client_gone",  # the client left first; the upstream was cut off for it
    "upstream_broke",  # the upstream's connection ended in mid-message
    "upstream_silent",  # no byte for longer than the configured silence
]
ENDS: Final[tuple[End, ...]] = ("complete", "client_gone", "upstream_broke", "upstream_silent")


@dataclass(slots=True)
class BoundedCopy:
    """The first and the last bytes of a body. `total` counts all that passed, kept or not.

    `tail` is empty unless something between head and tail was left out.
    """

    head: bytes = b""
    tail: bytes = b""
    total: int = 0

    @property
    def truncated(self) -> bool:
        return self.total > len(self.head) + len(self.tail)


@dataclass(slots=True)
class Capture:
    """One request and its response as they passed, bounded, with credentials already cut out.

    Bodies are without transfer framing (no chunk headers) but still content-encoded. `path` has no query.
    Times are seconds; `finished_at` is Unix time. `first_byte_s` is None when no response body came.
    """

    id: str
    route: str
    format: str
    path: str
    status: int
    origin: Origin = "live"
    end: End = "complete"
    request_content_encoding: str = ""
    response_content_type: str = ""
    response_content_encoding: str = ""
    finished_at: float = 0.0
    duration_s: float = 0.0
    first_byte_s: float | None = None
    request: BoundedCopy = field(default_factory=BoundedCopy)
    response: BoundedCopy = field(default_factory=BoundedCopy)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation before the response; `role` as the provider calls it."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class NativeSignal:
    """The provider's own marker.

    `kind` says whose refusal it is: the model's own (`model_refusal`) or a filter's (`provider_block`).
    `marker` names the field that said so (`finish_reason=content_filter`), `category` is the provider's
    word for the harm, and `text` the refusal's or explanation's text where one is given apart.
    """

    kind: Literal["model_refusal", "provider_block"]
    marker: str
    category: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A capture parsed into neutral form.

    `prompt` is the last user turn's text; `conversation` holds every turn before the response, in order,
    the last user turn included, system prompts left out. `response` is response text only (no reasoning).
    `model` is the response's model, or the request's where the response names none.
    `complete` is False when the message broke off before the provider's own end marker.
    Token counts are the provider's; None where it gave none.
    """

    model: str
    prompt: str
    response: str
    request_model: str = ""
    system_prompt: str = ""
    conversation: tuple[Message, ...] = ()
    native: NativeSignal | None = None
    tool_calls: int = 0
    finish_reason: str = ""
    choice: int = 0
    complete: bool = True
    streamed: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
