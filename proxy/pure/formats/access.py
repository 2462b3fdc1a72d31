"""Reading JSON that may hold anything anywhere.

Nothing here raises on a wrong type: a list where an object belongs is an empty object, a number where text
belongs is no text. So the dialects read straight on, and only a body that is not JSON at all is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from proxy.words.errors import Unreadable

_MAX_COUNT: Final = 1 << 53
# A JSON escape: a whole surrogate pair, half of one (group 1), or any other.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_TEXT_PARTS: Final = frozenset({"", "text", "input_text", "output_text"})


def load(data: bytes) -> object:
    """JSON from bytes. Broken UTF-8 and half surrogates become U+FFFD, as in a browser.

    Raises Unreadable when it is not JSON, is nested too deeply, or is empty.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    mended = data.decode("utf-8-sig", "replace").encode()
    if _SURROGATE.search(mended):
        mended = _ESCAPE.sub(lambda m: rb"\ufffd" if m[1] else m[0], mended)
    try:
        return orjson.loads(mended)
    except orjson.JSONDecodeError:
        raise Unreadable("not JSON" if data.strip() else "an empty body") from None


def as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def as_str(value: object) -> str:
    return value if isinstance(value, str) else ""


def as_int(value: object) -> int | None:
    """A count: a whole number from 0 to 2**53, also when written as 12.0; else None."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT:
        return value
    return None


def total(*values: object) -> int | None:
    """The sum of those that are counts; None when none is."""
    counts = [count for count in map(as_int, values) if count is not None]
    return sum(counts) if counts else None


def dicts(value: object) -> Iterator[dict[str, Any]]:
    """The objects in a list; an object alone counts as a list of itself."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield item


def need_list(body: dict[str, Any], key: str) -> list[Any]:
    """The list under `key`, without which the format makes no sense. Raises Unreadable."""
    value = body.get(key)
    if not isinstance(value, list):
        raise Unreadable(f"the request has no list of {key}")
    return value


def part_text(part: object) -> str:
    """The text of one content part; "" for images, audio, files, thinking and calls."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        kind = as_str(part.get("type"))
        if kind == "refusal":
            return as_str(part.get("refusal"))
        if kind in _TEXT_PARTS:
            return as_str(part.get("text"))
    return ""


def text_of(content: object) -> str:
    """The text of a message's content: a string, one part, or a list of parts (joined by newlines)."""
    if isinstance(content, list):
        return "\n".join(filter(None, map(part_text, content)))
    return part_text(content)
