"""What a response cost."""

from __future__ import annotations

from server.api.openai.responses.schemas.response import (
    InputTokensDetails,
    OutputTokensDetails,
    ResponseUsage,
)
from server.core.events import Usage


def response_usage(usage: Usage) -> ResponseUsage:
    """``usage`` on the wire."""
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.prompt_tokens - usage.cached_tokens,
        ),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
