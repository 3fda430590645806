"""Inputs about what a prompt is made of: texts, thoughts, past calls."""

from __future__ import annotations

from typing import Any

from tests.inputs.inputs import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    TEMPLATE,
    USER,
    Input,
    in_a_chat,
    in_chats,
    notations,
)

ANSWER = {"role": "assistant", "content": "So."}


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def rendered(kind: str, *turns: dict[str, Any], model: str = "switches", **rest: Any) -> Input:
    fields = {"messages": list(turns), **rest.pop("fields", {})}
    return Input(kind, TEMPLATE, fields, model, **rest)


_LOOKS = "switches that a template looks for in texts"
SWITCHES = [
    rendered(_LOOKS, turn("system", "Be brief. /no_think"), USER, says=["Mode: off. Be brief.\\n"]),
    rendered(_LOOKS, turn("system", "Be brief."), USER, says=["Mode: on. Be brief.\\n"]),
    rendered(_LOOKS, turn("system", "/no_think"), USER, says=["Mode: off. \\n"]),
    rendered(_LOOKS, turn("user", "Go /nothink"), says=["Mode: off", "Go /nothink"]),
    rendered(_LOOKS, turn("user", "!quiet now"), says=["Mode: off", "!quiet now"]),
    rendered(_LOOKS, turn("user", "not !quiet now"), says=["Mode: on"]),
    rendered(
        _LOOKS,
        turn("system", [{"type": "text", "text": "Be brief. /no_think"}]),
        USER,
        says=["Mode: off. Be brief.\\n"],
    ),
    rendered(_LOOKS, turn("user", "<think> /nothink"), says=["Mode: off", "<think> /nothink"]),
]

_MORE = "reasoning efforts that a template does not know"
EFFORTS = [
    *(
        in_a_chat(_MORE, number, {"reasoning_effort": effort}, model="thinker")
        for number, effort in enumerate(
            (
                *("none", "minimal", "low", "xhigh", "max", "off", "disabled", "default", "auto"),
                *("NONE", "Medium", ""),
            )
        )
    ),
    Input(_MORE, RESPONSES, {"reasoning": {"effort": "auto"}}, "thinker"),
    Input(
        _MORE, RESPONSES, {"reasoning": {"effort": "none"}}, "thinker", lacks=['"reasoning_text"']
    ),
    Input(_MORE, MESSAGES, {"output_config": {"effort": "max"}}, "thinker"),
    Input(_MORE, CHAT, {"reasoning_effort": "low"}, ignored=["reasoning_effort"]),
    Input(_MORE, CHAT, {"reasoning_effort": "huge"}, status=400, param="reasoning_effort"),
    Input(_MORE, TEMPLATE, {"reasoning_effort": "off"}, "thinker", says=["<think>\\n\\n</think>"]),
]

_BROKEN = "arguments of past calls that are no JSON object"


def past_call(arguments: Any, result: Any = "no") -> list[dict[str, Any]]:
    function = {"name": "f", "arguments": arguments}
    call = {"id": "c", "type": "function", "function": function}
    return [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": result},
    ]


BROKEN = [
    *(
        Input(_BROKEN, CHAT, {"messages": past_call(text)}, model)
        for number, text in enumerate(("{", '{"a": "x', "{'a': 1,}", "NaN"))
        for model in notations(number)
    ),
    Input(_BROKEN, CHAT, {"messages": past_call([])}),
    Input(_BROKEN, CHAT, {"messages": past_call(None)}),
    Input(
        _BROKEN,
        RESPONSES,
        {
            "input": [
                USER,
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"},
                {"type": "function_call_output", "call_id": "c", "output": "no"},
            ]
        },
    ),
    Input(
        _BROKEN,
        MESSAGES,
        {
            "messages": [
                USER,
                turn("assistant", [{"type": "tool_use", "id": "c", "name": "f", "input": "{"}]),
                turn("user", [{"type": "tool_result", "tool_use_id": "c", "content": "no"}]),
            ]
        },
    ),
]

_THOUGHTS = "thoughts of past answers under other names"


def thought(**fields: Any) -> Input:
    answer = {**ANSWER, **fields}
    return rendered(_THOUGHTS, USER, answer, USER, model="thinker", says=["t1", "So."])


THOUGHTS = [
    thought(reasoning_content="t1"),
    thought(reasoning="t1"),
    thought(thinking="t1"),
    thought(reasoning={"text": "t1"}),
    thought(reasoning=None, reasoning_content=[{"type": "text", "text": "t1"}]),
    thought(reasoning_details=[{"type": "reasoning.text", "text": "t1"}]),
    thought(thinking_blocks=[{"type": "thinking", "thinking": "t1", "signature": "x"}]),
    thought(content=[{"type": "thinking", "thinking": "t1"}, {"type": "text", "text": "So."}]),
    thought(content=[{"type": "reasoning", "text": "t1"}, {"type": "text", "text": "So."}]),
    rendered(_THOUGHTS, USER, {**ANSWER, "reasoning_details": []}, USER, model="thinker"),
    Input(
        _THOUGHTS,
        RESPONSES,
        {
            "input": [
                USER,
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
                ANSWER,
                USER,
            ]
        },
        "thinker",
    ),
    Input(
        _THOUGHTS,
        MESSAGES,
        {
            "messages": [
                USER,
                turn(
                    "assistant",
                    [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "x"}],
                ),
                USER,
            ]
        },
        "thinker",
    ),
]

_LATE = "system messages behind others"
LATE = [
    rendered(
        _LATE,
        turn("system", "S1."),
        turn("user", "u1"),
        ANSWER,
        turn("user", "u2"),
        turn(role, "S2."),
        turn("user", "u3"),
        model="json",
        says=["S1.", "u1", "So.", "u2", "S2.", "u3"],
    )
    for role in ("system", "developer")
]
LATE += [
    *(
        row
        for role in ("system", "developer")
        for row in in_chats(_LATE, {"messages": [USER, turn(role, "Be brief.")], "input": ""})
    ),
    Input(_LATE, RESPONSES, {"input": [USER, ANSWER, turn("developer", "Be brief."), USER]}),
    rendered(
        _LATE, turn("system", "a1"), turn("system", "b1"), USER, model="json", says=["a1", "b1"]
    ),
]

_BEGUN = "answers that are begun for the model"
BEGUN = [
    rendered(
        _BEGUN, USER, {**ANSWER, **fields}, model="json", fields=of_body, says=['assistant\\nSo.",']
    )
    for fields, of_body in (
        ({}, {"continue_final_message": True}),
        ({"prefix": True}, {}),
        ({"partial": True}, {}),
        ({"prefix": True}, {"continue_final_message": True}),
    )
]
BEGUN += [
    Input(_BEGUN, MESSAGES, {"messages": [USER, ANSWER]}),
    Input(_BEGUN, CHAT, {"messages": [USER, {**ANSWER, "prefix": False}]}),
    Input(
        _BEGUN,
        CHAT,
        {"messages": [USER, {**ANSWER, "prefix": True}, USER]},
        ignored=["messages.prefix"],
    ),
]

_CONTENT = "contents in other forms"
CONTENTS = [
    *(
        Input(
            _CONTENT, path, {"input" if path == RESPONSES else "messages": [turn("user", content)]}
        )
        for path in (CHAT, RESPONSES, MESSAGES)
        for content in (["Hi"], [{"text": "Hi"}], {"type": "text", "text": "Hi"}, "")
    ),
    Input(_CONTENT, CHAT, {"messages": [turn("user", [{"type": "input_text", "text": "Hi"}])]}),
    Input(_CONTENT, CHAT, {"messages": [USER, turn("assistant", None), USER]}),
    Input(_CONTENT, CHAT, {"messages": [USER, turn("assistant", []), USER]}),
    Input(_CONTENT, CHAT, {"messages": past_call("{}", {"a": [1]})}),
    Input(_CONTENT, CHAT, {"messages": past_call("{}", ["a", 1])}),
    Input(_CONTENT, RESPONSES, {"input": "", "messages": [USER]}),
    Input(_CONTENT, RESPONSES, {"input": ["Hi"]}),
    Input(_CONTENT, MESSAGES, {"system": ["Be brief."]}),
    Input(_CONTENT, MESSAGES, {"system": {"type": "text", "text": "Be brief."}}),
    Input(_CONTENT, CHAT, {"messages": "Hi"}, status=400, param="messages"),
]

_NATIVE = "native prompts and scores as evaluators send them"
NATIVE = [
    *(
        Input(_NATIVE, COMPLETIONS, fields)
        for fields in (
            {"prompt": ["Hi", "Yo"]},
            {"prompt": [[5, 6]]},
            {"prompt": [5, 6]},
            {"prompt": None},
            {"prompt": [""]},
            {"echo": True, "logprobs": 1, "max_tokens": 0},
            {"logprobs": False},
            {"suffix": ""},
            {"until": ["</s>", "\n\n", "Q:", "A:", "#", "##"]},
            {"best_of": 1, "n": 1.0, "seed": 1234.0, "temperature": 0.0},
        )
    ),
    Input(_NATIVE, COMPLETIONS, {"prompt_logprobs": 1}, ignored=["prompt_logprobs"]),
    Input(_NATIVE, COMPLETIONS, {"use_beam_search": False}, ignored=["use_beam_search"]),
    Input(_NATIVE, COMPLETIONS, {"prompt": {"text": "Hi"}}, status=400, param="prompt"),
    Input(_NATIVE, COMPLETIONS, {"prompt": [[]]}, status=400, param="prompt[0]"),
]
_EMBEDDED = "embeddings as clients send them"
EMBEDDED = [
    Input(_EMBEDDED, EMBEDDINGS, fields)
    for fields in (
        {"input": ["a", "b"]},
        {"input": [5, 6]},
        {"input": [[5, 6]]},
        {"input": [{"text": "Hi"}, "Yo"]},
        {"input": {"type": "text", "text": "Hi"}},
        {"encoding_format": "base64"},
        {"dimensions": None},
    )
]
EMBEDDED += [
    Input(_EMBEDDED, EMBEDDINGS, {name: value}, ignored=[name])
    for name, value in (("input_type", "query"), ("user", "u"), ("task", "x"))
]

INPUTS = [
    *(*SWITCHES, *EFFORTS, *BROKEN, *THOUGHTS),
    *(*LATE, *BEGUN, *CONTENTS, *NATIVE, *EMBEDDED),
]
