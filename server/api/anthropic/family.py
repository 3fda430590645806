"""Anthropic's API: messages, the count of their tokens, and models for its clients."""

from __future__ import annotations

from server.api.anthropic import batches, count_tokens, models
from server.api.anthropic.errors import error_body, error_frame, status
from server.api.anthropic.key_limits import rate_limit_headers
from server.api.anthropic.messages import MESSAGES
from server.api.anthropic.schemas.batches import NewMessageBatch
from server.api.anthropic.schemas.messages_request import CountTokensRequest
from server.api.anthropic.schemas.messages_response import ErrorBody
from server.api.family import ErrorShape, Family

FAMILY = Family(
    errors=ErrorShape(
        body=error_body,
        frame=error_frame,
        schema=ErrorBody,
        status=status,
        limits=rate_limit_headers,
    ),
    operations=(MESSAGES,),
    routers=(count_tokens.router, batches.router),
    variants=(models.router,),
    bodies=(CountTokensRequest, NewMessageBatch),
)
