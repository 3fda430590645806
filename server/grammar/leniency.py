"""What becomes of the parts of a JSON Schema that cannot be enforced.

A strict schema is refused. Any other is loosened to the nearest weaker one that can be enforced,
and each place that was loosened is recorded, so that the answer can say so.
"""

from __future__ import annotations

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
"""Keywords to do without where the compiler refuses a schema, by how weak it has become: first what
the compiler refuses most often, then all but the types and the names of properties.
"""

WEAKEST = len(WEAKER)
"""The weakness of a schema of which only the type of the whole value is left."""


class Leniency:
    """Refuses what cannot be enforced, or records it.

    Args:
        strict: Whether the request asks for exactly its schema or an error.
        weakness: How weak the schema is made, from 0, all that can be enforced, to `WEAKEST`.
    """

    def __init__(self, *, strict: bool, weakness: int = 0) -> None:
        self.strict = strict
        self.weakness = weakness
        self._loosened: dict[Locator, None] = {}

    @property
    def given_up(self) -> frozenset[str]:
        """The keywords to give up wherever they stand."""
        return WEAKER[min(self.weakness, WEAKEST - 1)]

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
        self._loosened[path] = None


def pointer(path: Locator) -> str:
    """A path as a JSON Pointer with shortened names, for messages."""
    return "#" + "".join(f"/{str(step)[:50]}" for step in path)
