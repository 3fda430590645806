"""One reply in each family's own words, and the message it stands for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.parser import parse_reply
from tests.unit.reply.replies import TOOLS

OSLO = ("get_weather", {"city": "Oslo", "days": 3})
ROME = ("get_time", {"city": "Rome"})
OSLO_JSON, ROME_JSON = '{"city": "Oslo", "days": 3}', '{"city": "Rome"}'

DSML = (
    "Let me look.\n\n<｜DSML｜{0}>\n"
    '<｜DSML｜invoke name="get_weather">\n'
    '<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>\n"
    '<｜DSML｜invoke name="get_time">\n'
    '<｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>\n</｜DSML｜{0}>"
)
TAGGED = (
    "{0}\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n{1}\n"
    "{0}\n<function=get_time>\n<parameter=city>\nRome\n</parameter>\n</function>\n{1}"
)
HERMES = (
    '<tool_call>\n{"name": "get_weather", "arguments": ' + OSLO_JSON + "}\n</tool_call>\n"
    '<tool_call>\n{"name": "get_time", "arguments": ' + ROME_JSON + "}\n</tool_call>"
)
ARRAY = (
    '[{"name": "get_weather", "arguments": ' + OSLO_JSON + "}, "
    '{"name": "get_time", "arguments": ' + ROME_JSON + "}]"
)
CASES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "hermes",
        "<think>\nHm.\n</think>\n\nLet me look.\n" + HERMES,
        {"reasoning": "Hm.", "content": "Let me look.", "calls": [OSLO, ROME]},
    ),
    (
        "qwen3-coder",
        "Let me look.\n" + TAGGED.format("<tool_call>", "</tool_call>"),
        {"content": "Let me look.", "calls": [OSLO, ROME]},
    ),
    (
        "qwen3-coder",
        "<think>\nFirst, a call.\n" + TAGGED.format("<tool_call>", "</tool_call>"),
        {"reasoning": "First, a call.", "calls": [OSLO, ROME]},
    ),
    (
        "seed-oss",
        "<seed:think>Hm.</seed:think>\n"
        + TAGGED.format("<seed:tool_call>", "</seed:tool_call>")
        .replace(">\nOslo\n<", ">Oslo<")
        .replace(">\n3\n<", ">3<")
        .replace(">\nRome\n<", ">Rome<"),
        {"reasoning": "Hm.", "calls": [OSLO, ROME]},
    ),
    ("llama-3", '{"name": "get_weather", "parameters": ' + OSLO_JSON + "}", {"calls": [OSLO]}),
    (
        "llama-3",
        '{"type": "function", "name": "get_time", "parameters": {"city": "Rome"}}',
        {"calls": [ROME]},
    ),
    (
        "mistral-nemo",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": ' + OSLO_JSON + ', "id": "a1b2c3d4e"}, '
        '{"name": "get_time", "arguments": ' + ROME_JSON + ', "id": "f5g6h7i8j"}]',
        {"calls": [OSLO, ROME], "ids": ["a1b2c3d4e", "f5g6h7i8j"]},
    ),
    (
        "mistral-call-id",
        (
            f"[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{OSLO_JSON}"
            f"[TOOL_CALLS]get_time[CALL_ID]f5g6h7i8j[ARGS]{ROME_JSON}"
        ),
        {"calls": [OSLO, ROME], "ids": ["a1b2c3d4e", "f5g6h7i8j"]},
    ),
    (
        "mistral-args",
        (
            f"[THINK]Hm.[/THINK]Look:[TOOL_CALLS]get_weather[ARGS]{OSLO_JSON}"
            f"[TOOL_CALLS]get_time[ARGS]{ROME_JSON}"
        ),
        {"reasoning": "Hm.", "content": "Look:", "calls": [OSLO, ROME]},
    ),
    (
        "functionary-3_1",
        f"Look:<function=get_weather>{OSLO_JSON}</function><function=get_time>{ROME_JSON}</function>",
        {"content": "Look:", "calls": [OSLO, ROME]},
    ),
    (
        "functionary-3_2",
        f">>>all\nLet me look.\n>>>get_weather\n{OSLO_JSON}>>>get_time\n{ROME_JSON}",
        {"content": "Let me look.", "calls": [OSLO, ROME]},
    ),
    (
        "cohere",
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": ' + OSLO_JSON + "},\n"
        '    {"tool_call_id": "1", "tool_name": "get_time", "parameters": ' + ROME_JSON + "}\n"
        "]<|END_ACTION|>",
        {"reasoning": "Hm.", "calls": [OSLO, ROME], "ids": ["0", "1"]},
    ),
    (
        "cohere",
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>It is 9.<|END_RESPONSE|>",
        {"reasoning": "Hm.", "content": "It is 9."},
    ),
    (
        "command-r",
        'Action:\n```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": '
        + OSLO_JSON
        + '\n    },\n    {"tool_name": "get_time", "parameters": '
        + ROME_JSON
        + "}\n]```",
        {"calls": [OSLO, ROME]},
    ),
    (
        "deepseek-r1",
        (
            "<think>\nHm.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
            f"get_weather\n```json\n{OSLO_JSON}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function"
            f"<｜tool▁sep｜>get_time\n```json\n{ROME_JSON}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
        {"reasoning": "Hm.", "calls": [OSLO, ROME]},
    ),
    (
        "deepseek-v3_1",
        (
            f"</think>Look:<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{OSLO_JSON}"
            f"<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{ROME_JSON}<｜tool▁call▁end｜>"
            "<｜tool▁calls▁end｜>"
        ),
        {"content": "Look:", "calls": [OSLO, ROME]},
    ),
    (
        "deepseek-v3_2",
        DSML.format("function_calls"),
        {"content": "Let me look.", "calls": [OSLO, ROME]},
    ),
    ("deepseek-v4", DSML.format("tool_calls"), {"content": "Let me look.", "calls": [OSLO, ROME]}),
    (
        "gpt-oss",
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>"
            "Let me look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
            f"<|constrain|>json<|message|>{OSLO_JSON}<|call|>"
        ),
        {"reasoning": "Hm.", "content": "Let me look.", "calls": [OSLO]},
    ),
    (
        "gpt-oss",
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
            "It is 9.<|return|>"
        ),
        {"reasoning": "Hm.", "content": "It is 9."},
    ),
    (
        "gpt-oss",
        f" to=functions.get_time<|channel|>commentary json<|message|>{ROME_JSON}",
        {"calls": [ROME], "prefix": "<|start|>assistant"},
    ),
    (
        "muse",
        (
            " to=self<|message|>Hm.<|eom|><|start|>assistant to=get_weather<|message|>"
            '<atem:function_calls>\n<atem:invoke name="get_weather">\n'
            '<atem:parameter name="city">Oslo</atem:parameter>\n'
            '<atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
        ),
        {"reasoning": "Hm.", "calls": [OSLO], "prefix": "<|start|>assistant"},
    ),
    (
        "glm",
        (
            "<think>Hm.</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n"
            "<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n"
            "<tool_call>get_time<arg_key>city</arg_key><arg_value>Rome</arg_value></tool_call>"
        ),
        {"reasoning": "Hm.", "calls": [OSLO, ROME]},
    ),
    (
        "kimi-k2",
        (
            "Look:<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:4"
            f"<|tool_call_argument_begin|>{OSLO_JSON}<|tool_call_end|><|tool_call_begin|>"
            f"functions.get_time:5<|tool_call_argument_begin|>{ROME_JSON}<|tool_call_end|>"
            "<|tool_calls_section_end|>"
        ),
        {
            "content": "Look:",
            "calls": [OSLO, ROME],
            "ids": ["functions.get_weather:4", "functions.get_time:5"],
        },
    ),
    (
        "minimax-m1",
        "<think>\nHm.\n</think>\n\n<tool_calls>\n"
        '{"name": "get_weather", "arguments": ' + OSLO_JSON + "}\n"
        '{"name": "get_time", "arguments": ' + ROME_JSON + "}\n</tool_calls>",
        {"reasoning": "Hm.", "calls": [OSLO, ROME]},
    ),
    (
        "minimax-m2",
        (
            'Hm.\n</think>\n\n<minimax:tool_call>\n<invoke name="get_weather">\n'
            '<parameter name="city">Oslo</parameter>\n'
            '<parameter name="days">3</parameter>\n</invoke>\n'
            '<invoke name="get_time">\n<parameter name="city">Rome</parameter>\n</invoke>\n'
            "</minimax:tool_call>"
        ),
        {"reasoning": "Hm.", "calls": [OSLO, ROME], "prefix": "<think>\n"},
    ),
    (
        "gemma-4",
        (
            '<|channel>thought\nHm.<channel|><|tool_call>call:get_weather{city:<|"|>Oslo<|"|>,days:3}'
            '<tool_call|><|tool_call>call:get_time{city:<|"|>Rome<|"|>}<tool_call|>'
        ),
        {"reasoning": "Hm.", "calls": [OSLO, ROME]},
    ),
    (
        "lfm2",
        (
            "<|tool_call_start|>[get_weather(city='Oslo', days=3), get_time(city=\"Rome\")]"
            "<|tool_call_end|>Looking."
        ),
        {"content": "Looking.", "calls": [OSLO, ROME]},
    ),
    ("functools", "functools" + ARRAY, {"calls": [OSLO, ROME]}),
    (
        "apertus",
        'Look:<|tools_prefix|>[{"get_weather": ' + OSLO_JSON + '}, {"get_time": ' + ROME_JSON + "}]"
        "<|tools_suffix|>",
        {"content": "Look:", "calls": [OSLO, ROME]},
    ),
    (
        "apriel",
        "Hm.\n[BEGIN FINAL RESPONSE]\nLook:\n<tool_calls>" + ARRAY + "</tool_calls>",
        {
            "reasoning": "Hm.",
            "content": "Look:",
            "calls": [OSLO, ROME],
            "prefix": "Here are my reasoning steps:\n",
        },
    ),
    (
        "nemotron-v2",
        "Hm.\n</think>\n<TOOLCALL>" + ARRAY + "</TOOLCALL>",
        {"reasoning": "Hm.", "calls": [OSLO, ROME], "prefix": "<think>\n"},
    ),
    (
        "gigachat-3",
        'Look:<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "get_weather", "arguments": '
        + OSLO_JSON
        + "}",
        {"content": "Look:", "calls": [OSLO]},
    ),
    (
        "granite-3",
        "<think>Hm.</think><response>Look:</response><|tool_call|>" + ARRAY,
        {"reasoning": "Hm.", "content": "Look:", "calls": [OSLO, ROME]},
    ),
]


@pytest.mark.parametrize(("name", "text", "wanted"), CASES)
def test_a_reply_of_the_family_is_understood(name: str, text: str, wanted: dict[str, Any]) -> None:
    message = parse_reply(
        text,
        builtin_format(name),
        prefix=wanted.get("prefix", ""),
        tools_active=True,
        tools=TOOLS,
    )
    calls = [(call.name, json.loads(call.arguments)) for call in message.tool_calls]
    assert calls == wanted.get("calls", [])
    assert message.content == wanted.get("content")
    assert message.reasoning_content == wanted.get("reasoning")
    if "ids" in wanted:
        assert [call.id for call in message.tool_calls] == wanted["ids"]


def test_every_built_in_format_has_a_golden_reply() -> None:
    same = {name for name, table in builtin_tables().items() if "format" in table}
    assert {name for name, _, _ in CASES} | same == set(builtin_tables())
