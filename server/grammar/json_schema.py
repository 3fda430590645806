"""JSON Schemas that llguidance enforces completely, made of any others.

llguidance ignores some keywords and refuses others. `enforceable` leaves none that it ignores:
what can be said in keywords that it enforces is rewritten, and everything else that limits a value
is given up by name (`leniency`). Annotations, among them all unknown keywords (JSON Schema 2020-12
Core, 6.5), are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import msgspec

from server.core.errors import InvalidConstraint, Locator
from server.grammar import keywords, loosening, rewriting
from server.grammar.disjoint import all_exclude_each_other
from server.grammar.earlier_drafts import nullable, spelled_as_today, spelled_out
from server.grammar.impossible import without_impossible
from server.grammar.keywords import Schema, check_shapes, subschemas
from server.grammar.leniency import WEAKEST, Leniency, pointer
from server.grammar.property_names import property_names
from server.grammar.recursion import check_recursion
from server.grammar.references import References, Target, referring, steps
from server.grammar.rewriting import simplified

WHITESPACE = r" |\n[ \t]{0,40}"
"""The white space allowed between two JSON tokens: a blank, or a newline with an indentation.

Without a limit a model can write white space until its answer is cut off. 40 blanks, a choice, are
10 levels of 4.
"""

_ESCAPES = 'nrbtf\\"'
"""The characters allowed after a backslash. Not ``u``: for llguidance ``\\u0061`` and ``a`` are
different names.
"""

LIMITS = {
    "levels of nesting": 50,
    "subschemas": 10_000,
    "properties": 5_000,
    "enum values": 10_000,
}
"""The size of a schema.

llguidance's JSON reader stops at 128 levels, of which a level of the schema takes two and the
grammar around it a few: the most that fits is 61. The other limits are what compiles in about the 2
seconds that a trial may take (`engine.sampling.matcher`): 5,000 properties take 2.2 s, 10,000
subschemas or enum values less than 0.1 s.
"""

# A reference to a reference, and so on; only used to look at single keywords. A choice.
_MOST_HOPS = 10
# In these drafts nothing beside ``$ref`` has an effect.
_REFERENCE_STANDS_ALONE = ("draft-03", "draft-04", "draft-05", "draft-06", "draft-07")


def enforceable(schema: object, leniency: Leniency | None = None) -> Schema:
    """The strongest schema that can be enforced and allows all that ``schema`` allows.

    All references in it point at members of its ``$defs``.

    Args:
        schema: The schema, which stays as it is.
        leniency: Takes what is given up; without it, everything must be enforced.

    Raises:
        InvalidConstraint: The schema is malformed or too large, no value can match it, or it is
            strict and a keyword cannot be enforced. The message names the keyword and its place, or
            the limit.
    """
    try:
        root = msgspec.json.decode(msgspec.json.encode(schema))
    except RecursionError as error:
        raise InvalidConstraint("The JSON Schema is nested too deeply.") from error
    if not isinstance(root, dict):
        raise InvalidConstraint("The JSON Schema must be an object.")
    leniency = leniency or Leniency(strict=True)
    made = _Conversion(root, leniency).run()
    if leniency.weakness.level >= WEAKEST:
        leniency.give_up(())
        made = {"type": made["type"]} if "type" in made else {}
    made["x-guidance"] = {"whitespace_pattern": WHITESPACE, "json_allowed_escapes": _ESCAPES}
    return made


class _Conversion:
    """Converts every schema that can be reached from a root.

    Schemas that are referred to become definitions. The root itself stays as it is meanwhile, so
    that a reference can point into a keyword that is given up.
    """

    def __init__(self, root: Schema, leniency: Leniency) -> None:
        self._root = root
        self._leniency = leniency
        draft = root.get("$schema")
        self._reference_stands_alone = isinstance(draft, str) and any(
            each in draft for each in _REFERENCE_STANDS_ALONE
        )
        self._references = References(root, alone=self._reference_stands_alone)
        self._shared = self._references.targets()
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        self._waiting: list[tuple[str, Target]] = []
        self._one_of: list[tuple[Schema, Locator]] = []
        self._without_values: list[Locator] = []
        self._counts = dict.fromkeys(LIMITS, 0)

    def run(self) -> Schema:
        made = self._schema(self._root, (), 0)
        if made is False:
            raise InvalidConstraint(self._impossible())
        root: Schema = made if isinstance(made, dict) else {}
        definitions: dict[str, Schema | bool] = {}
        while self._waiting:
            name, target = self._waiting.pop()
            definitions[name] = self._schema(target.schema, target.path, 0, defining=True)
        made = without_impossible(root, definitions)
        if made is False:
            raise InvalidConstraint(self._impossible())
        if definitions:
            root["$defs"] = definitions
        for schema, path in self._one_of:
            self._settle_one_of(schema, path, definitions)
        check_recursion(root, definitions)
        return root

    def _schema(
        self, source: object, path: Locator, depth: int, *, defining: bool = False
    ) -> Schema | bool:
        source = spelled_out(source)
        if isinstance(source, bool):
            return source
        if not isinstance(source, dict):
            raise InvalidConstraint(
                f"The schema at {pointer(path)} must be an object or a boolean."
            )
        if id(source) in self._shared and path and not defining and any(subschemas(source)):
            return {"$ref": self._definition(Target(source, path))}
        self._count("subschemas")
        self._limit("levels of nesting", depth)
        schema = dict(source)
        spelled_as_today(schema)
        check_shapes(schema, path)
        if nullable(schema):
            rest = self._limited(schema, source, path, depth)
            return {"anyOf": [rest, {"type": "null"}]} if rest else {"type": "null"}
        return self._limited(schema, source, path, depth)

    def _limited(self, schema: Schema, source: Schema, path: Locator, depth: int) -> Schema | bool:
        """What limits a value in ``schema``, an own copy of ``source``."""
        if self._reference_stands_alone and "$ref" in schema:
            schema = {"$ref": schema["$ref"]}
        rewriting.without_effect(schema)
        loosening.settle_given_up(schema, path, self._leniency)
        self._refer(schema, source, path)
        rewriting.unevaluated(schema)
        if "propertyNames" in schema:
            names = self._followed(schema["propertyNames"])
            if property_names(schema, names):
                del schema["propertyNames"]
        if not rewriting.negation(schema):
            return False
        if not loosening.settle_values(schema, path, self._leniency):
            self._without_values.append((*path, "enum" if "enum" in schema else "const"))
            return False
        if not loosening.settle_texts(schema, path, self._leniency):
            return False
        loosening.settle_arrays(
            schema, path, self._leniency, self._followed(schema.get("items", {}))
        )
        loosening.settle_objects(schema, path, self._leniency)
        for keyword in sorted(schema.keys() & keywords.NOT_ENFORCED):
            self._leniency.give_up((*path, keyword))
        self._count("enum values", len(schema.get("enum", ())))
        made = self._with_parts(
            {key: each for key, each in schema.items() if key in keywords.ENFORCED}, path, depth
        )
        return rewriting.with_shorter_numbers(made) if isinstance(made, dict) else made

    def _with_parts(self, schema: Schema, path: Locator, depth: int) -> Schema | bool:
        """``schema`` with the schemas inside it converted."""
        for keyword in [key for key in schema if key in keywords.WITH_SUBSCHEMAS]:
            here, value = (*path, keyword), schema[keyword]
            if keyword in keywords.NAMED_SUBSCHEMAS:
                self._count("properties", len(value))
                schema[keyword] = {
                    name: self._schema(each, (*here, name), depth + 1)
                    for name, each in value.items()
                }
            elif isinstance(value, list):
                schema[keyword] = [
                    self._schema(each, (*here, index), depth + 1)
                    for index, each in enumerate(value)
                ]
            else:
                schema[keyword] = self._schema(value, here, depth + 1)
        if "oneOf" in schema:
            self._one_of.append((schema, path))
        return simplified(schema)

    # --- references ---

    def _refer(self, schema: Schema, source: Schema, path: Locator) -> None:
        """Let the reference of ``schema`` point at a definition."""
        for keyword in ("$recursiveRef", "$dynamicRef"):
            # Within one schema they mean the same, unless the target is named twice.
            if keyword in schema and "$ref" not in schema and isinstance(schema[keyword], str):
                if self._references.is_ambiguous(schema[keyword]):
                    continue
                try:
                    target = self._references.resolve(schema[keyword], source, pointer(path))
                except InvalidConstraint:
                    continue
                del schema[keyword]
                schema["$ref"] = self._definition(target)
                return
        if "$ref" in schema:
            target = self._references.resolve(schema["$ref"], source, pointer(path))
            schema["$ref"] = self._definition(target)

    def _definition(self, target: Target) -> str:
        """The reference to the definition of ``target``, which is converted later."""
        name = self._names.get(id(target.schema))
        if name is None:
            match target.path:
                case ("$defs" | "definitions", str(given)) if given not in self._taken:
                    name = given
                case _:
                    name = next(
                        each
                        for number in count(len(self._names))
                        if (each := f"ref{number}") not in self._taken
                    )
            self._taken.add(name)
            self._names[id(target.schema)] = name
            self._waiting.append((name, target))
        return referring(name)

    def _followed(self, schema: object) -> object:
        """A schema of the root after following references without others beside them."""
        for _ in range(_MOST_HOPS):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                break
            schema = self._references.resolve(schema["$ref"], schema).schema
        return schema

    # --- at the end ---

    def _settle_one_of(
        self, schema: Schema, path: Locator, definitions: Mapping[str, Schema | bool]
    ) -> None:
        """Turn ``oneOf`` into ``anyOf``, which is as strong if no value matches two branches."""
        branches = schema.pop("oneOf", None)
        if branches is None:  # it was simplified away
            return
        followed = [_target(each, definitions) for each in branches]
        if len(branches) > 1 and not all_exclude_each_other(followed):
            self._leniency.give_up(
                (*path, "oneOf"),
                f"The keyword 'oneOf' cannot be enforced, because a value might match more than "
                f"one of its schemas (at {pointer(path)}).",
            )
        if "anyOf" in schema:
            schema["allOf"] = [*schema.get("allOf", []), {"anyOf": branches}]
        else:
            schema["anyOf"] = branches

    def _impossible(self) -> str:
        """Why no value can match the root, as far as it is known."""
        said = "No value can match the JSON Schema."
        for *path, keyword in self._without_values[:1]:
            said += (
                f" The keyword '{keyword}' has no value that the keywords beside it allow "
                f"(at {pointer(tuple(path))})."
            )
        return said

    # --- sizes ---

    def _count(self, what: str, number: int = 1) -> None:
        self._counts[what] += number
        self._limit(what, self._counts[what])

    def _limit(self, what: str, number: int) -> None:
        if number > LIMITS[what]:
            raise InvalidConstraint(f"The JSON Schema has more than {LIMITS[what]} {what}.")


def _target(schema: Schema | bool, definitions: Mapping[str, Schema | bool]) -> Schema:
    """A converted schema after following references; everything else about it is unknown."""
    for _ in range(_MOST_HOPS):
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        (*_, name) = steps(schema["$ref"])
        schema = definitions[name]
    return schema if isinstance(schema, dict) else {}
