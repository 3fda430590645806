"""Grammars as tests try them: against whole texts, byte by byte."""

from __future__ import annotations

from typing import Any

import pytest
from llguidance import LLMatcher, LLParserLimits

from server.core.errors import InvalidConstraint
from server.core.request import Constraint
from server.grammar.conversion import to_grammar
from tests.unit.engine.byte_vocabulary import byte_tokenizer

TOKENIZER = byte_tokenizer()


def matcher(grammar: str) -> LLMatcher:
    limits = LLParserLimits(verbose_errors=False)
    return LLMatcher(TOKENIZER, grammar, limits=limits, log_level=0)


def matches(grammar: str, text: str) -> bool:
    subject = matcher(grammar)
    assert not subject.is_error(), subject.get_error()
    return bool(subject.consume_tokens(list(text.encode())) and subject.is_accepting())


def grammar(kind: Any, body: str = "") -> str:
    return to_grammar(Constraint(kind=kind, body=body))


def refusal(kind: Any, body: str) -> str:
    with pytest.raises(InvalidConstraint) as caught:
        grammar(kind, body)
    assert len(caught.value.message) < 600
    return caught.value.message
