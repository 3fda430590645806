"""Token usage on the wire, the same for all endpoints."""

from __future__ import annotations

from pydantic import BaseModel


class PromptTokensDetails(BaseModel):
    """Of the prompt's tokens; those of an image are without the markers around it."""

    cached_tokens: int
    image_tokens: int


class CompletionTokensDetails(BaseModel):
    """Of the answer's tokens."""

    reasoning_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class CompletionUsage(BaseModel):
    """The cost of a request in tokens; several answers add up, and their prompt counts once.

    Two fields are this server's own and only there if they are not empty: what of the request's
    schemas the answers were ``loosened`` from, and the ``violations`` of it that were found.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
    loosened: list[str] | None = None
    violations: list[str] | None = None
