"""What parameters of other servers mean here: a table of names, and one of values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from server.core.errors import Locator
from server.core.sampling import INT32_MAX

Meaning = Mapping[Locator, Any]
"""Values by the fields that they belong to.

A path of two steps is a part of an object, by its name there, that means nothing here.
"""

Reader = Callable[[Any], Meaning]
"""Says what the value of a parameter means."""

_EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})


def _named(field: str) -> Reader:
    return lambda value: {(field,): value}


def _limit(field: str) -> Reader:
    def read(value: Any) -> Meaning:
        """A limit of tokens: -1 is none in llama.cpp and vLLM, -2 the context's end in Ollama."""
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
    return {("seed",): None if value == -1 and not isinstance(value, bool) else value}


def _logprobs(value: Any) -> Meaning:
    """Completions have a number, where no logprobs at all are null; false says the same."""
    return {("logprobs",): None if value is False else value}


def _cache_prompt(value: Any) -> Meaning:
    """Prompts are cached always; what is cached does not show, so false has no effect."""
    return {} if value is True else {("cache_prompt",): value}


def _think(value: Any) -> Meaning:
    """Ollama's ``think``: yes, no, or how much."""
    if isinstance(value, str) and value in _EFFORTS:
        return {("reasoning_effort",): value}
    return {("enable_thinking",): value}


_SWITCH = {"enabled": True, "adaptive": True, "disabled": False}


def _thinking(value: Any) -> Meaning:
    """Anthropic's form, as others took it over; also a boolean, or a word."""
    if isinstance(value, str):
        return {("enable_thinking",): _SWITCH[value]} if value in _SWITCH else _think(value)
    if not isinstance(value, dict):
        return _think(value)
    meant: dict[Locator, Any] = {}
    for name, part in value.items():
        match name, part:
            case _, None:
                pass
            case "type", str() if part in _SWITCH:
                meant["enable_thinking",] = _SWITCH[part]
            case "budget_tokens", _:
                meant["reasoning_budget",] = part
            case _:
                meant["thinking", name] = part
    return meant


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
        ((fields[name],) if name in fields else ("reasoning", name)): part
        for name, part in value.items()
        if part is not None
    }


def _schema(value: Any) -> Meaning:
    """A JSON Schema, in SGLang's form as text."""
    if isinstance(value, str):
        with suppress(ValueError):  # the schema of the body says what is wrong
            value = json.loads(value)
    return {("json_schema",): value}


def _grammar(value: Any) -> Meaning:
    """A grammar in GBNF or Lark, which ``::=`` tells apart; TGI's form states its kind."""
    match value:
        case {"type": "regex", "value": pattern}:
            return {("regex",): pattern}
        case {"type": "json" | "json_schema", "value": schema}:
            return _schema(schema)
        case str() if "::=" not in value:
            return {("lark",): value}
        case _:
            return {("grammar",): value}


def _gbnf(value: Any) -> Meaning:
    """llama.cpp's ``grammar``."""
    return _grammar(value) if isinstance(value, dict) else {("grammar",): value}


def _structured(value: Any) -> Meaning:
    """The ``structured_outputs`` of vLLM."""
    if not isinstance(value, dict):
        return {("structured_outputs",): value}
    meant: dict[Locator, Any] = {}
    for name, part in value.items():
        match name, part:
            case _, None:
                pass
            case "json", _:
                meant.update(_schema(part))
            case "grammar", _:
                meant.update(_grammar(part))
            case "json_object", True:
                meant["response_format",] = {"type": "json_object"}
            case "regex" | "choice", _:
                meant[name,] = part
            case _:
                meant["structured_outputs", name] = part
    return meant


def _format(value: Any) -> Meaning:
    """Ollama's ``format``: the word json, or a schema."""
    return {("response_format",): {"type": "json_object"}} if value == "json" else _schema(value)


_OF_SCHEMAS = ("type", "properties", "items", "enum", "const", "$ref", "anyOf", "allOf", "oneOf")


def _is_schema(value: Mapping[str, Any]) -> bool:
    """Whether ``value`` is a schema where an object with a schema in it belongs."""
    return "schema" not in value and any(keyword in value for keyword in _OF_SCHEMAS)


def _response_format(value: Any) -> Meaning:
    """The forms of ``response_format`` that other servers have beside OpenAI's."""
    match value:
        case {"type": "json" | "json_object", "value": schema}:
            return _schema(schema)
        case {"type": "regex", "pattern": pattern} | {"type": "regex", "value": pattern}:
            return {("regex",): pattern}
        case {"type": "grammar", "grammar": grammar}:
            return _grammar(grammar)
        case _:
            return {("response_format",): _openai_format(value)}


def _openai_format(value: Any) -> Any:
    """A format of OpenAI's, also as a word, or with its schema one level too high."""
    match value:
        case "json" | "json_object" | {"type": "json"}:
            return {"type": "json_object"}
        case "text":
            return {"type": "text"}
        case {"type": "json_schema", "json_schema": dict() as schema} if _is_schema(schema):
            return {**value, "json_schema": {"schema": schema}}
        case {"type": "json_schema", "schema": dict()} if "json_schema" not in value:
            schema = {name: part for name, part in value.items() if name != "type"}
            return {"type": "json_schema", "json_schema": schema}
    return value


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
    "guided_json": _schema,
    "guided_regex": _named("regex"),
    "guided_choice": _named("choice"),
    "guided_grammar": _grammar,
    "ebnf": _named("grammar"),
    "structured_outputs": _structured,
    "format": _format,
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
    "json_schema": _schema,
    "grammar": _gbnf,
    "response_format": _response_format,
    "tool_choice": _tool_choice,
}
"""Fields of ours that have values elsewhere that OpenAI does not know."""
