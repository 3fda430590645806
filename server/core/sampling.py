"""Sampling parameters."""

from __future__ import annotations

import msgspec


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling parameters; None means the request is silent, so a family's default may apply."""

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
