"""A server under load and faults for a while: ``python -m tests.soak [--minutes 30]``."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.soak_report import SOAK, SOAK_PEER, described, saved
from tests.e2e.server import Server, running_server
from tests.soak.faults import Clock, Faults, small_disk
from tests.soak.peer import running_peer
from tests.soak.samples import Sample, take
from tests.soak.traffic import RERANKER, Traffic
from tests.soak.verdict import ANY_CODES, CODES, Verdict, judge
from tests.tiny_models import write_tiny_model
from tests.tiny_rerankers import write_judge

MODELS = ("one", "two", "three")
_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
# Two models are asked for at a time; so the third makes room for the next one.
_SWAP_SECONDS = 20.0
_SAMPLE_SECONDS = 2.0
_LOG_LINES = 200
# One of them takes 106 MB, and the reranker 101.
_BUDGET = "390MiB"
_THREADS = max(1, (os.cpu_count() or 2) // 2)


def main() -> int:
    """Run, print the verdict, and save it where that is asked for; 0 if it went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", action="store_true", help="llama-server, in place of ours")
    parser.add_argument("--save", action="store_true", help="write the figures for the docs")
    chosen = parser.parse_args()
    run = soak_peer if chosen.peer else soak
    verdict, log = run(60 * chosen.minutes, chosen.clients, chosen.seed)
    print(described(verdict))
    if not verdict.well and not chosen.peer:
        others = [line for line in log.splitlines() if "dragoman.access" not in line]
        print("The end of the log:", *others[-_LOG_LINES:], sep="\n")
    print("It went well." if verdict.well else "It did not go well.")
    if chosen.save:
        saved(verdict, SOAK_PEER if chosen.peer else SOAK)
    return 0 if verdict.well else 1


def soak(seconds: float, clients: int, seed: int) -> tuple[Verdict, str]:
    """The verdict on a server that ran for so long, and its log."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("models", "disk", "temporary"):
            (folder / place).mkdir()
        _write_models(folder / "models")
        write_judge(folder / "models" / f"{RERANKER}.gguf")
        with small_disk(folder / "disk") as fillable:
            clock = Clock(folder)
            if not fillable:
                print("the disk is never full: mounting one needs root")
            if not clock.variables:
                print("the clock does not jump: that needs Linux and a C compiler")
            with running_server(**_variables(folder), **clock.variables) as server:
                run = _Run(server, folder, seconds, seed)
                asyncio.run(run(clients, clock, fillable=fillable))
                return run.verdict(), server.output()


def soak_peer(seconds: float, clients: int, seed: int) -> tuple[Verdict, str]:
    """The same for llama-server, with what it can be asked and what can fail there.

    It writes nothing to a disk, ranks and embeds only with servers of their own, and its errors are
    not told apart.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("models", "temporary"):
            (folder / place).mkdir()
        _write_models(folder / "models")
        clock = Clock(folder)
        variables = {"TMPDIR": str(folder / "temporary"), **clock.variables}
        with running_peer(folder / "models", 2, _THREADS, **variables) as server:
            run = _Run(server, folder, seconds, seed, common=True)
            asyncio.run(run(clients, clock, fillable=False))
            return run.verdict(ANY_CODES), server.output()


def _write_models(folder: Path) -> None:
    for number, model in enumerate(MODELS):
        path = folder / f"{model}.gguf"
        write_tiny_model(path, "full attention", number, chat_template=_TEMPLATE)


def _variables(folder: Path) -> dict[str, str]:
    return {
        "DRAGOMAN_MODELS_DIR": str(folder / "models"),
        "DRAGOMAN_CACHE_DIR": str(folder / "cache"),
        "DRAGOMAN_STORE_URL": f"sqlite:///{folder}/disk/store.db",
        "DRAGOMAN_STORE_MAX_BYTES": str(8 << 20),
        "DRAGOMAN_FILES_DIR": str(folder / "disk/files"),
        "DRAGOMAN_PREFIX_DISK": "16MiB",
        "DRAGOMAN_PREFIX_DISK_DIR": str(folder / "disk/prefixes"),
        "DRAGOMAN_MEMORY_BUDGET": _BUDGET,
        "DRAGOMAN_THREADS": str(_THREADS),
        "TMPDIR": str(folder / "temporary"),
    }


class _Run:
    """The load and the faults of one run, and what came of them."""

    def __init__(
        self, server: Server, folder: Path, seconds: float, seed: int, *, common: bool = False
    ) -> None:
        self._server = server
        self._folder = folder
        self._seconds = seconds
        self._began = time.monotonic()
        self.traffic = Traffic(server.url, self._models, seed, common=common)
        self.faults = Faults(server, self._now, seed)
        self.samples: list[Sample] = []

    async def __call__(self, clients: int, clock: Clock, *, fillable: bool) -> None:
        """Run to the end."""
        works = [self.faults.kill_workers(), self._sample()]
        if fillable:
            works.append(self.faults.fill_disk(self._folder / "disk"))
        if clock.variables:
            works.append(self.faults.move_clock(clock))
        beside = [asyncio.create_task(work) for work in works]
        asking = asyncio.create_task(self.traffic.run(clients))
        await asyncio.sleep(self._seconds)
        self.traffic.stop()
        for task in beside:
            task.cancel()
        ends = await asyncio.gather(*beside, return_exceptions=True)
        await asking
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def verdict(self, codes: Mapping[str, Container[str]] = CODES) -> Verdict:
        """End the server, and judge."""
        workers = set(self._server.worker_pids().values())
        process = self._server.process
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        return judge(
            self.traffic.outcomes,
            self.faults.made,
            self.samples,
            seconds=self._seconds,
            workers=len({pid for sample in self.samples for pid in sample.workers}),
            left_behind=sum(1 for pid in workers if Path(f"/proc/{pid}").exists()),
            exit_code=process.returncode,
            codes=codes,
        )

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _models(self) -> list[str]:
        """Two of the three, in turns."""
        turn = int(self._now() / _SWAP_SECONDS)
        return [MODELS[turn % 3], MODELS[(turn + 1) % 3]]

    async def _sample(self) -> None:
        while True:
            temporary = self._folder / "temporary"
            self.samples.append(await asyncio.to_thread(take, self._server, temporary, self._now()))
            await asyncio.sleep(_SAMPLE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
