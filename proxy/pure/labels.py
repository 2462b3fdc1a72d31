"""Free names become label values only through these: each holds a bounded set for the process's life.

A label value once given out stays: lowering a limit stops newcomers, it does not rename old series.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OTHER: Final = "other"
UNKNOWN: Final = "unknown"
NONE: Final = "none"
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}")


class ModelNames:
    """Model names: the allow-list or, without one, the first `limit` that a successful exchange named."""

    def __init__(self, allowed: Iterable[str] = (), limit: int = 20) -> None:
        self._seen: set[str] = set()
        self.configure(allowed, limit)

    def configure(self, allowed: Iterable[str], limit: int) -> None:
        self._allowed = frozenset(allowed)
        self._limit = limit

    def label(self, name: str, *, admit: bool) -> str:
        """Return the name, `other` or `unknown`. `admit`: an unseen name may take one of the free places.

        Admit only names of exchanges that the upstream answered well, or anyone could use up the places.
        """
        if not name:
            return UNKNOWN
        if self._allowed:
            return name if name in self._allowed else OTHER
        if name in self._seen:
            return name
        if admit and len(self._seen) < self._limit and _MODEL.fullmatch(name):
            self._seen.add(name)
            return name
        return OTHER


class SystemPrompts:
    """System prompts: named in the configuration, else the first `limit` by the start of their hash."""

    def __init__(self, named: Mapping[str, str] | None = None, limit: int = 50) -> None:
        self._seen: set[str] = set()
        self._last, self._digest = "", ""
        self.configure(named or {}, limit)

    def configure(self, named: Mapping[str, str], limit: int) -> None:
        """`named` maps a name to the first 12 hex digits of a prompt's SHA-256."""
        self._names = {digest: name for name, digest in named.items()}
        self._limit = limit

    def label(self, text: str, *, admit: bool) -> str:
        """Return the name or hash of a system prompt, `other`, or `none` without one."""
        if not text:
            return NONE
        if text is not self._last:  # the choices of one response share their system prompt
            self._last, self._digest = text, digest_of(text)
        digest = self._digest
        if digest in self._names:
            return self._names[digest]
        if digest in self._seen:
            return digest
        if admit and len(self._seen) < self._limit:
            self._seen.add(digest)
            return digest
        return OTHER


def digest_of(text: str) -> str:
    """Return the first 12 hex digits of the SHA-256 of the UTF-8 text (lone surrogates kept as they are)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
