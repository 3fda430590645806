"""A dialect is one class and one line in the table."""

from __future__ import annotations

import json
import random
import re

import pytest

from server.core.reply import message_of
from server.core.reply_format import Calls, ReplyFormat
from server.core.request import Constraint, Tool, ToolCall, ToolChoice
from server.grammar.lark import Grammar, Spelling
from server.grammar.pattern_classes import Untranslatable
from server.reply.builtin_formats import format_from_table
from server.reply.control_tokens import control_tokens
from server.reply.dialects.dialect import Dialect
from server.reply.dialects.table import DIALECTS
from server.reply.grammar import reply_grammar
from server.reply.parser import ReplyParser, parse_reply
from server.reply.source import Source, Steps, Write
from server.reply.tool_schema import Arguments
from server.reply.writer import write_calls
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.reply.test_tool_grammar import matcher, walk


class Lines(Dialect):
    """An argument a line, all of them whole numbers: ``days: 3``."""

    markers = ("<|line|>",)

    def __init__(self, calls: Calls) -> None:
        if "\n" not in calls.call:
            raise ValueError("`call` needs lines")

    def read(self, source: Source, write: Write, tool: Tool | None) -> Steps[None]:
        separator = "{"
        yield from source.skip_space()
        while (yield from source.accept("<|line|>")):
            key = yield from source.before(": ")
            number = yield from source.before("\n")
            write(f'{separator}"{key}": {number}')
            separator = ", "
        write("{}" if separator == "{" else "}")

    def write(self, arguments: str) -> str:
        return "".join(f"<|line|>{key}: {n}\n" for key, n in json.loads(arguments).items())

    def grammar(self, arguments: Arguments, grammar: Grammar) -> str:
        head = grammar.spelling.literal("<|line|>")
        properties = arguments.schema["properties"]
        return " ".join(f'({head} "{key}: " /[0-9]+/ "\\n")?' for key in properties)

    def free_form(self, name: str, text: Constraint, grammar: Grammar) -> str:
        raise Untranslatable("it has whole numbers only")


TABLE = {"name": "toy", "calls": {"call": "<call>{name}\n{arguments}</call>", "dialect": "lines"}}
TOOL = Tool(name="get", parameters={"properties": {"days": {"type": "integer"}, "rooms": {}}})
ARGUMENTS = {"days": 3, "rooms": 12}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> ReplyFormat:
    monkeypatch.setitem(DIALECTS, "lines", Lines)
    return format_from_table(TABLE, "mine.toml")


def test_what_a_new_dialect_writes_it_reads_in_pieces(toy: ReplyFormat) -> None:
    assert toy.calls
    call = ToolCall(id="x", name="get", arguments=json.dumps(ARGUMENTS))
    text = write_calls([call], toy.calls)
    assert text == "<call>get\n<|line|>days: 3\n<|line|>rooms: 12\n</call>"
    parser = ReplyParser(toy, tools_active=True, tools=[TOOL])
    found = [event for character in text for event in parser.feed(character)]
    (read,) = message_of([*found, *parser.finish()]).tool_calls
    assert (read.name, json.loads(read.arguments)) == ("get", ARGUMENTS)


def test_what_its_grammar_allows_is_read_as_valid_calls(toy: ReplyFormat) -> None:
    grammar = reply_grammar(
        toy,
        prefix="",
        tools=[TOOL],
        choice=ToolChoice(mode="named", name="get"),
        content=None,
        spelling=Spelling(FakeVocabulary()),
    )
    assert grammar
    seen = set()
    for seed in range(20):
        text = walk(matcher(grammar.text), random.Random(seed), ["</call>"])
        assert text
        (call,) = parse_reply(text, toy, tools_active=True, tools=[TOOL]).tool_calls
        arguments = json.loads(call.arguments)
        assert all(isinstance(value, int) for value in arguments.values())
        seen |= arguments.keys()
    assert seen == ARGUMENTS.keys()


def test_its_markers_are_control_tokens_of_the_format(toy: ReplyFormat) -> None:
    assert "<|line|>" in control_tokens(toy)


def test_what_a_dialect_lacks_is_said_with_the_file() -> None:
    table = {"calls": {"call": "{name}{arguments}", "dialect": "lines"}}
    with pytest.raises(ValueError, match=re.escape("mine.toml: [reply] `call` needs lines")):
        format_from_table(table, "mine.toml")


def test_an_unknown_dialect_is_refused_with_those_that_exist() -> None:
    table = {"calls": {"call": "{name}{arguments}", "dialect": "xml"}}
    with pytest.raises(ValueError, match="'xml' is none of gemma, json, lines, pythonic, tagged"):
        format_from_table(table, "mine.toml")
