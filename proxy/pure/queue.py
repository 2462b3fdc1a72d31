"""A bounded queue that keeps a fair sample when it overflows.

Invariant: never more than `max_bytes` bytes nor `max_items` items wait. A newcomer is always admitted; room
is made by evicting uniformly at random among those waiting, so an item's survival depends on how long it
waits and on nothing in it: neither its size nor its content. (Refusing newcomers that do not fit would lose
the long ones, and long ones are answers: the refusal rate would rise with the load.)

Order is nearly oldest first. An eviction moves the newest item into the hole, so items only ever come
nearer to the front: nobody starves. Every operation is O(1) an item, amortised. Not thread-safe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

T = TypeVar("T")


class BoundedSample(Generic[T]):
    """`bytes` is what the waiting items weigh, as said by `offer`; the rng needs only `random()`."""

    __slots__ = ("_first", "_items", "_max_bytes", "_max_items", "_random", "bytes")

    def __init__(self, max_bytes: int, max_items: int, rng: Random) -> None:
        self._max_bytes = max_bytes
        self._max_items = max_items
        self._random = rng.random
        self._items: list[tuple[T, int] | None] = []  # None: taken, before `_first`
        self._first = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._items) - self._first

    def __iter__(self) -> Iterator[T]:
        """Go over the items that wait, nearly oldest first."""
        for entry in self._items[self._first :]:
            assert entry is not None
            yield entry[0]

    def offer(self, item: T, size: int) -> list[T]:
        """Admit an item and return the evicted ones; an item larger than `max_bytes` comes straight back."""
        if size > self._max_bytes or self._max_items < 1:
            return [item]
        evicted = self._shrink(self._max_bytes - size, self._max_items - 1)
        self._items.append((item, size))
        self.bytes += size
        return evicted

    def take(self, count: int) -> list[T]:
        """Remove and return up to `count` items."""
        stop = min(self._first + count, len(self._items))
        taken: list[T] = []
        for index in range(self._first, stop):
            entry = self._items[index]
            assert entry is not None
            self._items[index] = None
            self.bytes -= entry[1]
            taken.append(entry[0])
        self._first = stop
        if self._first * 2 >= len(self._items):  # each item is moved at most once for each one taken
            del self._items[: self._first]
            self._first = 0
        return taken

    def resize(self, max_bytes: int, max_items: int) -> list[T]:
        """Change the bounds and return what no longer fits."""
        self._max_bytes, self._max_items = max_bytes, max_items
        return self._shrink(max_bytes, max_items)

    def _shrink(self, to_bytes: int, to_items: int) -> list[T]:
        evicted: list[T] = []
        items = self._items
        while (waiting := len(items) - self._first) and (self.bytes > to_bytes or waiting > to_items):
            hole = self._first + int(self._random() * waiting)
            entry, last = items[hole], items.pop()
            if hole < len(items):
                items[hole] = last
            assert entry is not None
            self.bytes -= entry[1]
            evicted.append(entry[0])
        return evicted
