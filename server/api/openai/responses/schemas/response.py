"""Responses on the wire; written with ``exclude_unset``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from server.api.openai.schemas.chat_response import ChatTokenLogprob

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class OutputText(BaseModel):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any]
    logprobs: list[ChatTokenLogprob]


class OutputMessage(BaseModel):
    """A message of the assistant."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]


class ReasoningPart(BaseModel):
    """A piece of reasoning, or of its summary."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class OutputReasoning(BaseModel):
    """Reasoning; ``encrypted_content`` brings it back in a later request."""

    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: list[ReasoningPart]
    content: list[ReasoningPart]
    encrypted_content: str | None


class FunctionCall(BaseModel):
    """A call of a function; ``arguments`` is JSON text, ``namespace`` its tool's, if it has one."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    namespace: str = ""


class CustomToolCall(BaseModel):
    """A call of a free-form tool."""

    id: str
    type: Literal["custom_tool_call"]
    status: ItemStatus
    call_id: str
    name: str
    input: str
    namespace: str = ""


class OutputCompaction(BaseModel):
    """A summary that stands for the conversation before it."""

    id: str
    type: Literal["compaction"]
    encrypted_content: str


OutputItem = OutputMessage | OutputReasoning | FunctionCall | CustomToolCall | OutputCompaction


class InputTokensDetails(BaseModel):
    """Of the prompt's tokens: those found in the prefix cache, and those computed and put there."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(BaseModel):
    """Of the answer's tokens."""

    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """The cost of a response in tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFailure(BaseModel):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(BaseModel):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"]


class ConversationId(BaseModel):
    """The conversation that a response belongs to."""

    id: str


class ResponseObject(BaseModel):
    """A response: its status, its output, and the settings it was made with."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    instructions: str | None
    tools: list[dict[str, Any]]
    tool_choice: Any
    parallel_tool_calls: bool
    text: dict[str, Any]
    reasoning: dict[str, Any]
    max_output_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_logprobs: int
    truncation: Literal["auto", "disabled"]
    metadata: dict[str, str]
    store: bool
    background: bool
    previous_response_id: str | None
    conversation: ConversationId | None
    prompt_cache_key: str | None
    user: str | None


class InputTokens(BaseModel):
    """How many tokens a request's prompt has."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class DeletedResponse(BaseModel):
    """Says that a response is gone."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ItemList(BaseModel):
    """A page of items; both ids are empty where the page is."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class Compaction(BaseModel):
    """A conversation made shorter: the users' messages, and an item that stands for the rest."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[dict[str, Any]]
    usage: ResponseUsage
