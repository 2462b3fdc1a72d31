"""When an error is a filter's block: OpenAI, Azure, LiteLLM and those who copy them.

They answer a blocked prompt with an HTTP error (or an error event in a stream) whose code says so; Azure
adds a verdict for each harm, in an `innererror` that LiteLLM moves elsewhere.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pure.formats.access import as_dict, as_str, dicts
from proxy.words.exchange import NativeSignal

BLOCK_CODES: Final = frozenset(
    {
        "content_filter",  # Azure
        "content_policy_violation",  # OpenAI, LiteLLM
        "image_content_policy_violation",
        "invalid_prompt",  # OpenAI: the prompt was flagged by the usage policy
        "bio_policy",
        "misalignment_policy_violation",
        "data_inspection_failed",  # Alibaba's OpenAI dialect
        "ResponsibleAIPolicyViolation",  # Azure's inner code, all that is left of it behind LiteLLM
    }
)


def filtered(results: object) -> str | None:
    """The harms that `content_filter_results` marks as filtered ("hate,violence"); None if none is."""
    harms = [
        harm
        for harm, verdict in as_dict(results).items()
        if any(item.get("filtered") is True for item in dicts(verdict))  # blocklists are a list of verdicts
    ]
    return ",".join(sorted(harms)) if harms else None


def blocked(error: dict[str, Any]) -> NativeSignal | None:
    inner = as_dict(error.get("innererror"))
    inner = inner or as_dict(as_dict(error.get("provider_specific_fields")).get("innererror"))
    for code in (as_str(error.get("code")), as_str(error.get("type")), as_str(inner.get("code"))):
        if code in BLOCK_CODES:
            harms = filtered(inner.get("content_filter_result")) or filtered(
                inner.get("content_filter_results")
            )
            return NativeSignal(
                "provider_block", f"error.code={code}", harms or "", as_str(error.get("message"))
            )
    return None
