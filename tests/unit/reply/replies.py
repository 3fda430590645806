"""What the reply tests share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from server.core.reply import message_of
from server.core.reply_format import ReplyFormat
from server.core.request import Message, Tool, ToolCall
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.parser import ReplyParser
from server.reply.syntax import compile_calls

WEATHER = Tool(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "exact": {"type": "boolean"},
            "fields": {"type": "array"},
        },
    },
)
TOOLS = [WEATHER, Tool(name="get_time", parameters={"properties": {"city": {"type": "string"}}})]

CALLS = [
    ToolCall(id="a1b2c3d4e", name="get_weather", arguments='{"city": "Oslo", "days": 3}'),
    ToolCall(id="f5g6h7i8j", name="get_time", arguments='{"city": "x < y"}'),
]

_OSLO = '{"city": "Oslo", "days": 3}'
_JSON_CALL = '{"name": "get_weather", "arguments": ' + _OSLO + "}"
_TAGS = (
    "<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n"
    "</parameter>\n</function>\n</tool_call>"
)
_INVOKE = (
    '<invoke name="get_weather">\n<parameter name="city">Oslo</parameter>\n'
    '<parameter name="days">3</parameter>\n</invoke>'
)
FOREIGN_CALLS = {
    "JSON": _JSON_CALL,
    "parameters": _JSON_CALL.replace("arguments", "parameters"),
    "function, args": _JSON_CALL.replace("name", "function").replace("arguments", "args"),
    "tool, input": _JSON_CALL.replace("name", "tool").replace("arguments", "input"),
    "tool_name": _JSON_CALL.replace("name", "tool_name").replace("arguments", "tool_input"),
    "action": _JSON_CALL.replace("name", "action").replace("arguments", "action_input"),
    "arguments first": f'{{"arguments": {_OSLO}, "name": "get_weather"}}',
    "arguments as text": json.dumps({"name": "get_weather", "arguments": _OSLO}),
    "type": _JSON_CALL.replace("{", '{"type": "function", ', 1),
    "OpenAI": f'{{"type": "function", "function": {_JSON_CALL}}}',
    "OpenAI's list": f'{{"tool_calls": [{{"id": "a", "function": {_JSON_CALL}}}]}}',
    "array": f"[{_JSON_CALL}]",
    "fence": f"```json\n{_JSON_CALL}\n```",
    "plain fence": f"```\n[{_JSON_CALL}]\n```",
    "closed only": f"{_JSON_CALL}\n</tool_call>",
    "Python": '[get_weather(city="Oslo", days=3)]',
    "Hermes": f"<tool_call>\n{_JSON_CALL}\n</tool_call>",
    "Hermes, never closed": f"<tool_call>\n{_JSON_CALL}",
    "Hermes with a fence": f"<tool_call>\n```json\n{_JSON_CALL}\n```\n</tool_call>",
    "Hermes with an array": f"<tool_call>[{_JSON_CALL}]</tool_call>",
    "Qwen": f"<tool_call>\n{_TAGS}",
    "Qwen, never opened": _TAGS,
    "Functionary": f"<function=get_weather>{_OSLO}</function>",
    "GLM": "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
    "invoke": _INVOKE,
    "invoke in a section": f"<function_calls>\n{_INVOKE}\n</function_calls>",
    "MiniMax": f"<minimax:tool_call>\n{_INVOKE}\n</minimax:tool_call>",
    "Mistral": f"[TOOL_CALLS][{_JSON_CALL}]",
    "Mistral with an object": f"[TOOL_CALLS]{_JSON_CALL}",
    "Mistral's later form": f"[TOOL_CALLS]get_weather[ARGS]{_OSLO}",
    "Llama's tag": f"<|python_tag|>{_JSON_CALL.replace('arguments', 'parameters')}",
    "Kimi without a section": "<|tool_call_begin|>functions.get_weather:0"
    f"<|tool_call_argument_begin|>{_OSLO}<|tool_call_end|><|tool_calls_section_end|>",
    "DeepSeek without a section": "<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
    f"{_OSLO}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "DSML without a section": '<｜DSML｜invoke name="get_weather">\n'
    '<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    "Gemma": '<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>',
    "LFM2": '<|tool_call_start|>[get_weather(city="Oslo", days=3)]<|tool_call_end|>',
    "Nemotron": f"<TOOLCALL>[{_JSON_CALL}]</TOOLCALL>",
    "Mistral without a mark before the arguments": f"[TOOL_CALLS]get_weather{_OSLO}",
    "Phi": f"<|tool_call|>[{_JSON_CALL}]<|/tool_call|>",
    "Phi, as OpenAI's": '<|tool_call|>[{"type": "function", "function": '
    f"{_JSON_CALL}}}]<|/tool_call|>",
    "Hunyuan": "<tool_calls>\n<tool_call>get_weather\n```json\n"
    f"{_OSLO}\n```\n</tool_call>\n</tool_calls>",
    "Python in Hermes' markers": '<tool_call>\nget_weather(city="Oslo", days=3)\n</tool_call>',
    "OLMo": '<function_calls>get_weather(city="Oslo", days=3)</function_calls>',
    "Llama 4": '<|python_start|>[get_weather(city="Oslo", days=3)]<|python_end|>',
    "function by attribute": f'<function name="get_weather">{_OSLO}</function>',
    "tool_args": _JSON_CALL.replace("name", "tool_name").replace("arguments", "tool_args"),
    "OpenAI's namespace": _JSON_CALL.replace("get_weather", "functions.get_weather"),
    "recipient": _JSON_CALL.replace('"name": "', '"recipient_name": "functions.'),
    "Command R": f"```json\n[{_JSON_CALL.replace('name', 'tool_name')}]\n```",
}
"""One call in forms that models fall back to, whatever their family writes."""

FORMATS = [pytest.param(builtin_format(name), id=name) for name in builtin_tables()]


def trigger(reply_format: ReplyFormat) -> str:
    """The text with which a call opens."""
    assert reply_format.calls
    return compile_calls(reply_format.calls).trigger


def parse_in_pieces(
    pieces: Iterable[str], reply_format: ReplyFormat | None, **options: Any
) -> Message:
    return read_in_pieces(pieces, reply_format, **options)[0]


def read_in_pieces(
    pieces: Iterable[str], reply_format: ReplyFormat | None, **options: Any
) -> tuple[Message, ReplyParser]:
    parser = ReplyParser(reply_format, **{"tools_active": True, **options})
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return message_of([*deltas, *parser.finish()]), parser


def without_ids(message: Message) -> Message:
    calls = [msgspec.structs.replace(call, id="") for call in message.tool_calls]
    return msgspec.structs.replace(message, tool_calls=calls)
