"""Every error that one floor may hand to another. Messages are one clear sentence; data rides along."""

from __future__ import annotations

from typing import Final, Literal

UnscoredCause = Literal[
    "not_a_conversation",  # an unknown path, method or content type: forwarded, nothing to score
    "unreadable",  # a body that is not what its format says
    "truncated",  # longer than the bounded copy, or broken off before its end
    "upstream_error",  # the API answered with an error of its own
    "empty",  # an exchange without any response text (and no tool call)
    "classifier_off",  # scoring is switched off in the configuration
    "classifier_unavailable",  # the bundle is missing or corrupt
    "error",  # our own fault: logged, counted, never raised further
]
UNSCORED_CAUSES: Final[tuple[UnscoredCause, ...]] = (
    "not_a_conversation",
    "unreadable",
    "truncated",
    "upstream_error",
    "empty",
    "classifier_off",
    "classifier_unavailable",
    "error",
)

DropCause = Literal[
    "valve_full",  # a worker's outbox is full: the monitor does not take captures fast enough
    "monitor_lost",  # sent, but the monitor died before it said that it had recorded them
    "queue_full",  # the monitor's queue is full: scoring is slower than the traffic
    "too_large",  # a single capture larger than the valve may hold
    "copies_full",  # the unfinished copies of a worker together were over their limit
]
DROP_CAUSES: Final[tuple[DropCause, ...]] = (
    "valve_full",
    "monitor_lost",
    "queue_full",
    "too_large",
    "copies_full",
)


class RefusalProxyError(Exception):
    """The root of all our own errors."""


class ConfigError(RefusalProxyError):
    """A configuration that cannot be used; the message names the key and the remedy."""


class Unscored(RefusalProxyError):  # noqa: N818 - it is a verdict of "not scored", not a fault
    """A capture that cannot become an exchange, with the cause that is counted for it."""

    def __init__(self, cause: UnscoredCause, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause: UnscoredCause = cause
        self.detail = detail


class Unreadable(Unscored):
    """A body that is not what its format says. The only error that parsing raises by itself.

    The detail never holds any text of the body: it may be logged.
    """

    def __init__(self, detail: str = "") -> None:
        super().__init__("unreadable", detail)
