"""OpenAI's API: chat completions, completions, responses, embeddings, and templates for chats."""

from __future__ import annotations

from server.api.family import ErrorShape, Family
from server.api.openai import embeddings, infill, template
from server.api.openai.batches import router as batches
from server.api.openai.batches.schemas import NewBatch
from server.api.openai.chat import CHAT_COMPLETIONS
from server.api.openai.completions import COMPLETIONS
from server.api.openai.conversations import router as conversations
from server.api.openai.conversations.bodies import ChangedConversation, NewConversation, NewItems
from server.api.openai.count_tokens import counting
from server.api.openai.errors import error_body, error_frame
from server.api.openai.files import router as files
from server.api.openai.responses import compact, create, input_tokens, retrieve, websocket
from server.api.openai.responses.schemas.request import CompactRequest, ResponsesRequest
from server.api.openai.schemas.embeddings import EmbeddingRequest
from server.api.openai.schemas.error import ErrorBody
from server.api.openai.schemas.infill import InfillRequest
from server.api.openai.schemas.template import TemplateRequest

FAMILY = Family(
    errors=ErrorShape(body=error_body, frame=error_frame, schema=ErrorBody),
    operations=(CHAT_COMPLETIONS, COMPLETIONS),
    routers=(
        counting(CHAT_COMPLETIONS, COMPLETIONS),
        embeddings.router,
        template.router,
        infill.router,
        create.router,
        input_tokens.router,
        compact.router,
        websocket.router,
        retrieve.router,
        conversations.router,
        files.router,
        batches.router,
    ),
    bodies=(
        EmbeddingRequest,
        TemplateRequest,
        InfillRequest,
        ResponsesRequest,
        CompactRequest,
        NewConversation,
        ChangedConversation,
        NewItems,
        NewBatch,
    ),
)
