"""Random schemas: each is a grammar or a refusal, and a grammar lets valid texts through only."""

from __future__ import annotations

import contextlib
import json
import random
from decimal import Decimal, InvalidOperation
from typing import Any

import jsonschema
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from server.core.errors import InvalidConstraint
from server.grammar.conversion import schema_grammar
from tests.unit.engine.byte_vocabulary import END
from tests.unit.grammar.subjects import grammar, matcher

junk = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["#", "#/a", "string", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "properties", "required", "items", "prefixItems", "minItems", "a"),
                    *(
                        "anyOf",
                        "oneOf",
                        "allOf",
                        "$ref",
                        "$defs",
                        "enum",
                        "const",
                        "format",
                        "pattern",
                    ),
                    *("additionalProperties", "patternProperties"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(junk)
def test_any_junk_is_a_grammar_or_a_refusal(schema: Any) -> None:
    with contextlib.suppress(InvalidConstraint):
        json.loads(grammar("json_schema", json.dumps(schema)))


names = st.sampled_from(["a", "b", "key"])
scalars: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
        st.integers(-300, 300),
        st.integers(0, 500),
    ),
    st.just({"type": "number", "exclusiveMinimum": 0.5, "maximum": 7}),
    st.just({"type": "integer", "multipleOf": 7}),
    st.builds(
        lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
        st.integers(0, 3),
        st.integers(0, 4),
    ),
    st.just({"type": "string", "pattern": "^[a-c]{1,3}$"}),
    st.sampled_from(["ipv4", "uuid"]).map(lambda form: {"type": "string", "format": form}),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.integers(-(2**53), 2**53) | names, min_size=1),
    ),
    st.just({"const": {"x": [1, None]}}),
)


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def array(items: dict[str, Any], low: int, span: int) -> dict[str, Any]:
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + span}

    def record(properties: dict[str, Any], required: list[str], extra: bool) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": extra,
        }

    return st.one_of(
        st.builds(array, inner, st.integers(0, 2), st.integers(0, 2)),
        st.builds(
            record, st.dictionaries(names, inner), st.lists(names, unique=True), st.booleans()
        ),
        st.builds(
            lambda first, rest: {"type": "array", "prefixItems": first, "items": rest},
            st.lists(inner, max_size=2),
            inner | st.just(False),
        ),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda branches: {"oneOf": branches}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda branches: {"allOf": branches}, st.lists(inner, min_size=1, max_size=2)),
    )


def random_text(subject: LLMatcher, chooser: random.Random) -> str | None:
    """A random way through the grammar, leaning to whatever closes it."""
    written = bytearray()
    while not subject.is_stopped():
        mask = int.from_bytes(subject.compute_bitmask(), "little")
        possible = [byte for byte in range(32, 127) if mask >> byte & 1]
        closing = [byte for byte in b'}]"' if byte in possible]
        if mask >> END & 1 and chooser.random() < 0.5:
            break
        if not possible or len(written) > 600:
            return None
        byte = chooser.choice(closing if closing and chooser.random() < 0.6 else possible)
        subject.consume_token(byte)
        written.append(byte)
    return written.decode()


@settings(max_examples=150, deadline=None)
@given(st.recursive(scalars, nested, max_leaves=5), st.randoms(use_true_random=False))
def test_every_text_an_accepted_schema_lets_through_is_valid(
    schema: dict[str, Any], chooser: random.Random
) -> None:
    # Bounds hold for the number as it is written; as a float, 0.5000000000000000000001 is 0.5.
    try:
        made = schema_grammar(schema)
    except InvalidConstraint:  # branches of oneOf that may overlap, or no value is left
        return
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    validator = jsonschema.Draft202012Validator(
        exact, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    subject = matcher(made)
    assume(not subject.is_error())
    validated = 0
    for _ in range(4):
        text = random_text(subject.deep_copy(), chooser)
        if text is None:
            continue
        try:
            value = json.loads(text, parse_float=Decimal)
        except InvalidOperation:  # an exponent of so many digits that no Decimal has it
            continue
        validator.validate(value)
        validated += 1
    assume(validated)
