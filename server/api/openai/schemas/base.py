"""Parameters that chat completions and completions have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from server.api.validation import WireModel, sampling_field
from server.core.sampling import INT32_MAX, MOST_LOGIT_BIAS

MAX_STOPS = 4
MAX_STOP_LENGTH = 1024
MAX_CHOICES = 128

NotNegative = Annotated[int, Field(ge=0, le=INT32_MAX)]
LogitBias = Annotated[float, Field(ge=-MOST_LOGIT_BIAS, le=MOST_LOGIT_BIAS)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
TokenText = Annotated[str, Field(pattern=r"^-?[0-9]{1,10}$")]


class StreamOptions(WireModel):
    """How to stream; only with ``stream``."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="Accepted and ignored.")


class SamplingFields(WireModel):
    """Sampling parameters of both endpoints; null means the default.

    OpenAI's come first; the others are common among local servers and lie at top level, where the
    SDKs' ``extra_body`` puts them.
    """

    temperature: float | None = sampling_field("temperature")
    top_p: float | None = sampling_field("top_p")
    frequency_penalty: float | None = sampling_field("frequency_penalty")
    presence_penalty: float | None = sampling_field("presence_penalty")
    logit_bias: dict[TokenText, LogitBias] | None = None
    seed: int | None = sampling_field("seed")

    top_k: int | None = sampling_field("top_k")
    min_p: float | None = sampling_field("min_p")
    typical_p: float | None = sampling_field("typical_p")
    repeat_penalty: float | None = sampling_field("repeat_penalty")
    repeat_last_n: int | None = sampling_field("repeat_last_n")
    dry_multiplier: float | None = sampling_field("dry_multiplier")
    dry_base: float | None = sampling_field("dry_base")
    dry_allowed_length: int | None = sampling_field("dry_allowed_length")
    dry_penalty_last_n: int | None = sampling_field("dry_penalty_last_n")
    xtc_probability: float | None = sampling_field("xtc_probability")
    xtc_threshold: float | None = sampling_field("xtc_threshold")
    mirostat: int | None = sampling_field("mirostat")
    mirostat_tau: float | None = sampling_field("mirostat_tau")
    mirostat_eta: float | None = sampling_field("mirostat_eta")


class ConstraintFields(WireModel):
    """Constraints beyond OpenAI's ``response_format``; at most one of them all."""

    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    lark: Annotated[str, Field(min_length=1)] | None = None
    grammar: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A grammar in llama.cpp's GBNF."
    )


class GenerationFields(SamplingFields, ConstraintFields):
    """Everything that chat completions and completions have in common."""

    #: Accepted without effect, and named in the answer's ``x-dragoman-ignored`` header.
    IGNORED: ClassVar[frozenset[str]] = frozenset({"user"})
    #: Refused, since they would change the answer and are not honoured.
    UNSUPPORTED: ClassVar[frozenset[str]] = frozenset()

    model: str
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    user: str | None = None

    def ignored(self) -> list[str]:
        """Names of the parameters of this request that have no effect."""
        names = [name for name in self.IGNORED if getattr(self, name) is not None]
        if self.stream_options is not None and self.stream_options.include_obfuscation:
            names.append("stream_options.include_obfuscation")
        return sorted(names)
