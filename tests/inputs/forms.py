"""Inputs about tools: their forms and names, choices among them, their calls."""

from __future__ import annotations

from typing import Any

from tests.inputs.inputs import (
    CHAT,
    DIALECTS,
    FAMILIES,
    MESSAGES,
    RESPONSES,
    USER,
    Input,
    object_of,
    tools,
)

_SCHEMA = object_of(a={"const": 1})
_NESTED = {"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}
_FLAT = {"type": "function", "name": "f", "parameters": _SCHEMA}
_LIMITS = {RESPONSES: "max_output_tokens"}


def required(kind: str, path: str, tool: Any, model: str = "json", **rest: Any) -> Input:
    """A request that must call ``tool`` with a 1 as ``a``."""
    choice: Any = (
        {"type": "any", "disable_parallel_tool_use": True} if path == MESSAGES else "required"
    )
    fields = {"tools": [tool], "tool_choice": choice, _LIMITS.get(path, "max_tokens"): 600}
    if path != MESSAGES:
        fields["parallel_tool_calls"] = False
    return Input(kind, path, fields, model, arguments=rest.pop("arguments", {"a": 1}), **rest)


_FORMS = "tools in the forms of other APIs"
FORMS = [
    required(_FORMS, path, tool)
    for path in FAMILIES
    for tool in (
        _NESTED,
        _FLAT,
        {"function": {"name": "f", "parameters": _SCHEMA}},
        {"name": "f", "parameters": _SCHEMA},
        {"name": "f", "input_schema": _SCHEMA},
        {"name": "f", "inputSchema": _SCHEMA},
    )
]
_HOSTED = "tools that other servers run"
HOSTED = [
    Input(_HOSTED, path, {"tools": [*tools(path, _SCHEMA), tool]}, ignored=[said])
    for path, tool, said in (
        (CHAT, {"type": "web_search"}, "tools[1] (web_search)"),
        (CHAT, {"googleSearch": {}}, "tools[1]"),
        (RESPONSES, {"type": "web_search_preview"}, "tools[1] (web_search_preview)"),
        (RESPONSES, {"type": "code_interpreter", "container": {}}, "tools[1] (code_interpreter)"),
        (MESSAGES, {"type": "bash_20250124", "name": "bash"}, "tools.bash_20250124"),
    )
]
_CHOICES = "choices of tools in the words of other APIs"
_CHOOSING: list[Any] = [
    *("any", "required", {"type": "any"}, {"type": "required"}),
    {"type": "function", "function": {"name": "f"}},
    {"type": "function", "name": "f"},
    {"type": "tool", "name": "f"},
    {"name": "f"},
]
CHOICES = [
    Input(
        _CHOICES,
        path,
        {"tools": [_FLAT], "tool_choice": choice, _LIMITS.get(path, "max_tokens"): 600},
        says=['"f"'],
        arguments=None,
    )
    for number, choice in enumerate(_CHOOSING)
    for path in (FAMILIES[number % 3], MESSAGES)
]
CHOICES += [
    Input(_CHOICES, FAMILIES[number % 3], {"tools": [_FLAT], "tool_choice": choice})
    for number, choice in enumerate(("auto", "none", {"type": "auto"}, {"type": "none"}))
]
_NAMES = "names of tools"
NAMES = [
    required(_NAMES, path, tools(path, _SCHEMA, name=name)[0], model, says=[f'"{name}"'])
    for number, name in enumerate(
        ("a.b", "x" * 70, "mcp__server__tool-1", "1st", "server/f", "ns:f f", "查询")
    )
    for path, model in ((FAMILIES[number % 3], "json"), *((CHAT, each) for each in DIALECTS[1:]))
]
_OLD = "functions, the old form of tools"
_FUNCTION = {"name": "f", "description": "d", "parameters": _SCHEMA}
OLD = [
    Input(_OLD, CHAT, {"functions": [_FUNCTION], **fields}, says=says)
    for fields, says in (
        ({"function_call": {"name": "f"}, "max_tokens": 120}, ['"function_call"']),
        ({"function_call": "auto"}, []),
        ({"function_call": "none"}, []),
        ({}, []),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
                    {"role": "function", "name": "f", "content": "x"},
                ]
            },
            [],
        ),
    )
]
_CUSTOM = "free-form tools"
_GRAMMAR = {"syntax": "regex", "definition": "ab"}
CUSTOM = [
    Input(
        _CUSTOM,
        CHAT,
        {
            "tools": [
                {
                    "type": "custom",
                    "custom": {"name": "sh", "format": {"type": "grammar", "grammar": _GRAMMAR}},
                }
            ],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "max_tokens": 120,
        },
        model,
        says=['"input":"ab"'],
        arguments=None,
    )
    for model in DIALECTS
]
CUSTOM += [
    Input(
        _CUSTOM,
        RESPONSES,
        {
            "tools": [{"type": "custom", "name": "sh", "format": {"type": "grammar", **_GRAMMAR}}],
            "tool_choice": "required",
            "max_output_tokens": 120,
        },
        says=['"custom_tool_call"', '"input":"ab"'],
        arguments=None,
    ),
    Input(
        _CUSTOM,
        CHAT,
        {
            "tools": [
                {
                    "type": "custom",
                    "custom": {
                        "name": "sh",
                        "format": {
                            "type": "grammar",
                            "grammar": {"syntax": "lark", "definition": "start: ("},
                        },
                    },
                }
            ]
        },
        status=400,
        param="tools[0]",
    ),
]
_CALLS = "past calls in the forms of other APIs"
_RESULT = {"role": "tool", "tool_call_id": "c", "content": "1"}
CALLS = [
    Input(_CALLS, CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": [call]}, result]})
    for call, result in (
        ({"function": {"name": "f", "arguments": {}}}, {"role": "tool", "content": "1"}),
        (
            {"function": {"name": "f", "arguments": {}}},
            {"role": "tool", "tool_name": "f", "content": "1"},
        ),
        ({"id": "c", "type": "tool_call", "name": "f", "args": {}}, _RESULT),
        ({"id": "c", "type": "function", "name": "f", "arguments": "{}"}, _RESULT),
        ({"id": "c", "type": "function", "function": {"name": "f"}}, _RESULT),
        (
            {"id": "", "type": "function", "function": {"name": "f", "arguments": []}},
            {**_RESULT, "tool_call_id": ""},
        ),
    )
]

CALLS += [
    Input(_CALLS, RESPONSES, {"input": [USER, {"type": kind, "name": "f", **call}, result]})
    for kind, call, result in (
        ("function_call", {"arguments": "{}"}, {"type": "function_call_output", "output": "1"}),
        (
            "function_call",
            {"id": "fc_1", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "fc_1", "output": "1"},
        ),
        ("custom_tool_call", {"input": "x"}, {"type": "custom_tool_call_output", "output": "1"}),
    )
]
CALLS += [
    Input(
        _CALLS,
        RESPONSES,
        {
            "input": "",
            "messages": [USER, {"role": "assistant", **answer, "tool_calls": [call]}, result, USER],
        },
    )
    for answer in ({"content": None}, {"content": "So."}, {})
    for call, result in (
        ({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}, _RESULT),
        ({"function": {"name": "f", "arguments": {}}}, {"role": "tool", "content": "1"}),
        ({"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}, _RESULT),
    )
]
_ROLES = "roles as other APIs name them"
ROLES = [
    Input(_ROLES, path, {"input" if path == RESPONSES else "messages": turns})
    for path in FAMILIES
    for turns in (
        [{**USER, "role": "USER"}],
        [{**USER, "role": "human"}, {**USER, "role": "ai"}, {**USER, "role": "human"}],
        [USER, {**USER, "role": "model"}, {**USER, "role": "System"}, USER],
    )
]

INPUTS = [*ROLES, *FORMS, *HOSTED, *CHOICES, *NAMES, *OLD, *CUSTOM, *CALLS]
