"""Chat completions on the wire, whole and in chunks.

They are written with ``exclude_unset``: a field that was set is written, null included; one that
was not is absent. OpenAI's clients tell the two apart.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from server.api.openai.schemas.usage import CompletionUsage

ChatFinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class TopLogprob(BaseModel):
    """One of the most probable tokens; ``bytes`` may be part of a UTF-8 character."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(TopLogprob):
    """A generated token with its alternatives."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Log-probabilities of an answer's content."""

    content: list[ChatTokenLogprob] | None
    refusal: None


class FunctionCallOut(BaseModel):
    """The function to call; ``arguments`` is JSON text."""

    name: str
    arguments: str


class ToolCallOut(BaseModel):
    """A tool call of the answer."""

    id: str
    type: Literal["function"]
    function: FunctionCallOut


class CustomCall(BaseModel):
    """The free-form tool to call, and its input."""

    name: str
    input: str


class CustomCallOut(BaseModel):
    """A call of a free-form tool."""

    id: str
    type: Literal["custom"]
    custom: CustomCall


class AnswerMessage(BaseModel):
    """The assistant's message."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str = ""
    tool_calls: tuple[ToolCallOut | CustomCallOut, ...] = ()
    function_call: FunctionCallOut | None = None


class ChatChoice(BaseModel):
    """One of the ``n`` answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason


class ChatCompletion(BaseModel):
    """The answer to a request without ``stream``."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class FunctionCallDelta(BaseModel):
    """New text of a call's arguments; ``name`` only in the first piece."""

    name: str = ""
    arguments: str


class CustomCallDelta(BaseModel):
    """New text of a free-form tool's input; ``name`` only in the first piece."""

    name: str = ""
    input: str


class ToolCallDelta(BaseModel):
    """A piece of a tool call; ``id`` and ``type`` only in the first."""

    index: int
    id: str = ""
    type: Literal["function", "custom"] = "function"
    function: FunctionCallDelta = FunctionCallDelta(arguments="")
    custom: CustomCallDelta = CustomCallDelta(input="")


class ChatDelta(BaseModel):
    """New parts of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    function_call: FunctionCallDelta = FunctionCallDelta(arguments="")


class ChatChunkChoice(BaseModel):
    """News of answer ``index``."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason | None


class ChatCompletionChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | None = None
