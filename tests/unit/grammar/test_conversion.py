"""Constraints as grammars: each kind is enforced, and a bad body is refused."""

from __future__ import annotations

import json

import pytest

from server.core.errors import InvalidConstraint
from server.core.request import Constraint
from server.grammar.conversion import to_grammar
from tests.unit.grammar.subjects import grammar, matches, refusal


@pytest.mark.parametrize(
    ("kind", "body", "good", "bad"),
    [
        ("json_object", "", ['{"a": [1, null]}', "{}"], ["[]", "1", "{", "", "{} ", "null"]),
        ("json_schema", '{"type": "integer"}', ["12", "-3"], ["1.5", '"1"', "null"]),
        ("regex", "[ab]{2}c?", ["ab", "bbc"], ["a", "abcd", "xab"]),
        ("regex", 'a/b"\\n', ['a/b"\n'], ["a/b"]),
        ("regex", "é+", ["éé"], ["e"]),
        ("regex", r"^\d$|^[a&&b]$", ["1", "&"], ["٣", "1a"]),
        ("choice", '["yes", "no"]', ["yes", "no"], ["", "yesno", "y"]),
        (
            "choice",
            '["a\\"b\\\\", "é\\n\\u0001", "/x/", "😀"]',
            ['a"b\\', "é\n\x01", "/x/", "😀"],
            [],
        ),
        ("choice", '[""]', [""], ["a"]),
        ("lark", 'start: "(" start ")" | "x"', ["x", "((x))"], ["(x", ""]),
        ("gbnf", 'root ::= item ("," item)*\nitem ::= [0-9]+', ["1,22"], ["1,", "a"]),
        ("gbnf", 'root ::= [\\u00e0-\\u00ff]+ "\\U0001F600" | "\\u0022"', ["é😀", '"'], ["e", "'"]),
    ],
)
def test_each_kind_matches_what_it_says(
    kind: str, body: str, good: list[str], bad: list[str]
) -> None:
    made = grammar(kind, body)
    assert [text for text in good if not matches(made, text)] == []
    assert [text for text in bad if matches(made, text)] == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("json_schema", ""),
        ("json_schema", "{"),
        ("json_schema", "[]"),
        ("json_schema", "true"),
        ("json_schema", '"string"'),
        ("json_schema", "{" * 100_000),
        ("json_schema", '{"items":' * 60 + "{}" + "}" * 60),
        ("json_schema", '{"minimum": NaN}'),
        ("json_schema", json.dumps({"properties": {f"p{i}": {} for i in range(5001)}})),
        ("json_schema", json.dumps({"enum": list(range(10_001))})),
        ("json_schema", json.dumps({"anyOf": [{}] * 2**17})),
        ("json_schema", json.dumps({"description": "x" * 1_000_001})),
        ("choice", "[]"),
        ("choice", '["a", 1]'),
        ("choice", '"a"'),
        ("choice", "yes"),
        ("choice", json.dumps([str(i) for i in range(5001)])),
        ("regex", "a" * 20_001),
        ("lark", "a" * 100_001),
        ("gbnf", ""),
        ("gbnf", "root ::= missing"),
        ("gbnf", 'root ::= "unterminated'),
        ("gbnf", 'root ::= "\\uD800"'),
        ("gbnf", "root ::= " + "(" * 5000),
        ("gbnf", 'root ::= "' + "a" * 16_000 + '"'),
    ],
)
def test_bad_bodies_are_refused(kind: str, body: str) -> None:
    refusal(kind, body)


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(InvalidConstraint, match="1 to"):
        to_grammar(Constraint(kind="choice", body="[]"))


def test_a_regular_expression_that_cannot_be_expressed_is_refused_in_our_words() -> None:
    assert "look-ahead cannot be expressed" in refusal("regex", "(?!a)b")
