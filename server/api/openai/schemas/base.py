"""Parameters that OpenAI's endpoints have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from server.api.constraint_fields import ConstraintFields
from server.api.generation_fields import LocalFields, Stops
from server.api.ignored_names import unknown_names
from server.api.spellings import respell
from server.api.unnamed_model import ModelField
from server.api.validation import Respelled, WireModel

MAX_CHOICES = 128


class StreamOptions(WireModel):
    """How to stream; only with ``stream``."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="Accepted and ignored.")


class GenerationFields(ModelField, LocalFields, ConstraintFields):
    """Everything that chat completions and completions have in common."""

    #: Accepted without effect, and named in the answer's ``x-dragoman-ignored`` header.
    IGNORED: ClassVar[frozenset[str]] = frozenset({"user"})
    #: Refused, since they would change the answer and are not honoured.
    UNSUPPORTED: ClassVar[frozenset[str]] = frozenset()

    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Any = Field(None, description="Accepted and ignored.")

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
