"""The whole tool lists of real MCP servers: accepted by every family, and what is loosened is said.

`tests.conformance.mcp.record` refreshes the record.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from server.core.request import Tool, ToolChoice
from server.engine.sampling.compiler_on_demand import CompilerOnDemand
from server.grammar.lark import Spelling
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.grammar import ReplyGrammar, reply_grammar
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.worker.test_constrain import Constraining, compiler

pytestmark = pytest.mark.process  # for the time that grammars of all lists take

LISTS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "mcp" / "tools.json").read_text(encoding="utf-8")
)
# One format of each dialect, and one that marks strings.
COMPILED = ["hermes", "qwen3-coder", "deepseek-v3_2", "lfm2", "gemma-4"]
__all__ = ["compiler"]  # a fixture
FORMATS = [name for name in builtin_tables() if builtin_format(name).calls]


def grammar(name: str, schemas: list[dict[str, Any]]) -> ReplyGrammar:
    tools = [Tool(name=f"tool_{n}", parameters=each) for n, each in enumerate(schemas)]
    made = reply_grammar(
        builtin_format(name),
        prefix="",
        tools=tools,
        choice=ToolChoice(mode="required"),
        content=None,
        spelling=Spelling(FakeVocabulary()),
    )
    assert made is not None
    return made


def test_the_record_has_twelve_servers() -> None:
    assert len(LISTS) == 12
    assert sum(map(len, LISTS.values())) == 200


@pytest.mark.parametrize("name", FORMATS)
def test_every_family_accepts_every_list_as_a_whole(name: str) -> None:
    for schemas in LISTS.values():
        assert grammar(name, schemas)


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("server", LISTS)
def test_a_list_compiles_in_every_dialect_and_is_hardly_loosened(
    name: str, server: str, compiler: CompilerOnDemand
) -> None:
    made = Constraining(compiler, name).tools(*LISTS[server])
    keywords = {str(place[-1]) for place in made.loosened}
    assert keywords <= {"oneOf", "uniqueItems", "pattern", "format", "not", "maxProperties"}


@pytest.mark.parametrize("name", COMPILED)
def test_the_grammar_of_sixty_tools_is_written_in_time(name: str) -> None:
    schemas = [each for listed in LISTS.values() for each in listed][:60]
    begun = time.process_time()
    grammar(name, schemas)
    assert time.process_time() - begun < 0.3
