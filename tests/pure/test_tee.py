"""The bounded copy against a trivial model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.pure.tee import Budget, Tee

pieces = st.lists(st.binary(max_size=40), max_size=60)


@given(pieces, st.integers(0, 200), st.booleans())
def test_head_and_tail_are_exactly_the_ends_of_the_body(
    parts: list[bytes], limit: int, together: bool
) -> None:
    budget = Budget(1 << 20)
    tee = Tee(limit, budget)
    if together:
        tee.extend(parts)
    else:
        for part in parts:
            tee.add(part)
            assert budget.used <= limit
    body = b"".join(parts)
    assert budget.used == min(len(body), limit)
    copy = tee.take()
    half = limit // 2
    if len(body) <= limit:
        assert (copy.head, copy.tail) == (body, b"")
    else:
        assert copy.head == body[: limit - half]
        assert copy.tail == body[len(body) - half :]
    assert copy.total == len(body)
    assert copy.truncated == (len(body) > limit)
    assert budget.used == 0


@given(pieces, st.integers(0, 200), st.integers(0, 100))
def test_a_copy_over_the_budget_is_given_up_and_holds_nothing(
    parts: list[bytes], limit: int, allowed: int
) -> None:
    budget = Budget(allowed)
    tee = Tee(limit, budget)
    most = 0
    for part in parts:
        tee.add(part)
        assert budget.used <= allowed
        most = max(most, min(tee.total, limit))
        if tee.given_up:
            assert budget.used == 0
    assert tee.given_up == (most > allowed)
    assert tee.total == sum(map(len, parts))
    tee.release()
    assert budget.used == 0


@given(st.lists(pieces, min_size=1, max_size=6), st.integers(0, 300))
def test_copies_share_one_budget_and_give_all_of_it_back(bodies: list[list[bytes]], allowed: int) -> None:
    budget = Budget(allowed)
    tees = [Tee(100, budget) for _ in bodies]
    for tee, parts in zip(tees, bodies, strict=True):
        tee.extend(parts)
        assert budget.used <= allowed
    for tee in tees:
        tee.take() if not tee.given_up else tee.release()
    assert budget.used == 0


def test_a_body_in_many_tiny_pieces_is_kept_in_few() -> None:
    tee = Tee(1 << 20, Budget(1 << 30))
    for _ in range(10_000):
        tee.add(b"ab")
    assert len(tee._parts) <= 1025
    tee.extend([b"ab"] * 5000)
    assert len(tee._parts) <= 1025
    assert tee.take().head == b"ab" * 15_000
