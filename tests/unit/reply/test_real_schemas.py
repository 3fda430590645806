"""Schemas as people really write them: served in every dialect, and what is loosened is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher

from docs.schema_tables import DIALECTS, spellings
from server.core.errors import path_text
from server.core.request import Tool, ToolChoice
from server.grammar.lark import Spelling
from server.reply.builtin_formats import builtin_format
from server.reply.grammar import ReplyGrammar, reply_grammar
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.grammar.subjects import matcher
from tests.unit.reply.real_schemas import ARGUMENTS, DEFINITIONS, WHOLE, Real

pytestmark = pytest.mark.process  # for the time that hundreds of grammars take


def cases(table: dict[str, list[Real]]) -> list[Any]:
    return [
        pytest.param(real, id=f"{kind} {number}")
        for kind, reals in table.items()
        for number, real in enumerate(reals)
    ]


def written(parameters: dict[str, Any], dialect: str) -> ReplyGrammar:
    name, _ = DIALECTS[dialect]
    made = reply_grammar(
        builtin_format(name),
        prefix="",
        tools=[Tool(name="f", parameters=parameters)],
        choice=ToolChoice(mode="required", parallel=False),
        content=None,
        spelling=Spelling(FakeVocabulary()),
    )
    assert made is not None
    return made


def allows(subject: LLMatcher, text: str) -> bool:
    attempt = subject.deep_copy()
    return bool(attempt.consume_tokens(list(text.encode())) and attempt.is_accepting())


def test_the_table_is_large_enough_to_mean_something() -> None:
    kinds = {**ARGUMENTS, **WHOLE}
    assert len(kinds) >= 25
    assert sum(map(len, kinds.values())) >= 150


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("real", cases(ARGUMENTS))
def test_an_argument_is_served_and_what_is_loosened_is_said(real: Real, dialect: str) -> None:
    properties = {"k": real.schema, "other": {"type": "boolean"}}
    made = written({"properties": properties, "required": ["k"], **DEFINITIONS}, dialect)
    expected = [f"tools[0].parameters.properties.k.{each}" for each in real.loosened]
    assert [path_text(place) for place in made.loosened] == expected
    subject = matcher(made.text)
    assert not subject.is_error(), subject.get_error()
    _, call = DIALECTS[dialect]
    for value in real.good:
        texts = [call % each for each in spellings(value, dialect)]
        assert any(allows(subject, text) for text in texts), value
    for value in real.bad:
        texts = [call % each for each in spellings(value, dialect)]
        assert not any(allows(subject, text) for text in texts), value


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("real", cases(WHOLE))
def test_arguments_as_a_whole_are_served_and_what_is_loosened_is_said(
    real: Real, dialect: str
) -> None:
    made = written(real.schema, dialect)
    expected = [f"tools[0].parameters.{each}" for each in real.loosened]
    assert [path_text(place) for place in made.loosened] == expected
    subject = matcher(made.text)
    assert not subject.is_error(), subject.get_error()
    name, _ = DIALECTS[dialect]
    if name != "hermes":
        return
    call = '<tool_call>\n{"name": "f", "arguments": %s}\n</tool_call>'
    assert [each for each in real.good if not allows(subject, call % json.dumps(each))] == []
    assert [each for each in real.bad if allows(subject, call % json.dumps(each))] == []
