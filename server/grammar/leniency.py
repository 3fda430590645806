"""What becomes of the parts of a JSON Schema that cannot be enforced.

A strict schema is refused. Any other is loosened to the nearest weaker one that can be enforced,
and each place that was loosened is recorded, so that the answer can say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from server.core.errors import InvalidConstraint, Locator

WEAKER: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"pattern", "patternProperties", "format"}),
    frozenset(
        {
            *("pattern", "patternProperties", "format", "allOf", "anyOf", "oneOf", "multipleOf"),
            *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength"),
            *("maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
            *("uniqueItems", "contains", "propertyNames", "not", "const", "enum"),
        }
    ),
)
"""Keywords to do without where the compiler refuses a schema, by its level: what the compiler
refuses most often, then all but the types and the names of properties.
"""

WEAKEST = len(WEAKER)
"""The level of a schema of which only the type of the whole value is left."""


class Weakness(NamedTuple):
    """How weak a schema is made so that it compiles.

    Attributes:
        level: From 0, all that can be enforced, to `WEAKEST`.
        places: Keywords to do without at every level, as paths from the root of the schema.
    """

    level: int = 0
    places: frozenset[Locator] = frozenset()


NOT_WEAKENED = Weakness()

Weaknesses = Mapping[str, Weakness]
"""How weak the schemas of some tools are made, by their names."""


class Doubtful(NamedTuple):
    """Part of a schema that the compiler refuses now and then.

    Attributes:
        schema: The part alone.
        spare: Keywords of the request in it that are given up first.
    """

    schema: dict[str, Any]
    spare: frozenset[str] = frozenset()


class Leniency:
    """Refuses what cannot be enforced, or records it.

    Args:
        strict: Whether the request asks for exactly its schema or an error.
        weakness: How weak the schema is made.
        root: Where the request has what stands at the root here; definitions stay where they are.

    Attributes:
        doubtful: What the compiler refuses now and then, by the place of the keyword without which
            it would not be there.
    """

    def __init__(
        self, *, strict: bool, weakness: Weakness = NOT_WEAKENED, root: Locator = ()
    ) -> None:
        self.strict = strict
        self.weakness = weakness
        self.doubtful: dict[Locator, Doubtful] = {}
        self._root = root
        self._loosened: dict[Locator, None] = {}

    def given_up(self, path: Locator) -> frozenset[str]:
        """The keywords to do without in the schema at ``path``."""
        everywhere = WEAKER[min(self.weakness.level, WEAKEST - 1)]
        return everywhere.union(
            str(place[-1]) for place in self.weakness.places if place[:-1] == path
        )

    @property
    def loosened(self) -> list[Locator]:
        """The places given up so far, each once: paths from the root of the schema to a keyword."""
        return list(self._loosened)

    def give_up(self, path: Locator, reason: str = "") -> None:
        """Do without the keyword at ``path``.

        Args:
            path: The path from the root of the schema, with the keyword at its end.
            reason: Why it cannot be enforced, as a sentence.

        Raises:
            InvalidConstraint: The schema is strict; the message is ``reason``, or names the keyword
                and its place.
        """
        if self.strict:
            name = str(path[-1])[:100] if path else "type"
            raise InvalidConstraint(
                reason
                or f"The JSON Schema keyword '{name}' cannot be enforced (at {pointer(path[:-1])})."
            )
        moved = path[:1] not in {("$defs",), ("definitions",)}
        self._loosened[(*self._root, *path) if moved else path] = None


def pointer(path: Locator) -> str:
    """A path as a JSON Pointer with shortened names, for messages."""
    return "#" + "".join(f"/{str(step)[:50]}" for step in path)
