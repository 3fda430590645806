"""The JSON Schema Test Suite, compiled and tried; it comes in the source package of jsonschema.

``python -m tests.unit.grammar.suite`` prints the counts and every instance that is wrongly decided.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from llguidance import LLMatcher

from server.core.errors import InvalidConstraint
from server.grammar.json_schema import enforceable
from server.grammar.leniency import Leniency
from tests.unit.grammar.subjects import matcher

DRAFTS = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
# There formats are annotations, and keywords those of a metaschema that would have to be fetched.
_NOT_MEANT = {"format", "vocabulary"}
# Orders of properties that are tried for an instance.
_MOST_ORDERS = 720


class Case(NamedTuple):
    """A schema with its instances: what it says, the value, and whether it is valid."""

    draft: str
    name: str
    schema: dict[str, Any]
    instances: list[tuple[str, Any, bool]]


def fetch(folder: Path) -> Path:
    """The suite's folder of tests, out of the package that is installed here.

    Raises:
        subprocess.CalledProcessError: The package cannot be fetched.
    """
    package = f"jsonschema-{version('jsonschema')}"
    archive = folder / f"{package}.tar.gz"
    if not archive.exists():
        wanted = package.replace("-", "==")
        options = ["--no-deps", "--no-binary", "jsonschema", "--quiet", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, wanted]
        subprocess.run(command, check=True, capture_output=True, timeout=100)
    with tarfile.open(archive) as content:
        members = [each for each in content if "/json/tests/" in each.name]
        content.extractall(folder, members, filter="data")
    return folder / package / "json" / "tests"


def cases(tests: Path) -> Iterator[Case]:
    """The cases of both drafts, with those of the formats that are enforced here."""
    for draft, meta in DRAFTS.items():
        files = sorted((tests / draft).glob("*.json"))
        files += sorted((tests / draft / "optional" / "format").glob("*.json"))
        for file in (each for each in files if each.stem not in _NOT_MEANT):
            for group in json.loads(file.read_text(encoding="utf-8")):
                if not isinstance(group["schema"], dict):
                    continue
                yield Case(
                    draft,
                    f"{file.stem}: {group['description']}",
                    {"$schema": meta, **group["schema"]},
                    [(each["description"], each["data"], each["valid"]) for each in group["tests"]],
                )


class Outcome(NamedTuple):
    """What became of the suite: counts, and the instances that are wrongly decided."""

    counts: Counter[str]
    rejected: list[str]
    accepted: list[str]


def tried(all_cases: Iterator[Case]) -> Outcome:
    """Compile every schema, and feed its instances to the grammar.

    A valid instance counts as allowed if some spelling of it is: an order of properties, whole
    numbers without a fraction.
    """
    found = Outcome(Counter(), [], [])
    for case in all_cases:
        found.counts["schemas"] += 1
        leniency = Leniency(strict=False)
        try:
            schema = enforceable(case.schema, leniency)
        except InvalidConstraint:
            found.counts["refused"] += 1
            continue
        subject = matcher(json.dumps({"grammars": [{"json_schema": schema}]}))
        if subject.is_error():
            found.counts["not compiled"] += 1
            continue
        found.counts["loosened" if leniency.loosened else "enforced whole"] += 1
        for description, value, valid in case.instances:
            allowed = any(_matches(subject, text) for text in spellings(value))
            label = f"{case.draft} {case.name}: {description}"
            found.counts["valid instances" if valid else "invalid instances"] += 1
            if valid and not allowed:
                found.rejected.append(label)
            elif allowed and not valid and leniency.loosened:
                found.counts["invalid instances allowed where loosened"] += 1
            elif allowed and not valid:
                found.accepted.append(label)
    return found


def _matches(subject: LLMatcher, text: str) -> bool:
    attempt = subject.deep_copy()
    return bool(attempt.consume_tokens(list(text.encode())) and attempt.is_accepting())


def spellings(value: Any) -> Iterator[str]:
    """Texts of a value, in some of the ways in which JSON may be written."""
    for ordered in itertools.islice(_ordered(value), _MOST_ORDERS):
        for whole in (False, True):
            yield json.dumps(_with_numbers(ordered, whole=whole), ensure_ascii=False)


def _ordered(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for names in itertools.permutations(value):
            for values in itertools.product(*(list(_ordered(value[name])) for name in names)):
                yield dict(zip(names, values, strict=True))
    elif isinstance(value, list):
        for values in itertools.product(*map(list, map(_ordered, value))):
            yield list(values)
    else:
        yield value


def _with_numbers(value: Any, *, whole: bool) -> Any:
    if isinstance(value, dict):
        return {name: _with_numbers(each, whole=whole) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_numbers(each, whole=whole) for each in value]
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


if __name__ == "__main__":
    outcome = tried(cases(fetch(Path(sys.argv[1]))))
    print(dict(outcome.counts))
    print(*(f"rejected: {each}" for each in outcome.rejected), sep="\n")
    print(*(f"accepted: {each}" for each in outcome.accepted), sep="\n")
