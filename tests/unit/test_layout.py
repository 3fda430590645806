"""Rules about the tree of server/; import-linter holds those about imports (`make lint`)."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import server

ROOT = Path(server.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ROOT.rglob("*.py")}

MOST_FILE_LINES = 300
LONG_FILES = {
    "core/settings.py": "one table of all settings",
    "engine/answer.py": "one answer, from its prompt to its last event",
    "engine/cache/cell_tree.py": "one data structure, whose parts change together",
    "engine/cache/prefix_cache.py": "one cache over cells, memory and disk, with one set of books",
    "engine/disk/prefix_disk.py": "one folder, whose readers and writers share an index",
    "engine/engine.py": "one loop, told from top to bottom",
    "engine/scheduling/scheduler.py": "one policy, whose rules depend on each other",
    "reply/parser.py": "one parser, whose readers share its source, its sinks and its events",
    "worker/protocol.py": "all messages between the two processes, in one place",
    "worker/supervise/pool.py": "one policy, for memory that all models share",
    "worker/supervise/supervisor.py": "one state machine, the lives of a worker",
}

MOST_FUNCTION_LINES = 60
LONG_FUNCTIONS: dict[str, str] = {}

# Modules of one name hold one subject, each in the terms of its package.
SHARED_NAMES = {
    "__init__": "every package has one",
    "adapters": "what the scheduler sees of them, and llama.cpp's",
    "context": "what endpoints share, and in engine/llama a llama_context",
    "errors": "the errors, and those of HTTP with the status of each",
    "pool": "the pool that the API sees, and the one that runs workers",
    "store": "the command, and the store as the event loop sees it",
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
    assert long == LONG_FILES.keys()


def test_a_function_is_short_or_listed_with_a_reason() -> None:
    long = {
        f"{module}:{name}"
        for module, text in MODULES.items()
        for name, lines in functions(text)
        if lines > MOST_FUNCTION_LINES
    }
    assert long == LONG_FUNCTIONS.keys()


def test_a_name_that_modules_share_is_listed_with_what_it_means() -> None:
    # Every API family has a parser, an encoder and schemas, which are best called so.
    outside = [module for module in MODULES if not re.match(r"api/[^/]+/", module)]
    names = Counter(Path(module).stem for module in outside)
    shared = {name for name, modules in names.items() if modules > 1}
    assert shared == SHARED_NAMES.keys()
