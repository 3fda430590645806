"""Names of tools as MCP allows them, and letters of any script: up to 128 characters."""

from __future__ import annotations

import pytest

from server.core.request import Tool, ToolCall
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.parser import parse_reply
from server.reply.writer import write_calls

CALLING = [name for name, table in builtin_tables().items() if "calls" in table]


@pytest.mark.parametrize("format_name", CALLING)
@pytest.mark.parametrize(
    "name", ["a.b", ".a", "1-a", "a..b", "für_Köln", "查询天气", "x" * 128, "a.b-c_d." + "y" * 120]
)
def test_every_format_writes_and_reads_them(format_name: str, name: str) -> None:
    reply_format = builtin_format(format_name)
    assert reply_format.calls
    call = ToolCall(id="a1B2c3D4e", name=name, arguments='{"key": "value"}')
    tool = Tool(name=name, parameters={"type": "object", "properties": {"key": {"type": "string"}}})
    text = write_calls([call], reply_format.calls)

    message = parse_reply(text, reply_format, tools_active=True, tools=[tool])

    assert [made.name for made in message.tool_calls] == [name]
    assert not message.content


@pytest.mark.parametrize("format_name", ["hermes", "llama-3", "mistral-nemo"])
def test_the_name_of_the_request_is_read_where_the_model_sees_another(format_name: str) -> None:
    tool = Tool(name="fs_read", name_in_request="fs/read", parameters={"type": "object"})
    text = '{"name": "fs/read", "arguments": {"key": "value"}}'
    message = parse_reply(text, builtin_format(format_name), tools_active=True, tools=[tool])
    assert [call.name for call in message.tool_calls] == ["fs_read"]
    assert not message.content
