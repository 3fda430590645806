"""One session: the servers run the same workloads in turns, several times.

All servers of an experiment are up, but only one has work at a time. The turns keep compared runs
within seconds of each other, since a shared machine has fast and slow minutes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jsonschema
import msgspec
from msgspec import structs

from server.benchmark.report import Summary, summarize
from server.benchmark.target import Run
from server.benchmark.workloads import CUSTOMER, run_workload
from tests.benchmark.servers import (
    Server,
    busy_neighbour,
    dragoman,
    llama_server,
    resident_bytes,
    running,
)

OURS = "dragoman"
OURS_ONE_THREAD = "dragoman --threads 1"
PEER = "llama-server"
PEER_TUNED = "llama-server -np 16"

KV_TOKENS = 32768
# Few cells, so that it takes seconds to overflow them.
_OVERFLOW_KV_TOKENS = 1024
_NEIGHBOUR_SECONDS = 300
# Short workloads run more often, for a steadier median.
_TAKES = {"single": 4, "copy": 4, "json": 2}
# Where more slots help llama-server; the other workloads of the tuned one wait for a full session.
_TUNED_QUICK = ("c8", "c16", "json")
WORKLOADS = (
    *("single", "c8", "c16", "prefix16", "stall", "json", "returning", "copy"),
    *("overflow", "neighbour"),
    *("agent-messages", "agent-responses"),
)
_AGENTS = WORKLOADS[-2:]
# The order of all workloads, of which those of models of real shapes run some more.
_ORDER = (*WORKLOADS, "prompt", "deep")


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a workload; ``valid`` answers obey the schema, in the workload ``json``."""

    experiment: str
    server: str
    summary: Summary
    valid: int | None = None


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a server: seconds to a first token, bytes of memory after that answer.

    No other server runs, since the mapped file of a shared model would count in part for each.
    """

    experiment: str
    server: str
    cold_start: float
    resident_bytes: int | None


class Experiment(NamedTuple):
    """Servers that run the same workloads on the same model.

    ``servers`` maps each server to its workloads. Each is also started alone, ``starts`` times.
    With ``short``, agents' sessions are.
    """

    name: str
    model: Path
    servers: Sequence[tuple[Server, Sequence[str]]]
    repeats: int
    takes: dict[str, int]
    neighbour: bool = False
    starts: int = 0
    short: bool = False


def starts(repeats: int, *, quick: bool) -> int:
    """How often each server is started alone: at least thrice, as starts vary and take seconds."""
    return 1 if quick else max(3, repeats)


class Plan(NamedTuple):
    """What a session measures.

    ``gemma`` is the model with many tokens in its vocabulary, ``agent`` that whose template writes
    tools.
    """

    model: Path
    gemma: Path
    agent: Path
    peer: Path
    workloads: Sequence[str]
    repeats: int
    quick: bool

    def experiments(self) -> Iterator[Experiment]:
        """Everything to measure, in order."""
        special = {"overflow", "neighbour", *_AGENTS}
        usual = [name for name in self.workloads if name not in special]
        tuned = [name for name in usual if not self.quick or name in _TUNED_QUICK]
        if usual:
            yield self._versus_peer("main", self.model, usual, tuned)
        if "json" in usual:
            yield self._versus_peer("gemma", self.gemma, ["json"], [] if self.quick else ["json"])
        if "overflow" in self.workloads:
            yield self._overflow()
        if "neighbour" in self.workloads:
            yield self._neighbour()
        if agents := [name for name in _AGENTS if name in self.workloads]:
            yield self._agents(agents)

    def _versus_peer(
        self, name: str, model: Path, usual: Sequence[str], tuned: Sequence[str]
    ) -> Experiment:
        servers = [
            (dragoman(OURS, kv_tokens=KV_TOKENS), usual),
            (llama_server(PEER, self.peer, kv_tokens=KV_TOKENS), usual),
            (llama_server(PEER_TUNED, self.peer, "-np", "16", kv_tokens=KV_TOKENS), tuned),
        ]
        servers = [(server, workloads) for server, workloads in servers if workloads]
        return Experiment(
            name,
            model,
            servers,
            self.repeats,
            _TAKES,
            starts=starts(self.repeats, quick=self.quick),
        )

    def _overflow(self) -> Experiment:
        cells = _OVERFLOW_KV_TOKENS
        # A slot with its own share of the cells would refuse these requests as too long.
        tuned = llama_server(PEER_TUNED, self.peer, "-np", "16", "--kv-unified", kv_tokens=cells)
        servers = [
            dragoman(OURS, kv_tokens=cells),
            llama_server(PEER, self.peer, kv_tokens=cells),
            tuned,
        ]
        return Experiment(
            "overflow", self.model, [(server, ["overflow"]) for server in servers], 1, {}
        )

    def _neighbour(self) -> Experiment:
        servers = [
            dragoman(OURS, kv_tokens=KV_TOKENS),
            dragoman(OURS_ONE_THREAD, "--threads", "1", kv_tokens=KV_TOKENS),
            llama_server(PEER, self.peer, kv_tokens=KV_TOKENS),
        ]
        return Experiment(
            "neighbour",
            self.model,
            [(server, ["single"]) for server in servers],
            self.repeats,
            {"single": 2},
            neighbour=True,
        )

    def _agents(self, names: Sequence[str]) -> Experiment:
        """A session needs twice the context that the model was trained on; only speed counts.

        llama-server does not read ``ignore_eos`` in a request to ``/v1/messages``.
        """
        longer = ("--override-kv", f"llama.context_length=int:{KV_TOKENS}", "--ignore-eos")
        servers = [
            dragoman(OURS, kv_tokens=KV_TOKENS, context=KV_TOKENS),
            llama_server(PEER, self.peer, "-np", "1", *longer, kv_tokens=KV_TOKENS),
        ]
        return Experiment(
            "agent", self.agent, [(server, names) for server in servers], 1, {}, short=self.quick
        )


class Session:
    """The measurements of `run`: ``samples`` and ``starts``."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.starts: list[Start] = []
        self._began = time.monotonic()
        self._seed = 0

    def run(self, experiments: Sequence[Experiment]) -> None:
        """Run ``experiments``; the servers take turns at going first."""
        for experiment in experiments:
            self._start_alone(experiment)
            self._compare(experiment)

    def _start_alone(self, experiment: Experiment) -> None:
        if experiment.starts:
            _read_once(experiment.model)
        for repeat in range(experiment.starts):
            for server, _ in _rotated(experiment.servers, repeat):
                with running(server, experiment.model) as started:
                    start = Start(
                        experiment=experiment.name,
                        server=server.name,
                        cold_start=started.cold_start,
                        resident_bytes=resident_bytes(started.pid),
                    )
                self.starts.append(start)

    def _compare(self, experiment: Experiment) -> None:
        with ExitStack() as stack:
            targets = {
                server.name: stack.enter_context(running(server, experiment.model)).target
                for server, _ in experiment.servers
            }
            if experiment.neighbour:
                stack.enter_context(busy_neighbour(_NEIGHBOUR_SECONDS))
            for turn, (name, seed) in enumerate(self._takes(experiment)):
                for server, workloads in _rotated(experiment.servers, turn):
                    if name in workloads:
                        target = structs.replace(targets[server.name], short=experiment.short)
                        run = asyncio.run(run_workload(name, target, seed))
                        self._keep(experiment.name, server.name, run)

    def _takes(self, experiment: Experiment) -> Iterator[tuple[str, int]]:
        """Each workload once per run, each time with a new seed for its prompts."""
        asked = {name for _, workloads in experiment.servers for name in workloads}
        for _ in range(experiment.repeats):
            self._seed += 100_000
            for name in filter(asked.__contains__, _ORDER):
                first = self._seed + 1000 * _ORDER.index(name)
                for take in range(experiment.takes.get(name, 1)):
                    yield name, first + 100 * take

    def _keep(self, experiment: str, server: str, run: Run) -> None:
        sample = Sample(
            experiment=experiment,
            server=server,
            summary=summarize(run),
            valid=_valid(run) if run.workload == "json" else None,
        )
        self.samples.append(sample)
        elapsed = time.monotonic() - self._began
        speed = f"{sample.summary.tokens_per_second:6.1f} tokens/s"
        failed = f", {sample.summary.failed} failed" if sample.summary.failed else ""
        print(
            f"{elapsed:6.0f} s  {experiment:10} {server:22} {run.workload:10} {speed}{failed}",
            file=sys.stderr,
        )


def _read_once(file: Path) -> None:
    """Have the system keep ``file`` in its cache, or the first server to start would be slower."""
    with file.open("rb") as opened:
        while opened.read(1 << 20):
            pass


def _valid(run: Run) -> int:
    """The number of answers that match the schema."""
    validator = jsonschema.Draft202012Validator(CUSTOMER)
    return sum(_obeys(answer.text, validator.is_valid) for answer in run.answers)


def _obeys(text: str, is_valid: Callable[[object], bool]) -> bool:
    try:
        return is_valid(msgspec.json.decode(text))
    except msgspec.DecodeError:
        return False


def _rotated(
    servers: Sequence[tuple[Server, Sequence[str]]], turn: int
) -> list[tuple[Server, Sequence[str]]]:
    first = turn % len(servers)
    return [*servers[first:], *servers[:first]]
