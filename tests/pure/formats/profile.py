"""How the property tests run: the same examples every time, judged by their result and not by the clock."""

from __future__ import annotations

from typing import Final

from hypothesis import HealthCheck, settings

STEADY: Final = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
