"""Tools that the compiler refuses: weaker if they may be, refused in our own words if strict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from server.core.errors import InvalidConstraint, path_text
from server.core.request import ChatPrompt, Constraint, Message, TextPrompt, Tool, ToolChoice
from server.engine.sampling.compiler_on_demand import CompilerOnDemand
from server.engine.sampling.matcher import GrammarCompiler
from server.grammar.lark import Spelling
from server.reply.builtin_formats import builtin_format
from server.reply.grammar import reply_grammar
from server.worker.serve.constrain import Constrained, Constrainer
from tests.unit.engine.byte_vocabulary import SIZE, byte_tokenizer
from tests.unit.fake_vocabulary import FakeVocabulary

pytestmark = pytest.mark.process  # the compiler tries grammars out in a process of its own

INTEGER = {"type": "integer"}
GOOD = {"properties": {"n": {**INTEGER, "minimum": 3, "maximum": 5}}, "required": ["n"]}
# llguidance refuses patterns of which a name may match two.
OVERLAPPING = {
    "properties": {
        "map": {"type": "object", "patternProperties": {"a": INTEGER, "b": {"type": "string"}}},
        "n": {**INTEGER, "maximum": 3},
    },
    "required": ["n"],
}


class Chat:
    """Stands in for a chat model with the reply format ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def reply_grammar(self, prompt: Any, prefix: str, content: str | None, *more: Any) -> Any:
        return reply_grammar(
            builtin_format(self._name),
            prefix=prefix,
            tools=getattr(prompt, "tools", ()),
            choice=getattr(prompt, "tool_choice", ToolChoice()),
            content=content,
            spelling=Spelling(FakeVocabulary()),
            weaknesses=more[0] if more else {},
        )


@pytest.fixture(scope="module")
def compiler() -> Iterator[CompilerOnDemand]:
    made = CompilerOnDemand(byte_tokenizer, SIZE)
    yield made
    made.get().close()


class Constraining:
    def __init__(self, compiler: CompilerOnDemand, name: str = "hermes") -> None:
        chat: Any = Chat(name)
        self._constrainer = Constrainer(chat, compiler)

    def tools(self, *schemas: dict[str, Any], strict: bool = False) -> Constrained:
        tools = [
            Tool(name=f"f{n}", parameters=each, strict=strict) for n, each in enumerate(schemas)
        ]
        choice = ToolChoice(mode="required", parallel=False)
        prompt = ChatPrompt(
            messages=[Message(role="user", content="hi")], tools=tools, tool_choice=choice
        )
        made = self._constrainer.constrain(prompt, "", None, lambda: None)
        assert made is not None
        return made

    def schema(self, schema: Any, *, strict: bool = False) -> Constrained:
        constraint = Constraint.of("json_schema", schema, strict=strict)
        made = self._constrainer.constrain(TextPrompt(text=""), "", constraint, lambda: None)
        assert made is not None
        return made


def loosened(made: Constrained) -> list[str]:
    return [path_text(place) for place in made.loosened]


def allows(made: Constrained, text: str) -> bool:
    return made.matcher.fork().valid_prefix(list(text.encode())) == len(text.encode())


CALLS = {
    "hermes": '<tool_call>\n{"name": "%s", "arguments": {"n": %s}}\n</tool_call>',
    "glm": "<tool_call>%s\n<arg_key>n</arg_key>\n<arg_value>%s</arg_value>\n</tool_call>",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_tool_that_does_not_compile_is_weakened_and_the_others_are_not(
    name: str, compiler: CompilerOnDemand
) -> None:
    made = Constraining(compiler, name).tools(GOOD, OVERLAPPING)
    assert loosened(made) == ["tools[1].parameters.properties.map.patternProperties"]
    for tool, value, allowed in (
        *(("f0", 4, True), ("f0", 7, False)),
        *(("f1", 3, True), ("f1", 4, False)),
    ):
        assert allows(made, CALLS[name] % (tool, value)) == allowed


def test_a_strict_tool_that_does_not_compile_is_refused_with_the_place(
    compiler: CompilerOnDemand,
) -> None:
    with pytest.raises(InvalidConstraint) as caught:
        Constraining(compiler).tools(GOOD, OVERLAPPING, strict=True)
    assert caught.value.at == ("tools", 1)
    assert "f1" in caught.value.message
    assert "properties.map.patternProperties" in caught.value.message
    assert "regex" not in caught.value.message


def test_a_schema_that_does_not_compile_is_weakened_or_refused_with_the_place(
    compiler: CompilerOnDemand,
) -> None:
    made = Constraining(compiler).schema(OVERLAPPING)
    assert loosened(made) == ["constraint.schema.properties.map.patternProperties"]
    assert allows(made, '{"n": 3}')
    assert not allows(made, '{"n": 4}')
    with pytest.raises(InvalidConstraint, match=r"properties\.map\.patternProperties") as caught:
        Constraining(compiler).schema(OVERLAPPING, strict=True)
    assert caught.value.at == ("constraint",)


@pytest.mark.parametrize("strict", [False, True])
def test_what_no_value_can_match_is_refused_in_our_words(
    strict: bool, compiler: CompilerOnDemand
) -> None:
    impossible = {"type": "object", "properties": {"a": False}, "required": ["a"]}
    for constrain in (Constraining(compiler).schema, Constraining(compiler).tools):
        with pytest.raises(InvalidConstraint, match="No value can match the JSON Schema"):
            constrain(impossible, strict=strict)


def test_the_list_comes_with_a_grammar_that_is_known_already(
    monkeypatch: pytest.MonkeyPatch, compiler: CompilerOnDemand
) -> None:
    subject = Constraining(compiler)
    first = subject.tools(GOOD, OVERLAPPING)
    monkeypatch.delattr(GrammarCompiler, "try_out")
    monkeypatch.delattr(GrammarCompiler, "compile")
    again = subject.tools(GOOD, OVERLAPPING)
    assert again.loosened == first.loosened
    assert allows(again, CALLS["hermes"] % ("f0", 4))


HOST = r"^(?:[a-z]+\.)+[a-z]{2,}$"
"""A pattern that llguidance cannot combine with large lengths."""


@pytest.mark.parametrize("name", CALLS)
def test_of_a_pattern_and_a_length_that_do_not_compile_together_the_length_goes(
    name: str, compiler: CompilerOnDemand
) -> None:
    schema = {
        "properties": {
            "host": {"type": "string", "pattern": HOST, "maxLength": 256},
            "n": {"type": "string", "pattern": "^a+$"},
        },
        "required": ["n"],
    }
    subject = Constraining(compiler, name)
    made = subject.tools(schema)
    assert loosened(made) == ["tools[0].parameters.properties.host.maxLength"]
    quote = '"' if name == "hermes" else ""
    for text, allowed in (("aa", True), ("b", False)):
        call = CALLS[name] % ("f0", f"{quote}{text}{quote}")
        assert allows(made, call) == allowed
    assert loosened(subject.schema(schema)) == ["constraint.schema.properties.host.maxLength"]
    with pytest.raises(InvalidConstraint, match=r"keywords at properties\.host\.maxLength\."):
        subject.tools(schema, strict=True)


RAW = {
    "glm": ("</arg_value>", "<tool_call>f0\n<arg_key>n</arg_key>\n<arg_value>"),
    "gemma-4": ('<|"|>', '<|tool_call>call:f0{n:<|"|>'),
}


@pytest.mark.parametrize("name", RAW)
def test_a_value_that_holds_the_end_of_a_string_loosens_its_place_alone(
    name: str, compiler: CompilerOnDemand
) -> None:
    mark, head = RAW[name]
    good = {"properties": {"n": {"enum": ["a"]}}, "required": ["n"]}
    bad = {"properties": {"n": {"const": f"x{mark}"}}, "required": ["n"]}
    made = Constraining(compiler, name).tools(good, bad)
    assert loosened(made) == ["tools[1].parameters.properties.n"]
    assert allows(made, head + "a")
    assert not allows(made, head + "b")
    assert allows(made, head.replace("f0", "f1") + "b")
    with pytest.raises(InvalidConstraint, match="f1"):
        Constraining(compiler, name).tools(good, bad, strict=True)


@pytest.mark.parametrize("name", RAW)
def test_of_several_values_those_that_can_be_written_are_enforced(
    name: str, compiler: CompilerOnDemand
) -> None:
    mark, head = RAW[name]
    some = {"properties": {"n": {"enum": [f"a{mark}", "b"]}}, "required": ["n"]}
    made = Constraining(compiler, name).tools(some)
    assert loosened(made) == []
    assert allows(made, head + "b" + mark)
    assert not allows(made, head + "a")


@pytest.mark.parametrize("name", ["hermes", "glm", "lfm2", "gemma-4"])
@pytest.mark.parametrize("root", [{"$ref": "#/$defs/R"}, {"allOf": [{"$ref": "#/$defs/R"}]}])
def test_arguments_behind_a_reference_are_closed_to_other_names(
    name: str, root: dict[str, Any], compiler: CompilerOnDemand
) -> None:
    inner = {"type": "boolean"}
    children = {"type": "array", "items": {"$ref": "#/$defs/R"}, "maxItems": 1}
    pattern = {"type": "string", "pattern": "(?!a)"}
    target = {
        "type": "object",
        "properties": {"a": inner, "children": children, "p": pattern},
        "required": ["a"],
    }
    made = Constraining(compiler, name).tools({**root, "$defs": {"R": target}})
    assert loosened(made) == ["tools[0].parameters.$defs.R.properties.p.pattern"]
    starts = {
        "hermes": ('<tool_call>\n{"name": "f0", "arguments": {"a": true', ', "', "}"),
        "glm": (
            "<tool_call>f0\n<arg_key>a</arg_key>\n<arg_value>true</arg_value>",
            "\n<arg_key>",
            "\n</tool_call>",
        ),
        "lfm2": ("<|tool_call_start|>[f0(a=True", ", ", ")]"),
        "gemma-4": ("<|tool_call>call:f0{a:true", ",", "}"),
    }
    start, separator, end = starts[name]
    assert allows(made, start + end)
    assert allows(made, f"{start}{separator}children")
    assert not allows(made, f"{start}{separator}other")


def test_items_that_are_the_whole_schema_may_be_one_at_most(
    compiler: CompilerOnDemand,
) -> None:
    node = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 2},
            "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1},
        },
        "required": ["name"],
    }
    made = Constraining(compiler, "gemma-4").tools(node)
    assert loosened(made) == []
    start = '<|tool_call>call:f0{name:<|"|>a<|"|>,children:[{name:<|"|>b<|"|>}'
    assert allows(made, f"{start}]}}")
    assert not allows(made, f"{start},")
