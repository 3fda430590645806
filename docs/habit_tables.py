"""Tables of docs/compatibility.md on what clients send that OpenAI's description does not have."""

from __future__ import annotations

from typing import Any

from server.api.other_servers import NAMES, Reader
from tests.api.habits import HABITS
from tests.inputs.table import INPUTS

# Values of the kinds that readers tell apart.
_SAMPLES: list[Any] = [
    7,
    "low",
    "json",
    'root ::= "a"',
    ["a"],
    {"type": "enabled", "budget_tokens": 7},
    {"effort": "low", "max_tokens": 7, "enabled": True},
    {"json": {}, "regex": "a", "choice": ["a"], "grammar": 'root ::= "a"', "json_object": True},
]


def other_names() -> str:
    """The names that other servers have for parameters, and what each is here."""
    rows = ["| Name elsewhere | Here |", "| --- | --- |"]
    for name, reader in sorted(NAMES.items()):
        if here := ", ".join(f"`{field}`" for field in _meanings(name, reader)):
            rows.append(f"| `{name}` | {here} |")
        elif not reader(True):
            rows.append(f"| `{name}` | always on |")
    return "\n".join(rows)


def _meanings(name: str, reader: Reader) -> list[str]:
    """The other fields that ``name`` gives a value to, for one of the samples."""
    found = {path for value in _SAMPLES for path in reader(value)}
    return sorted({str(path[0]) for path in found if len(path) == 1} - {name})


def habits() -> str:
    """What clients really send, with its answer."""
    rows = ["| Sent | Answer |", "| --- | --- |"]
    for habit in HABITS:
        answer = f"{habit.status}, {habit.answer}" if habit.answer else str(habit.status)
        rows.append(f"| {habit.name} | {answer} |")
    return "\n".join(rows)


def inputs() -> str:
    """How many inputs of each kind are tried, and how many get which answer."""
    answers = ("served", "named", "loosened", "refused")
    rows = [f"| Kind | Inputs | {' | '.join(answers)} |", "| --- |" + " ---: |" * 5]
    kinds = dict.fromkeys(row.kind for row in INPUTS)
    for kind in kinds:
        found = [row.answer for row in INPUTS if row.kind == kind]
        counts = " | ".join(str(found.count(answer) or "") for answer in answers)
        rows.append(f"| {kind} | {len(found)} | {counts} |")
    totals = [sum(row.answer == answer for row in INPUTS) for answer in answers]
    rows.append(f"| all {len(kinds)} kinds | {len(INPUTS)} | {' | '.join(map(str, totals))} |")
    return "\n".join(rows)
