"""Histogram bounds that two processes must agree on: a worker counts in them, the monitor exports them."""

from __future__ import annotations

from typing import Final

OVERHEAD_BUCKETS: Final[tuple[float, ...]] = (
    0.000_05,
    0.000_1,
    0.000_2,
    0.000_5,
    0.001,
    0.002,
    0.005,
    0.01,
    0.025,
    0.1,
    0.25,
    1.0,
)
"""Seconds that the proxy itself adds to an exchange; what is above the last bound counts as +Inf."""
