"""Inputs about parameters under other names, with other values, and of other servers."""

from __future__ import annotations

import json
from typing import Any

from tests.inputs.inputs import (
    CHAT,
    FAMILIES,
    GENERATING,
    MESSAGES,
    RESPONSES,
    TEMPLATE,
    USER,
    Input,
    calls,
    everywhere,
    in_a_chat,
    in_chats,
    object_of,
    somewhere,
    tools,
)

_VALUES = "values outside OpenAI's range with one meaning"
VALUES = [
    *(
        row
        for number, fields in enumerate[dict[str, Any]](
            (
                {"seed": -1},
                {"seed": 7.0},
                {"top_k": -1},
                {"top_k": 40.0},
                {"temperature": 0},
                {"stop": []},
                {"stop": ""},
                {"stop": ["a", None, ""]},
                {"min_p": 0},
                {"seed": "7"},
                {"temperature": "0.5"},
                {"top_k": "40"},
                {"logit_bias": []},
            )
        )
        for row in somewhere(_VALUES, number, fields)
    ),
    Input(_VALUES, CHAT, {"max_tokens": -1, "stop": ["a", "e", "\x00"], "ignore_eos": None}),
    Input(_VALUES, CHAT, {"n": 1.0}),
    Input(_VALUES, CHAT, {"n": "1", "max_tokens": "4", "tools": {}}),
    Input(_VALUES, CHAT, {"logprobs": 0, "top_logprobs": 0}),
    Input(_VALUES, CHAT, {"n": None, "stream_options": None, "user": None, "tools": None}),
]
_FIELD = "parameters of other servers"
FIELD = [
    *(
        row
        for number, fields in enumerate[dict[str, Any]](
            (
                {"repetition_penalty": 1.1},
                {"min_tokens": 1},
                {"cache_prompt": True},
                {"num_ctx": 512},
                {"options": {"num_ctx": 512, "top_k": 4}},
                {"typical": 0.9},
                {"extra_body": {"top_k": 5}},
                {"stop_token_ids": [2]},
                {"mirostat_mode": 0},
            )
        )
        for row in somewhere(_FIELD, number, fields)
    ),
    *(
        Input(_FIELD, path, {"max_tokens": "", "max_output_tokens": "", name: 2})
        for number, name in enumerate(
            ("n_predict", "num_predict", "max_new_tokens", "max_completion_tokens")
        )
        for path in (GENERATING[number], MESSAGES)
    ),
]
_VENDORS = "fields that mean nothing here"
VENDORS = [
    row
    for number, fields in enumerate[dict[str, Any]](
        (
            {"provider": {"order": ["x"]}},
            {"transforms": []},
            {"usage": {"include": True}},
            {"keep_alive": "5m"},
            {"cache_salt": "x"},
            {"langfuse_trace": 1},
            {"prompt_truncate_len": 5},
            {"safe_prompt": False},
        )
    )
    for row in somewhere(_VENDORS, number, fields, ignored=list(fields))
]
VENDORS += in_chats(
    _VENDORS,
    {"chat_template_kwargs": {"mood": "x", "enable_thinking": False}},
    model="thinker",
    ignored=["chat_template_kwargs.mood"],
)

_THINK = "how much to think"
_HIDDEN = ['"reasoning_content"', '"type":"thinking"', '"type":"reasoning"']
THINK = [
    in_a_chat(_THINK, number, fields, model="thinker", lacks=_HIDDEN)
    for number, fields in enumerate[dict[str, Any]](
        (
            {"think": False},
            {"enable_thinking": False},
            {"thinking": {"type": "disabled"}},
            {"reasoning": {"enabled": False}},
            {"reasoning": False},
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"reasoning_budget": 0},
            {"thinking_budget": 0},
            {"options": {"think": False}},
            {"reasoning": {"effort": "none"}},
        )
    )
]
THINK += [
    row
    for fields in (
        {"think": "off"},
        {"thinking": "off"},
        {"thinking": {"enabled": False}},
        {"reasoning": "off"},
        {"reasoning": {"enabled": "false"}},
        {"enable_thinking": "false"},
        {"chat_template_kwargs": {"enable_thinking": "false"}},
        {"chat_template_kwargs": '{"enable_thinking": false}'},
    )
    for row in in_chats(_THINK, fields, model="thinker", lacks=_HIDDEN)
]
THINK += [
    row
    for fields in ({"think": True}, {"think": "high"}, {"reasoning": {"max_tokens": 9}})
    for row in in_chats(_THINK, fields, model="thinker")
]
THINK += [
    row
    for fields, name in (
        ({"think": False}, "think"),
        ({"enable_thinking": True}, "enable_thinking"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
    )
    for row in (
        *in_chats(_THINK, fields, ignored=[name]),
        Input(_THINK, TEMPLATE, fields, ignored=[name]),
    )
]

_SCHEMAS = "schemas for the answer under other names"
_J = {**object_of(a={"const": 1}), "additionalProperties": False}
_PLACES: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object", "schema": _J}},
    {"response_format": {"type": "json_schema", "schema": _J}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": _J}}},
    {"response_format": {"type": "json_schema", "json_schema": _J}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": json.dumps(_J)}}},
    {"response_format": {"type": "json_object", "response_schema": _J}},
    {"response_format": {"type": "json_object", "json_schema": _J}},
    {"response_format": {"type": "json_schema", "name": "x", "strict": True, "schema": _J}},
    {"guided_json": _J},
    {"guided_json": json.dumps(_J)},
    {"structured_outputs": {"json": _J}},
    {"format": _J},
    {"json_schema": _J},
    {"extra_body": {"guided_json": _J}},
]
_LIMITS = [
    (path, "max_output_tokens" if path == RESPONSES else "max_tokens") for path in GENERATING
]
SCHEMAS = [
    Input(_SCHEMAS, path, {**fields, limit: 600}, schema=_J)
    for number, fields in enumerate(_PLACES)
    for path, limit in (_LIMITS[number % 4], _LIMITS[(number + 1) % 4])
]
SCHEMAS += [
    Input(
        _SCHEMAS,
        RESPONSES,
        {"text": {"format": {"type": "json_object", "schema": _J}}, "max_output_tokens": 600},
        schema=_J,
    ),
    Input(
        _SCHEMAS,
        RESPONSES,
        {
            "text": {"format": {"type": "json_schema", "json_schema": {"schema": _J}}},
            "max_output_tokens": 600,
        },
        schema=_J,
    ),
    Input(
        _SCHEMAS,
        MESSAGES,
        {"output_format": {"type": "json_schema", "schema": _J}, "max_tokens": 600},
        schema=_J,
    ),
    Input(_SCHEMAS, CHAT, {"response_format": "json_object", "max_tokens": 400}),
]
_GUIDED = "guided decoding"
GUIDED = [
    Input(_GUIDED, path, fields, schema={"enum": [1, 2]})
    for number, fields in enumerate[dict[str, Any]](
        (
            {"guided_regex": "[12]"},
            {"guided_choice": ["1", "2"]},
            {"structured_outputs": {"choice": ["1"]}},
            {"structured_outputs": {"regex": "1"}},
            {"guided_grammar": 'root ::= "1"'},
            {"regex": "1|2"},
            {"grammar": {"type": "regex", "value": "1"}},
            {"response_format": {"type": "regex", "regex": "1"}},
            {"response_format": {"type": "regex", "regex": {"regex": "2"}}},
        )
    )
    for path in (GENERATING[number % 4], MESSAGES)
]

_STOPS = "stop strings and hidden parts"
_CONST = object_of(a={"const": "x"})
STOPS = [
    *everywhere("stop strings", {"stop": [f"<{n}>" for n in range(16)]}),
    Input("stop strings", MESSAGES, {"stop_sequences": [f"<{n}>" for n in range(16)]}),
    *(
        calls(_STOPS, _CONST, path, model, fields={"stop": stop}, arguments={"a": "x"})
        for path in FAMILIES
        for model, stop in (("tagged", ["\n", "function"]), ("json", ['"', "arguments"]))
    ),
]

_CUT = "answers that end inside a call"
CUT = [
    Input(
        _CUT,
        path,
        {
            "tools": tools(path, _CONST),
            "tool_choice": {"type": "any"} if path == MESSAGES else "required",
            "max_output_tokens" if path == RESPONSES else "max_tokens": limit,
        },
        model,
        lacks=["<tool_call>", "<function", "tool_call_start", "call:f"],
        arguments=None,
    )
    for path in FAMILIES
    for model in ("tagged", "python", "gemma")
    for limit in (4, 9)
]

_KEYS = "extra keys inside messages"
KEYS = [
    Input(_KEYS, CHAT, {"messages": [{**USER, "id": "m"}]}, ignored=["messages.id"]),
    Input(_KEYS, MESSAGES, {"messages": [{**USER, "id": "m"}]}, ignored=["messages.id"]),
    Input(_KEYS, CHAT, {"messages": [{**USER, "weight": 0}]}, ignored=["messages.weight"]),
    Input(
        _KEYS,
        CHAT,
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {}}]}
            ]
        },
        ignored=["messages.content.cache_control"],
    ),
    Input(
        _KEYS,
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi", "x": 1}]}]},
        ignored=["input[0].content[0].x"],
    ),
    Input(
        _KEYS,
        CHAT,
        {"messages": [USER, {"role": "assistant", "content": "a", "parsed": {"a": 1}}, USER]},
        ignored=["messages.parsed"],
    ),
    Input(_KEYS, CHAT, {"messages": [{**USER, "name": None, "tool_calls": None}]}),
]

_EMPTY = "null and empty values"
_EMPTY_FIELDS: list[dict[str, Any]] = [
    {"tools": []},
    {"tools": [], "tool_choice": "auto"},
    {"tool_choice": "none"},
    {"response_format": None},
    {"format": ""},
    {"chat_template_kwargs": []},
    {"parallel_tool_calls": False},
    {"functions": []},
    {"modalities": ["text"]},
    {"tools": tools(CHAT, None)},
    {"tools": tools(CHAT, [])},
    {"tools": tools(CHAT, {"type": "object", "properties": None, "required": None})},
    {"tools": tools(CHAT, {"type": "object", "properties": []})},
    {"tools": tools(CHAT, {"properties": {"a": {}}})},
]
EMPTY = [Input(_EMPTY, CHAT, fields) for fields in _EMPTY_FIELDS]

INPUTS = [
    *(*VALUES, *FIELD, *VENDORS, *THINK, *SCHEMAS, *GUIDED),
    *(*STOPS, *CUT, *KEYS, *EMPTY),
]
