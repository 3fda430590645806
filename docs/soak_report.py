"""The verdict of `make soak` as text, and as the generated part of docs/reliability.md."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import msgspec

from tests.soak.verdict import Verdict

SOAK = Path(__file__).parent / "soak.json"
SOAK_PEER = Path(__file__).parent / "soak_llama_server.json"


def described(verdict: Verdict) -> str:
    """The verdict as Markdown tables."""
    lines = [
        f"{verdict.requests:,} requests in {verdict.seconds / 60:g} minutes.",
        "",
        "| Answers | |",
        "| --- | --- |",
        *(f"| {status} | {count:,} |" for status, count in verdict.answers.items()),
        "",
        "| Faults | |",
        "| --- | --- |",
        *(f"| {kind} | {count} |" for kind, count in verdict.faults.items()),
        "",
        "| Failed requests | after a fault that explains them | of them unexplained |",
        "| --- | --- | --- |",
        *(
            f"| {told} | {count - verdict.unexplained.get(told, 0)} "
            f"| {verdict.unexplained.get(told, 0)} |"
            for told, count in verdict.problems.items()
        ),
        "",
        "| Median | second third | last third | allowed growth |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {growth.early:g} | {growth.late:g} | {growth.allowed:g} |"
            for name, growth in verdict.growth.items()
        ),
        "",
        (
            f"Workers started: {verdict.workers}, left behind: {verdict.left_behind}. "
            f"Exit code: {verdict.exit_code}."
        ),
    ]
    return "\n".join(lines)


def saved(verdict: Verdict, file: Path) -> None:
    """Write the verdict, with the machine, to ``file``."""
    record = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}",
        "command": " ".join(["python -m tests.soak", *sys.argv[1:]]),
        "verdict": verdict,
    }
    file.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def soak_part() -> str:
    """The last saved runs, for docs/reliability.md."""
    ours = _run(SOAK)
    if not SOAK_PEER.exists():
        return ours
    return f"{ours}\n\nllama-server under the load that it can be asked for:\n\n{_run(SOAK_PEER)}"


def _run(file: Path) -> str:
    record = msgspec.json.decode(file.read_bytes())
    verdict = msgspec.convert(record["verdict"], Verdict)
    words = "It went well." if verdict.well else "It did not go well."
    return f"`{record['command']}` on {record['machine']}. {words}\n\n{described(verdict)}"
