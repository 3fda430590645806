"""Sampling parameters: one table of their ranges, defaults and meanings.

The wire schemas, the sidecars of models, the families, the sampler and the documentation take all
they know of a parameter from `PARAMETERS`. OpenAI's parameters have OpenAI's ranges
(https://platform.openai.com/docs/api-reference/chat/create); the others have the names and defaults
of llama.cpp's server, and ranges wide enough for any sensible value.
"""

from __future__ import annotations

import msgspec

INT32_MAX = 2**31 - 1


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One sampling parameter.

    Attributes:
        name: Its field of `Sampling`, and its name on the wire and in sidecars.
        kind: The type of its values.
        least: The smallest value; with ``above_least``, values must be larger.
        most: The largest value.
        default: The value where nothing states one; None: a random value for each answer.
        text: Its meaning, for people.
    """

    name: str
    kind: type[int | float]
    least: float
    most: float
    default: float | None
    text: str
    above_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether ``value`` is in range."""
        above = value > self.least if self.above_least else value >= self.least
        return above and value <= self.most

    @property
    def range_text(self) -> str:
        """The range in words: ``from 0 to 2``."""
        return f"{'above' if self.above_least else 'from'} {self.least:g} to {self.most:g}"


_TABLE: list[tuple[str, type[int | float], float, float, float | None, str]] = [
    (
        "temperature",
        float,
        0,
        2,
        1,
        "Sharpens (below 1) or flattens the distribution; 0 is greedy.",
    ),
    ("top_p", float, 0, 1, 1, "Keeps the most probable tokens that make up this much together."),
    (
        "top_k",
        int,
        -1,
        INT32_MAX,
        0,
        "Keeps the most probable tokens up to this number; 0 or -1: all.",
    ),
    ("min_p", float, 0, 1, 0, "Keeps tokens at least this probable, relative to the best one."),
    ("typical_p", float, 0, 1, 1, "Keeps the most typical tokens that make up this much."),
    (
        "repeat_penalty",
        float,
        0,
        10,
        1,
        "Divides the logits of tokens already seen; 1: no penalty.",
    ),
    ("repeat_last_n", int, -1, INT32_MAX, 64, "Window of the penalties; 0: none, -1: all tokens."),
    ("frequency_penalty", float, -2, 2, 0, "Lowers a token's logit for each time it was written."),
    ("presence_penalty", float, -2, 2, 0, "Lowers the logit of a token that was written at all."),
    ("dry_multiplier", float, 0, 100, 0, "Strength of DRY, which penalises repetition; 0: off."),
    ("dry_base", float, 1, 100, 1.75, "How fast DRY's penalty grows with the repeated length."),
    ("dry_allowed_length", int, 0, INT32_MAX, 2, "Repeated length that DRY does not penalise yet."),
    ("dry_penalty_last_n", int, -1, INT32_MAX, -1, "Window of DRY; 0: none, -1: all tokens."),
    ("xtc_probability", float, 0, 1, 0, "How often XTC leaves out the most probable tokens."),
    ("xtc_threshold", float, 0, 1, 0.1, "How probable a token must be for XTC to leave it out."),
    ("mirostat", int, 0, 2, 0, "Version of mirostat, which steers surprise; 0: off."),
    ("mirostat_tau", float, 0, 100, 5, "The surprise that mirostat aims at, in bits."),
    ("mirostat_eta", float, 0, 1, 0.1, "How fast mirostat adapts."),
    ("seed", int, -(2**63), 2**63 - 1, None, "Makes sampling repeatable; default, and -1: random."),
]

PARAMETERS = {
    name: Parameter(
        name=name,
        kind=kind,
        least=least,
        most=most,
        default=default,
        text=text,
        # Dividing by 0 would be no penalty but a ban.
        above_least=name == "repeat_penalty",
    )
    for name, kind, least, most, default, text in _TABLE
}
"""Every parameter but ``logit_bias``, by name."""

MOST_LOGIT_BIAS = 100.0
"""Biases lie between this and its negative."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling parameters; None means the request is silent, so a family's default may apply.

    ``logit_bias`` is added to the logits of tokens, by id.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    logit_bias: dict[int, float] = {}
    seed: int | None = None

    def over(self, defaults: Sampling) -> Sampling:
        """These parameters, with ``defaults`` where they are silent."""
        merged = {
            name: getattr(defaults, name) if value is None else value
            for name in self.__struct_fields__
            for value in (getattr(self, name),)
        }
        return Sampling(**merged)

    def real(self, name: str) -> float:
        """The value of a parameter that has a default."""
        value: float | None = getattr(self, name)
        if value is None:
            value = PARAMETERS[name].default
        assert value is not None
        return value

    def whole(self, name: str) -> int:
        """The same for a parameter whose values are integers."""
        return int(self.real(name))

    def problem(self) -> tuple[str, str] | None:
        """The first parameter that is out of range, and what is wrong with it; None if none is."""
        for name, parameter in PARAMETERS.items():
            value = getattr(self, name)
            if value is not None and not parameter.holds(value):
                return name, f"{value} must be {parameter.range_text}"
        for bias in self.logit_bias.values():
            if not -MOST_LOGIT_BIAS <= bias <= MOST_LOGIT_BIAS:
                limits = f"from {-MOST_LOGIT_BIAS:g} to {MOST_LOGIT_BIAS:g}"
                return "logit_bias", f"{bias} must be {limits}"
        return None
