"""How much memory a process takes at its peak, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


class Peak:
    """`with Peak(pid) as peak: …`, then `peak.grown` is what the peak lies above the start, in bytes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self.grown = 0

    def _read(self, key: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {key} for {self._folder}")

    def __enter__(self) -> Peak:
        (self._folder / "clear_refs").write_text("5")  # the peak begins anew
        self._start = self._read("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.grown = max(0, self._read("VmHWM") - self._start)
