"""Where the demo speaks: a live table on a terminal, plain lines elsewhere, silence once nobody reads.

A closed terminal or pipe is an event here (`when_gone`), not an exception that tears through the show.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.live import Live

from proxy.assembly.demo.table import Dashboard, View, plain_line

_PLAIN_LINE_S: Final = 5.0


class Terminal(Console):
    """rich's console, except that a reader who is gone (`demo | head`) does not end the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


class Screen:
    """What the spectator sees: a live table on a terminal, plain lines elsewhere, nothing once it is gone."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.when_gone: Callable[[], None] = lambda: None
        self._live: Live | None = None
        self._said_at = float("-inf")

    def __enter__(self) -> Screen:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, screen=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()
            self._live = None

    def draw(self, view: View) -> None:
        if self._live is not None:
            with self._bearing_its_end():
                self._live.update(Dashboard(view), refresh=True)
        elif view.elapsed_s - self._said_at >= _PLAIN_LINE_S:
            self._said_at = view.elapsed_s
            self.say(plain_line(view))

    def say(self, *what: object) -> None:
        with self._bearing_its_end():
            # A pipe gets whole lines, a terminal lines that are broken between words.
            self.console.print(*what, markup=False, highlight=False, soft_wrap=not self.console.is_terminal)

    def gone(self) -> None:
        """Nobody reads any more: from here on everything goes nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # also for what Python itself flushes at its end
        self.console.quiet = True
        self.when_gone()

    @contextlib.contextmanager
    def _bearing_its_end(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.gone()
