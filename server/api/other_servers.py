"""What parameters of other servers mean here: a table of names, and one of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.api import other_formats
from server.api.other_formats import Meaning, parsed
from server.core.errors import InvalidRequest, Locator
from server.core.quoted_numbers import unquoted
from server.core.sampling import INT32_MAX

Reader = Callable[[Any], Meaning]
"""Says what the value of a parameter means."""

_EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
_SWITCH = {
    **dict.fromkeys(("enabled", "adaptive", "on", "true"), True),
    **dict.fromkeys(("disabled", "off", "false", "none"), False),
}


def _named(field: str) -> Reader:
    return lambda value: {(field,): value}


def _limit(field: str) -> Reader:
    def read(value: Any) -> Meaning:
        """A limit of tokens: -1 is none in llama.cpp and vLLM, -2 the context's end in Ollama."""
        value = unquoted(value)
        unlimited = value in (-1, -2) and not isinstance(value, bool)
        return {(field,): INT32_MAX if unlimited else value}

    return read


def _stops(field: str) -> Reader:
    def read(value: Any) -> Meaning:
        """Stop strings; an empty one stops nothing."""
        if isinstance(value, list):
            value = [stop for stop in value if stop is not None and stop != ""]
        return {(field,): None if value in ("", []) else value}

    return read


def _seed(value: Any) -> Meaning:
    """-1 is a random seed in llama.cpp, Ollama and others."""
    value = unquoted(value)
    return {("seed",): None if value == -1 and not isinstance(value, bool) else value}


def _logprobs(value: Any) -> Meaning:
    """Completions have a number, where no logprobs at all are null; false says the same."""
    return {("logprobs",): None if value is False else value}


def _cache_prompt(value: Any) -> Meaning:
    """Prompts are cached always; what is cached does not show, so false has no effect."""
    return {} if value is True else {("cache_prompt",): value}


def switch(value: Any) -> Any:
    """A switch that is written as a word, as the switch; anything else as it is."""
    return _SWITCH.get(value.lower(), value) if isinstance(value, str) else value


def _think(value: Any) -> Meaning:
    """Ollama's ``think``: yes, no, or how much."""
    if isinstance(value, str) and value.lower() in _EFFORTS:
        return {("reasoning_effort",): value}
    return {("enable_thinking",): switch(value)}


def _thinking(value: Any) -> Meaning:
    """Anthropic's form, as others took it over; also a boolean, or a word."""
    if not isinstance(value, dict):
        return _think(value)
    meant: dict[Locator, Any] = {}
    for name, part in _switched_once(value).items():
        match name, part:
            case _, None:
                pass
            case "type", str() if part.lower() in _SWITCH:
                meant["enable_thinking",] = switch(part)
            case "enabled", _:
                meant["enable_thinking",] = switch(part)
            case "budget_tokens", _:
                meant["reasoning_budget",] = part
            case _:
                meant["thinking", name] = part
    return meant


def _own_thinking(value: Any) -> Meaning:
    """The field of Anthropic's own API, in its form or as others have it."""
    if isinstance(value, dict):
        value = _switched_once(value)
        if "enabled" not in value or value.get("type") is not None:
            return {("thinking",): value}
    return _thinking(value)


def _switched_once(thinking: dict[str, Any]) -> dict[str, Any]:
    """``thinking`` without an ``enabled`` that says what its ``type`` says.

    Raises InvalidRequest where they contradict each other.
    """
    stated, enabled = switch(thinking.get("type")), switch(thinking.get("enabled"))
    if not isinstance(stated, bool) or not isinstance(enabled, bool):
        return thinking
    if stated != enabled:
        raise InvalidRequest(
            "thinking.type and thinking.enabled differ.", at=("thinking", "enabled")
        )
    return {name: part for name, part in thinking.items() if name != "enabled"}


def _template_variables(value: Any) -> Meaning:
    """Variables of a template, also as JSON text.

    A template takes every word for true, so that a switch written as a word would turn on what it
    is to turn off.
    """
    variables = parsed(value)
    if variables == []:  # PHP's empty object
        return {}
    if isinstance(variables, dict):
        switches = variables.keys() & {"enable_thinking", "thinking"}
        variables = {**variables, **{name: switch(variables[name]) for name in switches}}
    return {("chat_template_kwargs",): variables}


def _reasoning(value: Any) -> Meaning:
    """OpenRouter's form: how much to think, by level or in tokens."""
    if not isinstance(value, dict):
        return _think(value)
    fields = {
        "effort": "reasoning_effort",
        "max_tokens": "reasoning_budget",
        "enabled": "enable_thinking",
    }
    return {
        ((fields[name],) if name in fields else ("reasoning", name)): (
            switch(part) if name == "enabled" else part
        )
        for name, part in value.items()
        if part is not None
    }


def _list(field: str) -> Reader:
    """A list; Lua writes an empty one as an object."""
    return lambda value: {(field,): [] if value == {} else value}


def _object(field: str) -> Reader:
    """An object; PHP writes an empty one as a list."""
    return lambda value: {(field,): {} if value == [] else value}


def _tool_choice(value: Any) -> Meaning:
    """Mistral's and Anthropic's word for ``required``."""
    return {("tool_choice",): "required" if value == "any" else value}


NAMES: dict[str, Reader] = {
    **dict.fromkeys(
        (
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "max_new_tokens",
            "n_predict",
            "num_predict",
        ),
        _limit("max_tokens"),
    ),
    "repetition_penalty": _named("repeat_penalty"),
    "typical": _named("typical_p"),
    "mirostat_mode": _named("mirostat"),
    "random_seed": _seed,
    "cache_prompt": _cache_prompt,
    "min_new_tokens": _named("min_tokens"),
    "n_ctx": _named("num_ctx"),
    "stop_sequences": _stops("stop"),
    "stop_strings": _stops("stop"),
    "until": _stops("stop"),
    "stop": _stops("stop"),
    "think": _think,
    "thinking": _thinking,
    "reasoning": _reasoning,
    **dict.fromkeys(
        (
            "thinking_budget",
            "thinking_budget_tokens",
            "thinking_token_budget",
            "max_thinking_tokens",
            "reasoning_budget_tokens",
            "reasoning_max_tokens",
        ),
        _named("reasoning_budget"),
    ),
    "guided_json": other_formats.schema,
    "guided_regex": _named("regex"),
    "guided_choice": _named("choice"),
    "guided_grammar": other_formats.grammar,
    "ebnf": _named("grammar"),
    "structured_outputs": other_formats.structured,
    "format": other_formats.form,
}
"""Names that a schema may lack.

The budgets are those of llama.cpp's server, vLLM, Alibaba's API and SGLang.
"""

VALUES: dict[str, Reader] = {
    "max_tokens": _limit("max_tokens"),
    "max_completion_tokens": _limit("max_completion_tokens"),
    "max_output_tokens": _limit("max_output_tokens"),
    "logprobs": _logprobs,
    "seed": _seed,
    "stop": _stops("stop"),
    "stop_sequences": _stops("stop_sequences"),
    "json_schema": other_formats.schema,
    "grammar": other_formats.gbnf,
    "response_format": other_formats.response_format,
    "tool_choice": _tool_choice,
    "tools": _list("tools"),
    "logit_bias": _object("logit_bias"),
    "thinking": _own_thinking,
    "enable_thinking": lambda value: {("enable_thinking",): switch(value)},
    "chat_template_kwargs": _template_variables,
}
"""Fields of ours that have values elsewhere that OpenAI does not know."""
