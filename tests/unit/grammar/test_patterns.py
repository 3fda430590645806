"""Regular expressions of JSON Schema mean in a grammar what they mean in JavaScript."""

from __future__ import annotations

import json
import random
import shutil
import time
from typing import Any

import pytest

from server.grammar.conversion import schema_grammar
from server.grammar.patterns import (
    Untranslatable,
    anchored,
    exclude_each_other,
    one_of_texts,
    whole,
)
from tests.unit.grammar import ecma_patterns
from tests.unit.grammar.subjects import matcher, matches, refusal


def disagreements(pattern: str, texts: list[str], answers: list[bool]) -> list[tuple[str, str]]:
    """The texts that the pattern's grammar takes for others than JavaScript does."""
    subject = matcher(ecma_patterns.lark(whole(pattern)))
    assert not subject.is_error(), subject.get_error()
    wrong = []
    for text, expected in zip(texts, answers, strict=True):
        attempt = subject.deep_copy()
        taken = attempt.consume_tokens(list(text.encode())) and attempt.is_accepting()
        if taken is not expected:
            wrong.append((pattern, text))
    return wrong


def translates(pattern: str) -> bool:
    try:
        whole(pattern)
    except Untranslatable:
        return False
    return True


RECORD = ecma_patterns.recorded()


def test_the_record_has_every_pattern() -> None:
    assert [each.pattern for each in RECORD] == ecma_patterns.patterns()
    assert len(RECORD) > 500


def test_a_translated_pattern_finds_what_javascript_finds() -> None:
    wrong = [
        each
        for pattern, found, missing in RECORD
        if translates(pattern)
        for each in disagreements(
            pattern, [*found, *missing], [True] * len(found) + [False] * len(missing)
        )
    ]
    assert wrong == []


def test_patterns_that_match_the_same_text_never_exclude_each_other() -> None:
    wrong = [
        (pattern, text)
        for pattern, found, _ in RECORD
        if translates(pattern)
        for text in found
        if exclude_each_other([pattern, one_of_texts([text])], (len(text), len(text)))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("patterns", "lengths"),
    [
        (["^a+$", "^b+$"], (0, None)),
        (["^a", "^b"], (0, None)),
        (["^(?:ab)*$", "^a(?:ba)*$"], (0, None)),
        (["^[a-f]{3}$", "^[^a-f]"], (0, None)),
        (["^a{2,3}$", "^a?$"], (0, None)),
        (["^a*$", "^(?:aa)*$"], (3, 3)),
        (["x", "y"], (0, 1)),
        ([one_of_texts(["a", "(b)"]), "^[bc]$"], (0, None)),
    ],
)
def test_patterns_that_exclude_each_other_are_known(
    patterns: list[str], lengths: tuple[int, int | None]
) -> None:
    assert exclude_each_other(patterns, lengths)


@pytest.mark.parametrize(
    "patterns",
    [
        ["a", "b"],
        ["^(?:ab)*$", "^(?:abab)*$"],
        [r"^\p{Lu}$", "^1$"],  # what has a property is not looked up
        ["^a{5000}$", "^(?:a|b|c|d){5000}c$"],  # it would take too long
    ],
)
def test_patterns_that_may_match_one_text_do_not_exclude_each_other(patterns: list[str]) -> None:
    assert not exclude_each_other(patterns, (0, None))


def test_only_what_cannot_be_expressed_or_is_not_valid_is_refused() -> None:
    refused = [each for each in RECORD if not translates(each.pattern)]
    valid = [each.pattern for each in refused if each.found or each.missing]
    assert valid == [
        *("^(?!)$", r"^\S(|(.|\n)*\S)\Z$"),
        *(r"^\u{1F600}\xg", r"^\xg\u{1F600}"),
    ]


@pytest.mark.process
@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_a_translated_pattern_agrees_with_the_javascript_engine_here() -> None:
    choose = random.Random()
    some = choose.sample(list(filter(translates, ecma_patterns.patterns())), 60)
    asked = [(pattern, ecma_patterns.texts(pattern, choose)) for pattern in some]
    wrong = []
    for (pattern, texts), answers in zip(asked, ecma_patterns.ask(asked), strict=True):
        assert answers is not None, pattern
        known = [
            (text, each) for text, each in zip(texts, answers, strict=True) if each is not None
        ]
        wrong += disagreements(pattern, [text for text, _ in known], [each for _, each in known])
    assert wrong == []


REASONS = {
    "^(?!a)": "look-ahead",
    "(?=a)b": "look-ahead",
    "(?<=a)b": "look-behind",
    "(?<!a)b": "look-behind",
    r"\bword\b": "word boundaries",
    r"a\Bb": "word boundaries",
    r"(a)\1": "back-references",
    r"(?<n>a)\k<n>": "back-references",
    r"(?P<n>a)(?P=n)": "back-references",
    r"\Aa\Z": "letter",
    "(?m:^a$)": "lines",
    "(?>a)": "not valid",
    "a**": "not valid",
    "*": "not valid",
    "a{2}{3}": "not valid",
    "[b-a]": "not valid",
    "a{3,2}": "not valid",
    "(a": "not valid",
    "a)": "not valid",
    "[a": "not valid",
    "a\\": "not valid",
    r"\u{110000}": "not valid",
    r"\p{Klingon}": "no Unicode property",
    r"\p{Script}": "no Unicode property",
    r"\_\p{L}": "means a letter",
    r"\_\u{61}": "means letters",
    "(" * 100 + ")" * 100: "nested deeper",
    "a{1000000}": "counts beyond",
    "a{1" + "0" * 4900 + "}": "counts beyond",
    "(?:^a){20}": "counts something",
    "a" * 30_000: "more than",
    "日" * 20_000: "too long",
}


@pytest.mark.parametrize(("pattern", "reason"), REASONS.items())
def test_a_pattern_that_cannot_be_expressed_is_refused_with_the_reason(
    pattern: str, reason: str
) -> None:
    begun = time.process_time()
    with pytest.raises(Untranslatable, match=reason):
        whole(pattern)
    assert time.process_time() - begun < 5
    message = refusal("json_schema", json.dumps({"items": {"pattern": pattern}}))
    assert reason in message
    assert "#/items/pattern" in message


def test_anchors_in_nested_counts_are_resolved_quickly() -> None:
    begun = time.process_time()
    whole("(?:(?:(?:(?:^a|b){9}){9}){9}){9}c$")
    assert time.process_time() - begun < 5
    made = ecma_patterns.lark(whole("(?:(?:(?:^a|b){3}){3}){3}c$"))
    assert matches(made, "a" + "b" * 26 + "c")
    assert not matches(made, "b" * 26 + "c")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("(?P<year>[0-9]{4})", "in 1999"), ("(?i)^yes$", "YES"), ("(?is)^a.b$", "A\nB")],
)
def test_the_habits_of_python_that_can_only_mean_one_thing_are_read(
    pattern: str, text: str
) -> None:
    assert matches(ecma_patterns.lark(whole(pattern)), text)


@pytest.mark.parametrize("pattern", ["^a|b$", "", "[^a&&b]", r"(?i)\W", r"\p{L}+", "[]", "x{3}"])
def test_a_translated_pattern_is_a_pattern_that_means_the_same(pattern: str) -> None:
    assert whole(anchored(pattern)) == whole(pattern)


@pytest.mark.parametrize(
    ("pattern", "found", "missing"),
    [
        ("^[^a&&b]$", ["x", "A"], ["a", "b", "&"]),
        ("^[^!--]$", ["/", "."], ["!", "+", "-"]),
        ("^.$", ["a", "\u0085"], ["\r", "\n", "\u2028"]),
        (r"^[^[\]]+$", ["a"], ["[", "]"]),
        (r"^\d\w\S$", ["1a-"], ["٣a-", "1é-", "1a\ufeff"]),
        (r"^a\/b$", ["a/b"], ["a\\/b"]),
        ("b", ["abc", 'x"b\n'], ["", "ac"]),
    ],
)
def test_patterns_are_enforced_inside_json(
    pattern: str, found: list[str], missing: list[str]
) -> None:
    made = schema_grammar({"type": "string", "pattern": pattern})
    for text in found:
        assert matches(made, json.dumps(text, ensure_ascii=False)), text
    for text in missing:
        assert not matches(made, json.dumps(text, ensure_ascii=False)), text


def test_two_patterns_for_names_that_say_the_same_are_both_enforced() -> None:
    schema: Any = {
        "type": "object",
        "patternProperties": {"^a$": {"type": "integer"}, "^(?:a)$": {"minimum": 3}},
    }
    made = schema_grammar(schema)
    assert matches(made, '{"a": 3}')
    assert not matches(made, '{"a": 2}')
    assert not matches(made, '{"a": "x"}')
