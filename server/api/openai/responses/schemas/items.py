"""Items of a request's ``input``, as clients write them and as they echo earlier output."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from server.api.image_parts import ImageInput
from server.api.openai.responses.schemas.item_forms import kind_of, usual_item
from server.api.openai.responses.schemas.lenient import LenientModel
from server.api.openai.responses.schemas.settings import ReasoningOptions, TextOptions
from server.api.openai.responses.schemas.tools import MAX_TOOLS, AnyTool
from server.api.openai.schemas.chat_request import AnyCall
from server.api.text_parts import as_parts, as_result

MAX_PARTS = 1_000

CallId = Annotated[str, Field(min_length=1, max_length=1024)]


class Item(LenientModel):
    """What all items have in common; an item is stored under its id."""

    id: str | None = None
    status: str | None = None


class TextContent(LenientModel):
    """A piece of text; ``output_text`` echoes an earlier answer."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class RefusalContent(LenientModel):
    """A refusal of an earlier answer; it counts as text."""

    type: Literal["refusal"]
    refusal: str


class FileContent(LenientModel):
    """A file: its text is read."""

    type: Literal["input_file"]
    file_data: str | None = None
    file_id: Any = None
    filename: str | None = None


class AudioContent(LenientModel):
    """Audio: known, and refused as unsupported."""

    type: Literal["input_audio"]


Part = Annotated[
    TextContent | RefusalContent | ImageInput | FileContent | AudioContent,
    Field(discriminator="type"),
]


def _or_empty(content: object) -> object:
    return "" if content is None else content


_Content = str | Annotated[list[Part], Field(max_length=MAX_PARTS)]
Content = Annotated[_Content, BeforeValidator(as_parts), BeforeValidator(_or_empty)]
"""What a message says; null is nothing."""

Result = Annotated[_Content, BeforeValidator(as_result), BeforeValidator(_or_empty)]
"""What the result of a call says: text, parts, or any JSON value."""


_result: TypeAdapter[Content] = TypeAdapter(Result, config=ConfigDict(defer_build=True))


class MessageItem(Item):
    """A message; the only kind of item whose ``type`` may be left out.

    The assistant's may have calls, as in chat completions.
    """

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    phase: str | None = None
    tool_calls: list[AnyCall] | None = None


class ReasoningText(LenientModel):
    """A piece of reasoning, or of its summary."""

    type: Literal["reasoning_text", "summary_text", "text"]
    text: str


class ReasoningItem(Item):
    """Reasoning of an earlier answer."""

    type: Literal["reasoning"]
    summary: list[ReasoningText] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


class FunctionCallItem(Item):
    """A call of a function; ``arguments`` is JSON text, or the object itself."""

    type: Literal["function_call"]
    call_id: CallId
    name: str
    arguments: str | dict[str, Any] | None = None
    namespace: str | None = None


class CustomToolCallItem(Item):
    """A call of a free-form tool."""

    type: Literal["custom_tool_call"]
    call_id: CallId
    name: str
    input: str
    namespace: str | None = None


class CallOutputItem(Item):
    """The result of a call; without a ``call_id``, of the next call that has none yet."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: CallId | None = None
    output: Result
    name: str | None = None

    @property
    def said(self) -> Content:
        """The result for the model."""
        return self.output


class ClientCallItem(Item):
    """A call of a tool that OpenAI's models know by themselves and clients run.

    ``action`` says what a shell does, ``operation`` what becomes of a file.
    """

    type: Literal["local_shell_call", "shell_call", "apply_patch_call"]
    call_id: CallId
    action: dict[str, Any] | None = None
    operation: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The name of the tool."""
        return self.type.removesuffix("_call")

    @property
    def arguments(self) -> dict[str, Any]:
        """What it was called with."""
        return self.action or self.operation or {}


class ClientCallOutputItem(Item):
    """The result of such a call; a patch may have nothing but its status."""

    type: Literal["local_shell_call_output", "shell_call_output", "apply_patch_call_output"]
    call_id: CallId | None = None
    output: Any = None
    max_output_length: int | None = None

    @property
    def name(self) -> str:
        """The name of the tool."""
        return self.type.removesuffix("_call_output")

    @property
    def said(self) -> Content:
        """The result for the model."""
        return _result.validate_python(self.output or self.status)


class AdditionalToolsItem(Item):
    """Tools that are offered beside those in ``tools``: newer agents send theirs so.

    What a search for tools found comes back in the same form.
    """

    type: Literal["additional_tools", "tool_search_output"]
    role: str | None = None
    tools: Annotated[list[AnyTool], Field(max_length=MAX_TOOLS)]


class CompactionItem(Item):
    """What a conversation was about before; ``encrypted_content`` is what this server made."""

    type: Literal["compaction"]
    encrypted_content: str


class CompactionTriggerItem(Item):
    """Asks for a `CompactionItem` in place of an answer, where it is the last item."""

    type: Literal["compaction_trigger"]


class ConfigurationUpdateItem(Item):
    """Settings that hold from here on, in place of the request's."""

    type: Literal["configuration_update"]
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None


class ItemReference(Item):
    """Stands for a stored item; OpenAI's short form is the id alone."""

    type: Literal["item_reference"] | None = None
    id: str


class OtherItem(Item):
    """An item of a tool that this server does not have."""

    type: str


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[CustomToolCallItem, Tag("custom_tool_call")]
    | Annotated[CallOutputItem, Tag("output")]
    | Annotated[ClientCallItem, Tag("client_call")]
    | Annotated[ClientCallOutputItem, Tag("client_output")]
    | Annotated[AdditionalToolsItem, Tag("additional_tools")]
    | Annotated[CompactionItem, Tag("compaction")]
    | Annotated[CompactionTriggerItem, Tag("compaction_trigger")]
    | Annotated[ConfigurationUpdateItem, Tag("configuration_update")]
    | Annotated[ItemReference, Tag("item_reference")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(
        kind_of,
        custom_error_type="item_type",
        custom_error_message="Input should be an object with a type",
    ),
    BeforeValidator(usual_item),
]
