"""What the request schemas share: strictness, and the parameters common to chat and completions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from server.api.validation import WireModel

INT32_MAX = 2**31 - 1
MAX_STOPS = 4
MAX_STOP_LENGTH = 1024
MAX_CHOICES = 128

Penalty = Annotated[float, Field(ge=-2, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[int, Field(ge=0, le=INT32_MAX)]
WindowSize = Annotated[int, Field(ge=-1, le=INT32_MAX)]
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

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[TokenText, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None

    top_k: NotNegative | None = Field(None, description="0 switches it off.")
    min_p: Probability | None = None
    typical_p: Probability | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    repeat_last_n: WindowSize | None = Field(None, description="-1 is the whole context.")
    dry_multiplier: Annotated[float, Field(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Field(ge=1, le=100)] | None = None
    dry_allowed_length: NotNegative | None = None
    dry_penalty_last_n: WindowSize | None = Field(None, description="-1 is the whole context.")
    xtc_probability: Probability | None = None
    xtc_threshold: Probability | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: Annotated[float, Field(ge=0, le=100)] | None = None
    mirostat_eta: Annotated[float, Field(ge=0, le=1)] | None = None


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

    #: Accepted, without effect; named in the answer's ``x-dragoman-ignored`` header.
    IGNORED: ClassVar[frozenset[str]] = frozenset({"user"})
    #: Would change the answer and is not honoured; refused.
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
