"""Parameters that OpenAI's endpoints have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from server.api.generation_fields import LocalFields, Stops
from server.api.ignored_names import unknown_names
from server.api.spellings import respell
from server.api.validation import Respelled, WireModel

MAX_CHOICES = 128


class StreamOptions(WireModel):
    """How to stream; only with ``stream``."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="Accepted and ignored.")


class TextFormat(WireModel):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(WireModel):
    """Any JSON object, or, as llama.cpp's server has it, one that matches ``schema``."""

    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_object"]
    json_schema: dict[str, Any] | None = Field(None, alias="schema")


class JsonSchema(WireModel):
    """The schema an answer must match; its name has no effect."""

    model_config = ConfigDict(protected_namespaces=())

    name: Annotated[str, Field(max_length=256)] | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(WireModel):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class ConstraintFields(WireModel):
    """Constraints of the answer; at most one of them all."""

    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    lark: Annotated[str, Field(min_length=1)] | None = None
    grammar: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A grammar in llama.cpp's GBNF."
    )
    json_schema: dict[str, Any] | None = Field(
        None, description="A JSON Schema; short for ``response_format``."
    )
    response_format: ResponseFormat | None = None


class GenerationFields(LocalFields, ConstraintFields):
    """Everything that chat completions and completions have in common."""

    #: Accepted without effect, and named in the answer's ``x-dragoman-ignored`` header.
    IGNORED: ClassVar[frozenset[str]] = frozenset({"user"})
    #: Refused, since they would change the answer and are not honoured.
    UNSUPPORTED: ClassVar[frozenset[str]] = frozenset()

    model: str
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @classmethod
    def respelled(cls, body: dict[str, Any]) -> Respelled:
        """``body`` under our names for what other servers name differently."""
        return respell(body, cls)

    def ignored(self) -> list[str]:
        """Names of the parameters of this request that have no effect."""
        names = sorted(name for name in self.IGNORED if getattr(self, name) is not None)
        if self.stream_options is not None and self.stream_options.include_obfuscation:
            names.append("stream_options.include_obfuscation")
        return [*names, *unknown_names(self)]
