"""Generation parameters that all families have in common, and what they mean canonically."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.api.validation import WireModel, sampling_field
from server.core.errors import InvalidRequest, Locator, path_text
from server.core.request import AdapterUse
from server.core.sampling import INT32_MAX, MOST_LOGIT_BIAS, Sampling

MAX_STOPS = 256
"""A choice: evaluators send dozens, and each is looked for in all new text."""
MAX_STOP_LENGTH = 1024
MAX_STOP_TOKENS = 1024
MAX_ADAPTERS = 16
MOST_SCALE = 100.0
"""Choices, far beyond what is of use."""

NotNegative = Annotated[int, Field(ge=0, le=INT32_MAX)]
LogitBias = Annotated[float, Field(ge=-MOST_LOGIT_BIAS, le=MOST_LOGIT_BIAS)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)]
_EFFORTS = {
    **dict.fromkeys(("", "default", "auto"), None),
    **dict.fromkeys(("off", "disabled"), "none"),
}
"""Words of other servers, and what they mean: the model's own choice, or no thoughts."""


def usual_effort(value: object) -> object:
    """A level of effort in OpenAI's words, in which capitals do not count.

    None leaves it to the model.
    """
    if not isinstance(value, str):
        return value
    word = value.lower()
    return _EFFORTS.get(word, word)


Effort = Annotated[
    Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None,
    BeforeValidator(usual_effort),
]
SWITCHES = ("enable_thinking", "reasoning_effort")
"""The variables of templates that say whether and how much to think."""

TokenText = Annotated[str, Field(pattern=r"^-?[0-9]{1,10}$")]

_PLAIN_SAMPLING = [name for name in Sampling.__struct_fields__ if name != "logit_bias"]


class SamplingFields(WireModel):
    """Sampling parameters; null means the default.

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

    def sampling(self) -> Sampling:
        """These parameters, canonical."""
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        plain = {name: getattr(self, name) for name in _PLAIN_SAMPLING}
        return Sampling(**plain, logit_bias=bias)


class LoraUse(WireModel):
    """llama.cpp's form: an adapter by its number among the model's, or by its name."""

    id: Annotated[int, Field(ge=0, le=INT32_MAX)] | Annotated[str, Field(min_length=1)]
    scale: Annotated[float, Field(ge=-MOST_SCALE, le=MOST_SCALE)] = 1.0


class LocalFields(SamplingFields):
    """Sampling, and parameters of local servers that OpenAI and Anthropic do not have."""

    ignore_eos: bool | None = Field(
        None, description="Never end before the limit of tokens or a stop string."
    )
    min_tokens: NotNegative | None = Field(
        None, description="The answer does not end by itself before it has this many tokens."
    )
    stop_token_ids: Annotated[list[NotNegative], Field(max_length=MAX_STOP_TOKENS)] | None = Field(
        None, description="Tokens that end the answer, like the model's own end of turn."
    )
    num_ctx: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="A context that the request needs; a larger one than the model's is named in "
        "`x-dragoman-clamped`.",
    )
    lora: Annotated[list[LoraUse], Field(max_length=MAX_ADAPTERS)] | None = Field(
        None, description="Adapters of the model to apply, beside the one that its id may name."
    )

    def adapters(self) -> list[AdapterUse]:
        """The adapters of ``lora``, canonical."""
        return [AdapterUse(adapter=use.id, scale=use.scale) for use in self.lora or []]


class ThinkingFields(WireModel):
    """How much to think, in the words of chat completions, which clients send to every family."""

    reasoning_effort: Effort = None
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Variables for the model's chat template."
    )
    enable_thinking: bool | None = Field(
        None, description="Short for ``chat_template_kwargs.enable_thinking``."
    )
    reasoning_budget: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="The most tokens of reasoning; 0: none, -1: no limit of its own."
    )

    def template_variables(self, stated: Mapping[str, tuple[Locator, Any]]) -> dict[str, Any]:
        """The variables that these fields set for the chat template.

        Args:
            stated: Variables that the family's own fields set, with the place of each.

        Raises InvalidRequest where two fields set a variable to different values.
        """
        variables = dict(self.chat_template_kwargs or {})
        places: dict[str, Locator] = {name: ("chat_template_kwargs", name) for name in variables}
        fields = {name: ((name,), getattr(self, name)) for name in SWITCHES}
        for name, (place, value) in [*fields.items(), *stated.items()]:
            if value is None:
                continue
            at = self.place(place)
            if variables.setdefault(name, value) != value:
                raise InvalidRequest(
                    f"{path_text(places[name])} and {path_text(at)} differ.", at=at
                )
            places.setdefault(name, at)
        return variables

    def unread(self, read: Collection[str]) -> list[str]:
        """The places of the variables that are set here and not in ``read``."""
        given: Mapping[str, Any] = self.chat_template_kwargs or {}
        stated = [("chat_template_kwargs", name) for name in given if given[name] is not None]
        switches = [(name,) for name in SWITCHES if getattr(self, name) is not None]
        return [path_text(self.place(at)) for at in (*switches, *stated) if at[-1] not in read]


def bounded(max_tokens: int | None) -> int | None:
    """A limit of tokens that fits into a message to the worker; no context is longer."""
    return None if max_tokens is None else min(max_tokens, INT32_MAX)


def reasoning_budget(stated: int | None) -> int | None:
    """The most tokens of reasoning; -1 states that there is no limit."""
    return None if stated == -1 else bounded(stated)


def as_list(stops: str | list[str] | None) -> list[str]:
    """Stop strings as a list."""
    return [stops] if isinstance(stops, str) else list(stops or [])
