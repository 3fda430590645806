"""The canonical request, to which every API family converts its wire format.

These types cross the border between the API process and a worker as MessagePack (msgspec).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Self

import msgspec

from server.core.errors import PLACE, UnsupportedParameter
from server.core.sampling import Sampling

ToolKind = Literal["function", "custom"]
Role = Literal["system", "developer", "user", "assistant", "tool"]


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """A call by the assistant.

    ``arguments`` is JSON text; if ``kind`` is ``custom``, it is the tool's free-form input.
    """

    id: str
    name: str
    arguments: str
    kind: ToolKind = "function"


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A piece of text in a message's content."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """An image in a message's content.

    ``data`` is the image file as it was sent, not decoded, and ``digest`` its SHA-256. ``detail``
    is how finely it is to be read, within what the model's projector allows.
    """

    data: bytes
    detail: Literal["auto", "low", "high"] = "auto"
    digest: bytes = b""

    def __post_init__(self) -> None:
        """Compute the digest, unless it is known."""
        if not self.digest:
            # Processors have instructions for this digest: it takes half as long as BLAKE2.
            msgspec.structs.force_setattr(self, "digest", hashlib.sha256(self.data).digest())


ContentPart = TextPart | ImagePart
"""A part of a message's content, tagged by its kind; other kinds join this union."""

Content = str | list[ContentPart]
"""The content of a message: parts in order; a string stands for one part of text."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation.

    ``name`` is the author's, or the function's in a tool message. ``tool_calls`` and
    ``reasoning_content`` belong to the role ``assistant``, ``tool_call_id`` to the role ``tool``.
    """

    role: Role
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None
    reasoning_content: str | None = None


def texts_of(message: Message) -> Iterator[str]:
    """Each text of a message: those of its content, its reasoning, and its calls."""
    content = message.content or ""
    parts = [TextPart(content)] if isinstance(content, str) else content
    for part in parts:
        if isinstance(part, TextPart):
            yield part.text
    yield message.reasoning_content or ""
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


ImagePlace = tuple[str, int, str, int]
"""The place of an image: ``("messages", 1, "content", 0)``."""


def images_of(messages: Sequence[Message]) -> Iterator[tuple[ImagePlace, ImagePart]]:
    """Each image of a conversation with its place, in order."""
    for index, message in enumerate(messages):
        parts = message.content if isinstance(message.content, list) else []
        for place, part in enumerate(parts):
            if isinstance(part, ImagePart):
                yield ("messages", index, "content", place), part


def unseen(at: ImagePlace) -> UnsupportedParameter:
    """The error about an image for a model that sees none."""
    message = f"{PLACE}: this model sees no images: there is no projector file beside it."
    return UnsupportedParameter(message, at=at)


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that the answer must match.

    ``body`` is JSON text for ``json_schema`` (the schema) and ``choice`` (a list of strings), the
    expression or grammar text for ``regex``, ``lark`` and ``gbnf``, empty for ``json_object``.
    Unless it is ``strict``, a schema may be loosened where it cannot be enforced.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice", "lark", "gbnf"]
    body: str = ""
    strict: bool = True

    @classmethod
    def of(
        cls, kind: Literal["json_schema", "choice"], value: object, *, strict: bool = True
    ) -> Self:
        """A constraint whose body is ``value`` as JSON."""
        return cls(kind=kind, body=msgspec.json.encode(value).decode(), strict=strict)


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool the model may call.

    Attributes:
        name: Its name.
        description: Its purpose.
        parameters: A JSON Schema object for the arguments; None for a free-form tool.
        strict: Whether the arguments must match exactly; otherwise the schema may be loosened where
            it cannot be enforced.
        kind: A function takes JSON; ``custom`` is a free-form tool, which takes any text.
        grammar: For a free-form tool: what the text must match.
        name_in_request: Its name there, if the model sees another.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False
    kind: ToolKind = "function"
    grammar: Constraint | None = None
    name_in_request: str | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """How the model must use the tools; ``name`` only with mode ``named``."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    parallel: bool = True


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="chat"):
    """A conversation, rendered by the model's chat template.

    ``template_kwargs`` are variables for the template (``enable_thinking``, …), checked against the
    template's own undeclared variables. With ``continue_final_message`` the last assistant message
    is left open and continued.
    """

    messages: list[Message]
    tools: list[Tool] = []
    tool_choice: ToolChoice = ToolChoice()
    template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool = True
    continue_final_message: bool = False


def with_images(prompt: ChatPrompt, changed: Callable[[ImagePart], ContentPart]) -> ChatPrompt:
    """``prompt`` with what ``changed`` makes of each image, in order, in its place."""

    def message(given: Message) -> Message:
        if not isinstance(given.content, list):
            return given
        parts = [changed(part) if isinstance(part, ImagePart) else part for part in given.content]
        return msgspec.structs.replace(given, content=parts)

    return msgspec.structs.replace(prompt, messages=[message(given) for given in prompt.messages])


class SourceFile(msgspec.Struct, frozen=True):
    """A file beside the one that has a gap."""

    name: str
    text: str


class TextPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A native prompt, taken as it is, without a template.

    With ``suffix`` the model fills the gap between ``text`` and ``suffix``, and ``files`` are what
    else it may know. Control tokens in the texts are honoured unless these are ``literal``.
    """

    text: str
    suffix: str | None = None
    files: list[SourceFile] = []
    literal: bool = False


class TokensPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    """Token ids, taken as they are; nothing is added, not even BOS."""

    ids: list[int]


Prompt = ChatPrompt | TextPrompt | TokensPrompt


class CacheScope(msgspec.Struct, frozen=True, kw_only=True):
    """Requests share cached prefixes only within one scope.

    ``api_key`` is a digest of the key the request came with, ``adapter`` the identity of the
    adapters it runs through; both are empty where there is none.
    """

    api_key: str = ""
    adapter: str = ""


NO_KEY = CacheScope()
"""The scope of requests that come with no API key, and use the model alone."""


class AdapterUse(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter of the model by its name, or by its place among them, and how much of it."""

    adapter: str | int
    scale: float = 1.0


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt to generate ``n`` answers for.

    ``max_tokens`` None, or more than the context holds, means up to the context's end. ``logprobs``
    is the number of alternatives to report per token (0: only the chosen one), None for no logprobs
    at all. ``echo`` asks for the prompt's own tokens (with logprobs, if asked). ``prediction`` is
    text the answer probably repeats. The answer does not end by itself before it has
    ``min_tokens``; ``stop_token_ids`` end it like the model's own end-of-generation tokens.
    ``reasoning_budget`` is the most tokens of reasoning, None for no limit of its own. Of waiting
    requests those with the greatest ``priority`` come first.
    """

    prompt: Prompt
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: list[str] = []
    stop_token_ids: list[int] = []
    reasoning_budget: int | None = None
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
    constraint: Constraint | None = None
    prediction: str | None = None
    ignore_eos: bool = False
    adapters: list[AdapterUse] = []
    priority: int = 0


def with_messages(request: GenerationRequest, messages: Sequence[Message]) -> GenerationRequest:
    """``request``, whose prompt is a chat, with other messages."""
    assert isinstance(request.prompt, ChatPrompt)
    prompt = msgspec.structs.replace(request.prompt, messages=list(messages))
    return msgspec.structs.replace(request, prompt=prompt)
