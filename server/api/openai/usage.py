"""Token usage as OpenAI's clients read it."""

from __future__ import annotations

from collections.abc import Sequence

from server.api.openai.schemas.usage import (
    CompletionTokensDetails,
    CompletionUsage,
    PromptTokensDetails,
)
from server.core.errors import Locator, path_text
from server.core.events import Usage


def completion_usage(
    total: Usage, loosened: Sequence[Locator] = (), violations: Sequence[Locator] = ()
) -> CompletionUsage:
    """The usage of a whole request.

    ``loosened`` and ``violations`` are paths into the body.
    """
    own = {"loosened": loosened, "violations": violations}
    said = {name: [path_text(path) for path in paths] for name, paths in own.items() if paths}
    return CompletionUsage(
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        total_tokens=total.prompt_tokens + total.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=total.cached_tokens, image_tokens=total.image_tokens
        ),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=total.reasoning_tokens,
            accepted_prediction_tokens=total.accepted_prediction_tokens,
            rejected_prediction_tokens=total.rejected_prediction_tokens,
        ),
        **said,
    )
