"""Constraints: masks, forced tokens, forks, and grammars that mean harm."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.core.sampling import Sampling
from server.engine.sampling.matcher import GrammarCompiler, GrammarError, GrammarMatcher
from server.engine.sampling.sampler import Sampler
from server.engine.spans import Spans
from tests.unit.engine.byte_vocabulary import END, SIZE, byte_tokenizer

pytestmark = pytest.mark.process

VOCABULARIES = Path(__file__).parents[4] / "shared" / "corpus" / "vocabs"


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    compiler = GrammarCompiler(byte_tokenizer(), vocabulary_size=SIZE)
    yield compiler
    compiler.close()


def lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def schema(value: Any) -> str:
    return json.dumps({"grammars": [{"json_schema": value}]})


def allowed(matcher: GrammarMatcher) -> set[int]:
    bits = np.unpackbits(matcher.allowed().view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def accept(matcher: GrammarMatcher, text: str) -> GrammarMatcher:
    for byte in text.encode():
        matcher.accept(byte)
    return matcher


def test_only_what_the_grammar_allows_may_come(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(lark('start: "ab" | "ac" | "b"'))
    assert allowed(matcher) == set(b"ab")
    matcher.accept(ord("a"))
    assert allowed(matcher) == set(b"bc")
    with pytest.raises(GrammarError):
        matcher.accept(ord("x"))


def test_a_satisfied_grammar_is_complete(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(schema({"type": "object", "additionalProperties": False}))
    assert not accept(matcher, "{").is_complete
    assert accept(matcher, "}").is_complete
    assert allowed(matcher) == {END}


def test_where_the_answer_may_end_or_go_on_the_model_decides(compiler: GrammarCompiler) -> None:
    matcher = accept(compiler.compile(lark('start: "yes" | "yesterday"')), "yes")
    assert not matcher.is_complete
    assert allowed(matcher) == {ord("t"), END}
    matcher.accept(END)
    assert matcher.is_complete


def test_forced_tokens_are_reported_and_not_taken(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(lark('start: "name: " ("x" | "y")'))
    assert bytes(matcher.forced_tokens()) == b"name: "
    assert allowed(matcher) == {ord("n")}
    assert accept(matcher, "name: ").forced_tokens() == []


def test_a_draft_is_cut_where_the_grammar_ends_it(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(lark("start: /[0-9]{3}/"))
    assert matcher.valid_prefix(list(b"12x")) == 2
    assert matcher.valid_prefix([]) == 0
    assert allowed(matcher) == set(b"0123456789")


def test_forks_and_repeated_compiles_share_no_state(compiler: GrammarCompiler) -> None:
    grammar = lark('start: "ab" | "cd"')
    first = compiler.compile(grammar)
    fork = first.fork()
    accept(first, "a")
    assert allowed(fork) == set(b"ac")
    assert allowed(compiler.compile(grammar)) == set(b"ac")
    assert allowed(first) == {ord("b")}


def test_known_grammars_need_no_work_and_the_oldest_are_forgotten() -> None:
    compiler = GrammarCompiler(byte_tokenizer(), vocabulary_size=SIZE, cached_grammars=2)
    grammars = [lark(f'start: "{i}"') for i in range(3)]
    assert compiler.cached(grammars[0]) is None
    compiler.compile(grammars[0])
    compiler.compile(grammars[1])
    compiler.compile(grammars[0])
    compiler.compile(grammars[2])
    assert [compiler.cached(grammar) is not None for grammar in grammars] == [True, False, True]
    compiler.close()


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (lark("start: ("), "Expected"),
        (lark("start: start"), "nothing can match"),
        (lark("start: /(?<=a)b/"), "look-behind"),
        (lark(f"start: /{'(' * 60_000}a{')' * 60_000}/"), "regex"),
        # Which of the two is seen first depends on how busy the machine is.
        (lark("start: /((a{200}){200}){200}/"), "too (complex|long|big)"),
        (schema({"$ref": "http://127.0.0.1:9/schema.json"}), "does not fetch"),
        (schema({"type": "integer", "minimum": 5, "maximum": 4}), "Unsatisfiable"),
        (schema({"enum": [f"value {i}" for i in range(100_000)]}), "too big"),
        ("not a grammar", "."),
        ('{"grammars": []}', "."),
        ("", "."),
    ],
)
def test_unusable_grammars_are_refused_with_the_reason(
    compiler: GrammarCompiler, grammar: str, reason: str
) -> None:
    with pytest.raises(GrammarError, match=reason) as caught:
        compiler.compile(grammar)
    assert len(str(caught.value)) < 400
    assert compiler.cached(grammar) is None


def test_a_compile_without_end_is_killed_and_the_next_one_works() -> None:
    compiler = GrammarCompiler(byte_tokenizer(), vocabulary_size=SIZE)
    begun = time.monotonic()
    with pytest.raises(GrammarError, match="takes too long"):
        compiler.compile(schema({"type": "integer", "multipleOf": 1_234_567}))
    assert time.monotonic() - begun < 20
    assert allowed(compiler.compile(lark('start: "a"'))) == {ord("a")}
    compiler.close()


def test_a_rehearsal_killed_from_outside_is_started_again(compiler: GrammarCompiler) -> None:
    compiler.compile(lark('start: "warm"'))
    process = compiler._rehearsal._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert compiler.compile(lark('start: "again"')) is not None


def test_sampling_under_a_constraint_gives_valid_json(compiler: GrammarCompiler) -> None:
    row = np.random.default_rng(0).normal(0, 1, SIZE).astype(np.float32)
    grammar = schema(
        {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer"}},
            "required": ["ok", "n"],
            "additionalProperties": False,
        }
    )
    for seed in range(5):
        matcher = compiler.compile(grammar)
        sampler = Sampler(Sampling(seed=seed), vocabulary_size=SIZE, history=Spans())
        written = bytearray()
        while not matcher.is_complete and len(written) < 2000:
            token = sampler.sample(row, matcher.allowed())
            matcher.accept(token)
            written.append(token)
        assert json.loads(written).keys() == {"ok", "n"}


@pytest.mark.skipif(not VOCABULARIES.is_dir(), reason="the corpus of vocabularies is not here")
@pytest.mark.filterwarnings("ignore:llama_token_get_attr:DeprecationWarning")
@pytest.mark.parametrize("name", ["gpt-2", "llama-spm", "phi-3"])
def test_real_vocabularies_spell_out_what_the_grammar_forces(name: str) -> None:
    from server.engine.llama import LlamaModel

    model = LlamaModel(str(VOCABULARIES / f"ggml-vocab-{name}.gguf"), vocabulary_only=True)
    vocabulary = model.vocabulary
    compiler = GrammarCompiler(vocabulary.guidance_tokenizer(), vocabulary_size=vocabulary.size)
    grammar = lark('start: "{\\"temperature\\": " /[0-9]{2}/ "}"')
    rng = np.random.default_rng(1)
    sampler = Sampler(Sampling(seed=1), vocabulary_size=vocabulary.size, history=Spans())
    matcher = compiler.compile(grammar)
    written: list[int] = []
    while not matcher.is_complete and len(written) < 50:
        for token in matcher.forced_tokens() or [
            sampler.sample(rng.normal(0, 1, vocabulary.size).astype(np.float32), matcher.allowed())
        ]:
            matcher.accept(token)
            written.append(token)
    text = b"".join(vocabulary.piece(token) for token in written).decode()
    assert re.fullmatch(r'\{"temperature": [0-9]{2}\}', text)
    compiler.close()
    model.close()


def test_control_tokens_are_named_by_id(compiler: GrammarCompiler) -> None:
    """Also where the process that tries grammars out has no such token."""
    compiler.try_out(lark('start: <[49152]> "a" <[^5,8]> "b" <[60000-60010]>'))
    matcher = compiler.compile(lark(f'start: "a" <[{END}]>?'))
    accept(matcher, "a")


def test_trying_a_grammar_out_complains_as_compiling_does(compiler: GrammarCompiler) -> None:
    compiler.try_out(lark('start: "a"'))
    with pytest.raises(GrammarError, match="look-behind"):
        compiler.try_out(lark("start: /(?<=a)b/"))
    assert compiler.cached(lark('start: "a"')) is None
