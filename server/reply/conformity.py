"""Whole answers against the schemas of their request, where the grammar held only a part."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

from server.core.errors import Locator
from server.core.reply import Answer
from server.core.request import ChatPrompt, GenerationRequest
from server.grammar.earlier_drafts import as_written, in_todays_words
from server.grammar.references import References

# The most steps of a pattern with look-around, which could take for ever; a choice, some 10 ms.
_MOST_STEPS = 100_000
# A choice: an answer that violates more places is wrong as a whole.
_MOST_VIOLATIONS = 16


def violations(
    request: GenerationRequest, loosened: Sequence[Locator], answer: Answer
) -> list[Locator]:
    """What of some schemas of a request an answer violates.

    Args:
        request: The request.
        loosened: Places in the schemas that are checked, like what was loosened of them.
        answer: A whole answer. Of one that was cut off only whole parts are checked.

    Returns:
        The places of the keywords that are violated, as paths like ``loosened``.
    """
    found: list[Locator] = []
    roots = {path[:2] for path in loosened}
    tools = request.prompt.tools if isinstance(request.prompt, ChatPrompt) else []
    for index, tool in enumerate(tools):
        if ("tools", index) in roots and tool.parameters is not None:
            place = ("tools", index, "parameters")
            texts = [call.arguments for call in answer.calls if call.name == tool.name]
            found += _violated(tool.parameters, texts, place)
    constraint = request.constraint
    if ("constraint", "schema") in roots and constraint is not None and answer.text:
        schema = msgspec.json.decode(constraint.body)
        found += _violated(schema, [answer.text], ("constraint", "schema"))
    return list(dict.fromkeys(found))[:_MOST_VIOLATIONS]


def held_nearly(request: GenerationRequest) -> list[Locator]:
    """The places of schemas that grammars hold but for rare answers, which are checked, too.

    Of bounds that exclude their own value the grammar compares digits, but readers keep doubles:
    0.29999999999999999999 is below 0.3, and read as 0.3. Bounds beyond 64 bits are in no grammar.
    Encoded labels of host names (``xn--``) may be such that they cannot be decoded.
    """
    schemas: list[tuple[Locator, bytes]] = []
    if isinstance(request.prompt, ChatPrompt):
        schemas += [
            (("tools", index), msgspec.json.encode(tool.parameters))
            for index, tool in enumerate(request.prompt.tools)
        ]
    if request.constraint is not None and request.constraint.kind == "json_schema":
        schemas.append((("constraint", "schema"), request.constraint.body.encode()))
    return [place for place, text in schemas if _HELD_NEARLY.search(text)]


# A bound of 0 is safe: no digits that matter are rounded to it.
_HELD_NEARLY = re.compile(
    rb'"(exclusiveM(ax|in)imum"\s*:\s*"?(true|-?[0-9.]*[1-9])|m(ax|in)imum"\s*:\s*"?-?[0-9]{19}'
    rb'|format"\s*:\s*"(hostname|email)")'
)


def _violated(schema: dict[str, Any], texts: Sequence[str], place: Locator) -> list[Locator]:
    if not texts:
        return []
    validator = _validator(msgspec.json.encode(schema))
    if validator is None:
        return []
    found: list[Locator] = []
    for text in texts:
        try:
            value = json.loads(text)
        except ValueError:  # cut off
            continue
        for error in validator.iter_errors(value):
            found.append((*place, *as_written(error.schema_path, schema)))
            if len(found) >= _MOST_VIOLATIONS:
                break
    return found


@lru_cache(maxsize=128)
def _validator(schema: bytes) -> jsonschema_rs.Draft202012Validator | None:
    """A validator of all that it can read of ``schema``; None for a schema that it cannot take."""
    root = msgspec.json.decode(schema)
    References(root).write_as_pointers()
    return _compiled(in_todays_words(root, _is_pattern))


@lru_cache(maxsize=1024)
def _is_pattern(text: str) -> bool:
    """Whether the validator reads ``text``: not every pattern of another language is one here."""
    return _compiled({"pattern": text}) is not None


def _compiled(schema: Any) -> jsonschema_rs.Draft202012Validator | None:
    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=True,
            ignore_unknown_formats=True,
            offline=True,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_MOST_STEPS),
        )
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return None
