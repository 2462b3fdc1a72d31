"""The bounded queue keeps its bounds, loses nothing uncounted, and favours nobody."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from proxy.pure.queue import BoundedSample

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 60)),
        st.tuples(st.just("take"), st.integers(0, 5)),
        st.tuples(st.just("resize"), st.integers(0, 100)),
    ),
    max_size=200,
)


@given(OPERATIONS, st.integers(0, 2**32))
def test_bounds_hold_and_every_item_leaves_exactly_once(operations: list[tuple[str, int]], seed: int) -> None:
    max_bytes, max_items = 100, 7
    queue: BoundedSample[int] = BoundedSample(max_bytes, max_items, Random(seed))
    sizes: dict[int, int] = {}
    left: list[int] = []
    for number, (what, value) in enumerate(operations):
        if what == "offer":
            sizes[number] = value
            gone = queue.offer(number, value)
            assert (number in gone) == (value > max_bytes)
            left += gone
        elif what == "take":
            left += queue.take(value)
        else:
            max_bytes, max_items = value, 1 + value % 7
            left += queue.resize(max_bytes, max_items)
        assert queue.bytes == sum(sizes[item] for item in queue) <= max_bytes
        assert len(queue) == len(list(queue)) <= max_items
    left += queue.take(len(queue))
    assert sorted(left) == sorted(sizes)
    assert queue.bytes == 0


def test_without_overload_the_order_is_oldest_first() -> None:
    queue: BoundedSample[int] = BoundedSample(10_000, 1000, Random(1))
    for item in range(500):
        queue.offer(item, 1)
    assert queue.take(3) + queue.take(300) + queue.take(1000) == list(range(500))


def test_the_newcomer_is_admitted_whatever_it_displaces() -> None:
    queue: BoundedSample[str] = BoundedSample(100, 100, Random(1))
    for _ in range(50):
        queue.offer("small", 2)
    assert queue.offer("large", 100) == ["small"] * 50
    assert list(queue) == ["large"]


def test_an_item_larger_than_the_queue_comes_straight_back_and_displaces_nobody() -> None:
    queue: BoundedSample[str] = BoundedSample(100, 100, Random(1))
    queue.offer("small", 2)
    assert queue.offer("monster", 101) == ["monster"]
    assert list(queue) == ["small"]


def test_survival_under_overload_does_not_depend_on_size() -> None:
    rng = Random(7)
    queue: BoundedSample[bool] = BoundedSample(20_000, 10_000, Random(8))
    survivors: list[bool] = []
    for number in range(60_000):
        large = rng.random() < 0.5
        queue.offer(large, 400 if large else 20)
        if number % 10 == 9:
            survivors += queue.take(1)
    share = sum(survivors) / len(survivors)
    assert len(survivors) == 6000
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / len(survivors))


def test_nobody_starves_an_item_is_gone_after_as_many_takes_as_it_had_neighbours() -> None:
    queue: BoundedSample[int] = BoundedSample(10_000, 50, Random(3))
    entered: dict[int, int] = {}
    for takes in range(2000):
        for item in range(takes * 10, takes * 10 + 10):
            entered[item] = takes
            for gone in queue.offer(item, 1):
                del entered[gone]
        for taken in queue.take(1):
            del entered[taken]
        assert takes - min(entered.values()) <= 50
