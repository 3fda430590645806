"""What to do without next where the compiler refuses a schema."""

from __future__ import annotations

import time
from typing import Any

from server.core.errors import Locator
from server.engine.sampling.matcher import GrammarCompiler, GrammarError
from server.grammar.conversion import schema_grammar
from server.grammar.leniency import NOT_WEAKENED, Leniency, Weakness

# What llguidance says of a schema that no value can match.
_UNSATISFIABLE = ("Unsatisfiable schema", "nothing can match")


def next_weakness(leniency: Leniency, compiler: GrammarCompiler, deadline: float) -> Weakness:
    """The next weakness of a schema that the compiler refuses as ``leniency`` left it.

    Where parts of it are refused by themselves, only those are given up: of a text, its length
    before its pattern, which says more. Past ``deadline``, in seconds of the monotonic clock, no
    more parts are tried.
    """
    places: set[Locator] = set()
    doubtful = leniency.doubtful if leniency.weakness == NOT_WEAKENED else {}
    for place, (schema, spare) in doubtful.items():
        if time.monotonic() > deadline:
            break
        if _is_refused(schema, compiler):
            without = {key: each for key, each in schema.items() if key not in spare}
            spared = spare and not _is_refused(without, compiler)
            places |= {(*place[:-1], key) for key in spare} if spared else {place}
    return Weakness(places=frozenset(places)) if places else next_level(leniency.weakness)


def next_level(weakness: Weakness) -> Weakness:
    """One level weaker."""
    return weakness._replace(level=weakness.level + 1)


def is_unsatisfiable(error: GrammarError) -> bool:
    """Whether the compiler refuses a schema because no value can match it."""
    return str(error).startswith(_UNSATISFIABLE)


def told(error: GrammarError) -> str:
    """An error about a schema or grammar, in our words where llguidance speaks of schemas."""
    return "No value can match the JSON Schema." if is_unsatisfiable(error) else str(error)


def _is_refused(schema: dict[str, Any], compiler: GrammarCompiler) -> bool:
    """Whether the compiler cannot take a schema, for other reasons than that nothing matches."""
    try:
        compiler.try_out(schema_grammar(schema))
    except GrammarError as error:
        return not is_unsatisfiable(error)
    return False
