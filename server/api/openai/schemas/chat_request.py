"""The body of ``POST /v1/chat/completions`` (OpenAI's published description plus our extras)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from server.api.generation_fields import ThinkingFields
from server.api.image_parts import MOST_IMAGES, ImageInput
from server.api.openai.schemas.base import GenerationFields
from server.api.openai.schemas.chat_parts import (
    MAX_PARTS,
    Content,
    ContentOrNone,
    Result,
    TextPart,
)
from server.api.openai.schemas.chat_tools import (
    MAX_TOOLS,
    AnyTool,
    FunctionChoice,
    OldFunction,
    ToolChoice,
    left_out,
)
from server.api.roles import usual_role
from server.api.spellings import respell
from server.api.tool_forms import usual_call
from server.api.validation import Opaque, Respelled, WireModel
from server.core.errors import path_text

MAX_MESSAGES = 10_000
MAX_TOP_LOGPROBS = 20


def _none_as_false(value: object) -> object:
    """A number of logprobs, as completions have it: 0 is none."""
    return False if value == 0 else value


AnswerLimit = Annotated[int, Field(ge=1)]


class Thought(Opaque):
    """An item of ``reasoning_details`` (OpenRouter) or ``thinking_blocks`` (LiteLLM).

    Sealed thoughts have no text.
    """

    text: str | None = None
    summary: str | None = None
    thinking: str | None = None


def _thoughts_text(value: object) -> object:
    """Thoughts that stand in an object, or in a list, as their text."""
    if isinstance(value, list):
        texts = [_thoughts_text(each) for each in value]
        return "".join(map(str, texts)) if all(isinstance(each, str) for each in texts) else value
    if not isinstance(value, dict):
        return value
    named = (value.get(name) for name in ("text", "content", "summary", "thinking"))
    return next((each for each in named if isinstance(each, str)), value)


Thoughts = Annotated[str | None, BeforeValidator(_thoughts_text)]


class FunctionCall(WireModel):
    """The call of a function; ``arguments`` is JSON text, or the object itself."""

    name: str
    arguments: str | dict[str, Any] | None = None


class FunctionToolCall(WireModel):
    """A call that the assistant made in an earlier turn; in Ollama's API it has no id."""

    type: Literal["function"] = "function"
    id: str | None = None
    function: FunctionCall
    index: int | None = None


class CustomCall(WireModel):
    """The call of a free-form tool."""

    name: str
    input: str


class CustomToolCall(WireModel):
    """A call of a free-form tool that the assistant made in an earlier turn."""

    type: Literal["custom"]
    id: str | None = None
    custom: CustomCall
    index: int | None = None


AnyCall = Annotated[
    Annotated[FunctionToolCall, Tag("function")] | Annotated[CustomToolCall, Tag("custom")],
    Discriminator(
        lambda call: "custom" if isinstance(call, dict) and "custom" in call else "function"
    ),
    BeforeValidator(usual_call),
]


class InstructionMessage(WireModel):
    """A system or developer message."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


Images = Annotated[list[str], Field(max_length=MOST_IMAGES)] | None
"""Images in Base64, as in Ollama's API; they stand before the content."""


class UserMessage(WireModel):
    """A user's turn."""

    role: Literal["user"]
    content: Content
    name: str | None = None
    images: Images = None


class AssistantMessage(WireModel):
    """An earlier answer, as clients echo it back."""

    role: Literal["assistant"]
    content: ContentOrNone = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: Thoughts = None
    reasoning: Thoughts = Field(None, description="Another name of ``reasoning_content``.")
    thinking: Thoughts = Field(None, description="Another name of ``reasoning_content``.")
    reasoning_details: list[Thought] | None = None
    thinking_blocks: list[Thought] | None = None
    tool_calls: list[AnyCall] | None = None
    function_call: FunctionCall | None = Field(None, description="The old form of a call.")
    audio: dict[str, Any] | None = Field(None, description="Unsupported; refused.")
    annotations: list[Any] | None = Field(None, description="Accepted and ignored.")
    prefix: bool | None = Field(
        None, description="DeepSeek's and Mistral's form of ``continue_final_message``."
    )
    partial: bool | None = Field(
        None, description="Moonshot's and Alibaba's form of ``continue_final_message``."
    )

    @property
    def begins_the_answer(self) -> bool:
        """Whether the answer is to go on where this message ends."""
        return bool(self.prefix or self.partial)


class ToolMessage(WireModel):
    """The result of a tool call; no content is an empty result.

    Without a ``tool_call_id`` it answers the first call without a result, of the tool ``name`` if
    it has one.
    """

    role: Literal["tool"]
    content: Result = None
    tool_call_id: str | None = None
    name: str | None = None
    tool_name: str | None = Field(None, description="Ollama's name of ``name``.")
    images: Images = None


class FunctionMessage(WireModel):
    """The result of a call, in its old form: it answers the last ``function_call``."""

    role: Literal["function"]
    content: Result = None
    name: str


ChatMessage = Annotated[
    InstructionMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage,
    Field(discriminator="role"),
    BeforeValidator(usual_role),
]


class Prediction(WireModel):
    """Text that the answer probably repeats."""

    type: Literal["content"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)]


class ConversationFields(ThinkingFields):
    """The fields that make the prompt of a chat."""

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for what other servers name differently."""
        return respell(body, cls)

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[AnyTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    functions: Annotated[list[OldFunction], Field(max_length=MAX_TOOLS)] | None = Field(
        None, description="The old form of ``tools``."
    )
    function_call: FunctionChoice | None = Field(
        None, description="The old form of ``tool_choice``."
    )
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = Field(
        None, description="Continue the last message, which is the assistant's, where it ends."
    )


class ChatCompletionRequest(GenerationFields, ConversationFields):
    """Parameters of a chat completion."""

    IGNORED: ClassVar[frozenset[str]] = frozenset(
        {
            "metadata",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
            "verbosity",
        }
    )
    UNSUPPORTED: ClassVar[frozenset[str]] = frozenset({"audio", "moderation", "web_search_options"})

    max_tokens: AnswerLimit | None = None
    max_completion_tokens: AnswerLimit | None = None
    logprobs: Annotated[bool, BeforeValidator(_none_as_false)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    prediction: Prediction | None = None
    modalities: list[Literal["text", "audio"]] | None = None

    # Without effect, so their values are not checked either.
    metadata: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    verbosity: Any = None

    audio: Any = None
    moderation: Any = None
    web_search_options: Any = None

    def ignored(self) -> list[str]:
        """Names of the parameters of this request that have no effect."""
        names = super().ignored()
        names += left_out(self.tools or [], self.tool_choice)
        names += (
            path_text(("messages", name))
            for message in self.messages[:-1]
            if isinstance(message, AssistantMessage)
            for name in ("prefix", "partial")
            if getattr(message, name)
        )
        contents = (message.content for message in self.messages)
        parts = (part for content in contents if isinstance(content, list) for part in content)
        for part in parts:
            if isinstance(part, ImageInput):
                names += (path_text(("messages", "content", *at)) for at in part.ignored())
            elif getattr(part, "prompt_cache_breakpoint", None):
                names.append("prompt_cache_breakpoint")
        return names
