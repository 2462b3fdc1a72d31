"""The log: structlog, one line an event, on standard error. Nothing here is global: the logger is passed on.

Losing the log must not lose traffic, so a write that fails (closed pipe, full disk) is swallowed. Callers
pass facts, never content; of an exception they pass `place(error)`, because a message may quote its input.
"""

from __future__ import annotations

import logging
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Protocol, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.words.config import Log

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Logger(Protocol):
    """What the rest of the house uses of structlog's bound logger."""

    def bind(self, **facts: object) -> Logger: ...
    def debug(self, event: str, **facts: object) -> object: ...
    def info(self, event: str, **facts: object) -> object: ...
    def warning(self, event: str, **facts: object) -> object: ...
    def error(self, event: str, **facts: object) -> object: ...


class _Stream:
    """A text stream that never raises: see above."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


def configure(section: Log, stream: TextIO | None = None) -> Logger:
    """Return a logger as the configuration wants it: `time` (UTC), `level`, `event`, then the facts."""
    colours = stream is None and sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=colours)
        if section.format == "console"
        else structlog.processors.JSONRenderer(default=str)
    )
    logger = structlog.wrap_logger(
        structlog.PrintLogger(cast("TextIO", _Stream(stream or sys.stderr))),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[section.level]),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast("Logger", logger.bind())


def place(error: BaseException) -> str:
    """Say where an exception came from without its message: `KeyError at openai_chat.py:41 in parse`."""
    kind, trace = type(error).__name__, error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return kind
    code = trace.tb_frame.f_code
    return f"{kind} at {PurePath(code.co_filename).name}:{trace.tb_lineno} in {code.co_name}"
