"""The bounded copy of a body: references while it fits, the head and the tail when it does not.

Invariant: at most `limit` bytes are held, in at most `_MANY` pieces; `total` counts every byte that passed.
Pieces are kept by reference and joined once, when the copy is taken; only a body in very many small pieces
is joined earlier, because a piece of two bytes costs forty to keep. Over the limit the tail is copied along.
"""

from __future__ import annotations

from typing import Final

from proxy.words.exchange import BoundedCopy

_MANY: Final = 1024


class Budget:
    """Bytes that all unfinished copies of one worker hold together."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Tee:
    """Collects one body. Half of the limit is for the head, half for the tail.

    When the worker's budget is spent the copy is given up: nothing is held from then on, bytes still count.
    """

    __slots__ = ("_budget", "_head", "_held", "_limit", "_parts", "_tail", "given_up", "total")

    def __init__(self, limit: int, budget: Budget) -> None:
        self._limit = limit
        self._budget = budget
        self._parts: list[bytes] = []
        self._head = b""
        self._tail: bytearray | None = None
        self._held = 0
        self.total = 0
        self.given_up = False

    def add(self, piece: bytes) -> None:
        """One piece. Nothing may be added after `take` or `release`."""
        self.total += len(piece)
        if self.given_up:
            return
        if self.total <= self._limit:
            self._parts.append(piece)
            if len(self._parts) > _MANY:
                self._parts = [b"".join(self._parts)]
            self._hold(self._held + len(piece))
        else:
            self._slide(piece)

    def extend(self, pieces: list[bytes]) -> None:
        """`add` for all the pieces of one read."""
        size = sum(map(len, pieces))
        if self.total + size <= self._limit and not self.given_up:
            self.total += size
            self._parts += pieces
            if len(self._parts) > _MANY:
                self._parts = [b"".join(self._parts)]
            self._hold(self._held + size)
        else:
            for piece in pieces:
                self.add(piece)

    def _slide(self, piece: bytes) -> None:
        """Over the limit: the head is frozen, the tail slides along."""
        half = self._limit // 2
        if self._tail is None:
            whole = b"".join((*self._parts, piece))
            self._parts = []
            cut = self._limit - half
            self._head = whole[:cut]
            self._tail = bytearray(whole[cut:][-half:] if half else b"")
        elif half:
            self._tail += piece[-half:]
            if len(self._tail) > half:
                del self._tail[: len(self._tail) - half]
        self._hold(len(self._head) + len(self._tail))

    def _hold(self, held: int) -> None:
        self._budget.used += held - self._held
        self._held = held
        if self._budget.used > self._budget.limit:
            self.release()
            self.given_up = True

    def take(self) -> BoundedCopy:
        """The copy as it stands; the budget is given back."""
        if self._tail is None:
            copy = BoundedCopy(b"".join(self._parts), b"", self.total)
        else:
            copy = BoundedCopy(self._head, bytes(self._tail), self.total)
        self.release()
        return copy

    def release(self) -> None:
        """Forget everything that is held."""
        self._budget.used -= self._held
        self._held = 0
        self._parts = []
        self._head = b""
        self._tail = None
