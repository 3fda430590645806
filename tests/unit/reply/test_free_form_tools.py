"""Free-form tools under their own grammars, in every dialect."""

from __future__ import annotations

import json
import random
import time

import pytest

from server.core.errors import InvalidConstraint
from server.core.reply import ContentDelta, ToolCallArguments, ToolCallInput, ToolCallStart
from server.core.request import ChatPrompt, Constraint, Message, Tool
from server.grammar.free_text import text_grammar
from server.reply.builtin_formats import builtin_format
from server.reply.custom_tools import CustomCalls, as_functions
from server.reply.parser import parse_reply
from tests.unit.grammar.subjects import matches
from tests.unit.reply.test_tool_grammar import (
    PREFIXES,
    closings,
    grammar_for,
    matcher,
    walk,
)

# Like the grammar of Codex's apply_patch: fixed lines, free ones, an imported end of line.
PATCH = r"""
start: begin hunk+ end   // a comment with "quotes"
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?
hunk: "*** Add File: " name LF line+ -> add
    | "*** Update File: " name LF ("@@" | "@@ " /(.+)/) LF (("+" | "-" | " ") /(.*)/ LF)+
name: /[^\n"\\]+\.(py|txt)/i
line: "+" /(.*)/ LF
%import common.LF
"""
LISTS = r"""
start: "[" item ("," item)* "]"
item: NUMBER | STRING | DIGITS ~ 2..3 "\x21\u0022"
STRING: "'" /(?:[^'\\\t]|\\['\\nt])*/ "'"
DIGITS: "0".."7"
%import common (NUMBER, WS)
%ignore WS
"""
TEXT = 'start: /[\\s\\S]{1,20}"/'
REGEX = r"^(?P<key>\w{2,4})[=:]\"[^\"<]*\"\\\d$"
# Texts by which a walk comes to an end sooner, as they are and inside JSON.
ENDS = ["\n*** End Patch\n", "\\n*** End Patch\\n", ".py\n", ".py\\n", '"7', '\\"7']
GRAMMARS = [
    pytest.param(Constraint(kind="lark", body=PATCH), id="patch"),
    pytest.param(Constraint(kind="lark", body=LISTS), id="lists"),
    pytest.param(Constraint(kind="lark", body=TEXT), id="text"),
    pytest.param(Constraint(kind="regex", body=REGEX), id="regex"),
]


# Each dialect, some in several frames.
NAMES = [
    *("hermes", "llama-3", "mistral-nemo", "gpt-oss", "qwen3-coder", "glm", "deepseek-v3_2"),
    *("gemma-4", "lfm2"),
]


def offered(grammar: Constraint) -> list[Tool]:
    custom = Tool(name="free", kind="custom", description="Free.", grammar=grammar)
    prompt = ChatPrompt(messages=[Message(role="user", content="x")], tools=[custom])
    return list(as_functions(prompt).tools)


def original(grammar: Constraint) -> str:
    """The tool's grammar as the compiler reads it by itself."""
    body = grammar.body
    if grammar.kind == "regex":
        body = "start: /" + body.removeprefix("^").removesuffix("$") + "/"
    return json.dumps({"grammars": [{"lark_grammar": body}]})


@pytest.mark.process
@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("name", NAMES)
def test_every_call_of_a_free_form_tool_has_an_input_of_its_grammar(
    name: str, grammar: Constraint
) -> None:
    reply_format = builtin_format(name)
    tools = offered(grammar)
    subject = matcher(grammar_for(reply_format, tools=tools))
    finished = 0
    for seed in range(20):
        text = walk(subject, random.Random(seed), [*closings(reply_format), *ENDS])
        if text is None:
            continue
        finished += 1
        before = PREFIXES.get(reply_format.name, "")
        message = parse_reply(text, reply_format, prefix=before, tools_active=True, tools=tools)
        calls = message.tool_calls
        assert calls, text
        for call in calls:
            arguments = json.loads(call.arguments)
            assert list(arguments) == ["input"]
            assert matches(original(grammar), arguments["input"]), (text, arguments)
        if finished == 2:
            return
    pytest.fail(f"only {finished} walks came to an end")


@pytest.mark.parametrize("begun", ["{", '{"inp', '{\n "input" ', '{"input": ', '{"input": "'])
def test_a_call_that_a_limit_cuts_before_its_input_has_none(begun: str) -> None:
    calls = CustomCalls([Tool(name="patch", kind="custom")])
    start = ToolCallStart(0, "a", "patch")
    events = calls.events([start, ToolCallArguments(0, begun), ContentDelta("")])
    assert not any(isinstance(event, ToolCallInput) for event in events)


BAD = {
    "start: a": ("lark", None),
    r"start: /a(?!b)/": ("lark", "look-ahead"),
    r"start: /[a&&b]/": ("lark", "sets inside"),
    'start: "a"\n%import common.KLINGON': ("lark", "common.KLINGON"),
    "start: A\nA: /a/ & ~/b/": ("lark", "'~'"),
    'start: a\na: %json {"type": "integer"}': ("lark", "'%'"),
    "start: <[5]>": ("lark", "'<'"),
    "start: a" + " " * 100_000: ("lark", "more than"),
    r"(a)\1": ("regex", "back-references"),
    "(": ("regex", "not valid"),
    "[]": ("regex", "not valid"),
}


@pytest.mark.parametrize(("body", "expected"), BAD.items())
@pytest.mark.parametrize("name", ["hermes", "qwen3-coder"])
def test_a_grammar_that_cannot_be_enforced_is_refused_with_the_tools_name(
    name: str, body: str, expected: tuple[str, str | None]
) -> None:
    kind, reason = expected
    tools = offered(Constraint(kind=kind, body=body))  # type: ignore[arg-type]
    if reason is None:  # only the compiler knows
        grammar_for(builtin_format(name), tools=tools)
        return
    with pytest.raises(InvalidConstraint, match="the tool free") as caught:
        grammar_for(builtin_format(name), tools=tools)
    assert reason in caught.value.message
    assert caught.value.at == ("tools", 0)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_grammar_by_itself_is_what_the_compiler_judges(grammar: Constraint) -> None:
    matcher(text_grammar(grammar))


def test_the_expressions_of_free_form_tools_are_rusts() -> None:
    made = text_grammar(Constraint(kind="regex", body=r"\A\x{41}\d\z"))
    assert matches(made, "A1")
    assert matches(made, "A٣")
    assert not matches(made, "A1\n")


@pytest.mark.parametrize("name", ["hermes", "qwen3-coder"])
def test_a_large_grammar_is_rewritten_quickly(name: str) -> None:
    words = " | ".join(f'"word {number}"' for number in range(5000))
    begun = time.process_time()
    grammar_for(
        builtin_format(name), tools=offered(Constraint(kind="lark", body=f"start: {words}"))
    )
    assert time.process_time() - begun < 2
