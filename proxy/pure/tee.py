"""The bounded copy of a body: references while it fits, the head and the tail when it does not.

Invariant: at most `limit` bytes plus one piece are held; `total` counts every byte that passed. Pieces are
kept by reference, never copied on the hot path; they are joined once, when the copy is taken.
"""

from __future__ import annotations

from collections import deque

from proxy.words.exchange import BoundedCopy


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

    __slots__ = ("_budget", "_head", "_held", "_limit", "_parts", "_tail", "_tail_size", "given_up", "total")

    def __init__(self, limit: int, budget: Budget) -> None:
        self._limit = limit
        self._budget = budget
        self._parts: list[bytes] = []
        self._head = b""
        self._tail: deque[bytes] | None = None
        self._tail_size = 0
        self._held = 0
        self.total = 0
        self.given_up = False

    def add(self, piece: bytes) -> None:
        size = len(piece)
        self.total += size
        if self.given_up:
            return
        if self.total <= self._limit:
            self._parts.append(piece)
            self._hold(self._held + size)
        else:
            self._slide(piece)

    def extend(self, pieces: list[bytes]) -> None:
        """`add` for all the pieces of one read."""
        size = sum(map(len, pieces))
        if self.total + size <= self._limit and not self.given_up:
            self.total += size
            self._parts += pieces
            self._hold(self._held + size)
        else:
            for piece in pieces:
                self.add(piece)

    def _slide(self, piece: bytes) -> None:
        """Over the limit: the head is frozen, the tail slides along."""
        half = self._limit // 2
        if self._tail is None:
            whole = b"".join(self._parts)
            self._parts = []
            cut = self._limit - half
            missing = max(0, cut - len(whole))
            self._head = whole[:cut] + piece[:missing]
            piece = piece[missing:]
            self._tail = deque((whole[cut:],))
            self._tail_size = len(whole) - cut if len(whole) > cut else 0
        tail = self._tail
        tail.append(piece)
        self._tail_size += len(piece)
        while len(tail) > 1 and self._tail_size - len(tail[0]) >= half:
            self._tail_size -= len(tail.popleft())
        self._hold(len(self._head) + self._tail_size)

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
            tail = b"".join(self._tail)
            copy = BoundedCopy(self._head, tail[max(0, len(tail) - self._limit // 2) :], self.total)
        self.release()
        return copy

    def release(self) -> None:
        """Forget everything that is held."""
        self._budget.used -= self._held
        self._held = 0
        self._parts = []
        self._head = b""
        self._tail = None
