"""Rules about the tree of server/; import-linter holds those about imports (`make lint`)."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import server

ROOT = Path(server.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ROOT.rglob("*.py")}

MOST_FILE_LINES = 300
LONG_FILES = {
    "api/openai/schemas/chat_request.py": "one body with all its fields",
    "core/settings.py": "one table of all settings",
    "engine/cache/cell_tree.py": "one data structure, whose parts change together",
    "engine/engine.py": "one loop, told from top to bottom",
}

MOST_FUNCTION_LINES = 60
LONG_FUNCTIONS: dict[str, str] = {}

# Modules of one name hold one subject, each in the terms of its package.
SHARED_NAMES = {
    "__init__": "every package has one",
    "chat": "the command and the endpoint",
    "completions": "the endpoint and its wire types",
    "context": "what endpoints share, and in engine/llama a llama_context",
    "embeddings": "the result, the endpoint and its wire types",
    "errors": "the errors, their HTTP statuses and each API family's form of them",
    "family": "what an API family is and each of them",
    "health": "the command and the endpoint",
    "logprobs": "log-probabilities, computed and on the wire",
    "pool": "the pool that the API sees, and the one that runs workers",
    "template": "the endpoint and its wire types",
    "usage": "usage, told and on the wire",
    "vocabulary": "the vocabulary that the server sees, and llama.cpp's",
}


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function, without its decorators."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_a_file_is_short_or_listed_with_a_reason() -> None:
    long = {name for name, text in MODULES.items() if text.count("\n") > MOST_FILE_LINES}
    assert long - LONG_FILES.keys() == set()


def test_a_function_is_short_or_listed_with_a_reason() -> None:
    long = {
        f"{module}:{name}"
        for module, text in MODULES.items()
        for name, lines in functions(text)
        if lines > MOST_FUNCTION_LINES
    }
    assert long - LONG_FUNCTIONS.keys() == set()


def test_a_name_that_modules_share_is_listed_with_what_it_means() -> None:
    names = Counter(Path(module).stem for module in MODULES)
    shared = {name for name, modules in names.items() if modules > 1}
    assert shared - SHARED_NAMES.keys() == set()
