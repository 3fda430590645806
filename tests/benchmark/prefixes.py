"""What prefixes on disk save: `python -m tests.benchmark.prefixes [restart|swap|start ...]`.

- *restart*: a long prompt, asked again with another question after the server was restarted, with
  the files in the page cache and without.
- *swap*: conversations with two models in turns, in memory for one, with and without the disk.
- *start*: seconds to the first answer, beside 10 GB of files and beside none.

All runs of one comparison take turns, since a shared machine has fast and slow minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from server.benchmark.target import Target
from server.benchmark.timed_client import Endpoint
from server.core.prefix_folder import SUFFIX, segment_files
from server.engine.disk.segment_file import write_segment
from tests.e2e.server import BASE, INSTRUCT, running_server

_TEXT = """
    the river of a small town runs past mills and gardens to where old ships wait for rain while
    clerks count coins by lamplight and children name every bridge after birds
"""
WORDS = _TEXT.split()
LONG_WORDS = 3_000
TURN_WORDS = 400
_CELLS = "12288"
# Fits either model with these cells, and not both.
_BUDGET = "900MiB"
_FILES = 200
_FILE_BYTES = 50_000_000


def text(seed: int, words: int) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choices(WORDS, k=words))


@contextmanager
def served(folder: Path, *arguments: str, disk: str = "20GiB") -> Iterator[str]:
    """The address of a server that keeps prefixes in ``folder`` and has answered nothing."""
    options = ("--kv-tokens", _CELLS, "--ctx-size", _CELLS, *arguments)
    environment = {"DRAGOMAN_PREFIX_DISK": disk, "DRAGOMAN_PREFIX_DISK_DIR": str(folder)}
    with running_server(*options, **environment) as server:
        yield f"{server.url}/v1"


def first_token(url: str, model: str, messages: list[dict[str, str]]) -> tuple[float, str]:
    """Seconds to the first token of an answer, and the answer."""
    target = Target(endpoint=Endpoint(url.removesuffix("/v1")), model=model)
    answer = asyncio.run(target.ask(messages, 16))
    assert answer.error is None, answer.error
    assert answer.first is not None
    return answer.first, answer.text


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def restart(folder: Path) -> None:
    document = text(1, LONG_WORDS)

    def ask(question: str) -> float:
        with served(folder) as url:
            first_token(url, INSTRUCT, [user("Hello")])
            return first_token(url, INSTRUCT, [user(f"{document}\n{question}")])[0]

    cold = ask("What is this about?")
    warm = ask("Who counts the coins?")
    drop_cache(folder)
    dropped = ask("Which birds are named?")
    print(
        f"restart: TTFT cold {cold:.2f} s; after a restart {warm:.3f} s ({warm / cold:.3f}), "
        f"with the page cache dropped {dropped:.3f} s ({dropped / cold:.3f})"
    )


def drop_cache(folder: Path) -> None:
    """Have the system forget the contents of all files in ``folder``."""
    for file in segment_files(folder):
        descriptor = os.open(file.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def swap(folder: Path, conversations: int, turns: int) -> None:
    budget = ("--memory-budget", _BUDGET)
    medians = []
    for disk in ("0", "20GiB"):
        waits = []
        talks = {
            (model, number): [user(text(number, TURN_WORDS))]
            for number in range(conversations)
            for model in (INSTRUCT, BASE)
        }
        with served(folder, *budget, disk=disk) as url:
            for turn in range(turns):
                for (model, number), messages in talks.items():
                    seconds, answer = first_token(url, model, messages)
                    if turn:
                        waits.append(seconds)
                    messages += [
                        {"role": "assistant", "content": answer},
                        user(text(100 * turn + number, 20)),
                    ]
        medians.append(median(waits))
    without, with_disk = medians
    print(
        f"swap: TTFT p50 without the disk {without:.2f} s, with it {with_disk:.2f} s "
        f"({with_disk / without:.2f})"
    )


def start(folder: Path) -> None:
    """Start beside files of the same model and setting, all of which are looked at."""

    def seconds() -> float:
        began = time.perf_counter()
        with served(folder) as url:
            first_token(url, INSTRUCT, [user("Hello")])
            return time.perf_counter() - began

    seconds()
    (own,) = (path for path in folder.iterdir() if path.is_dir())
    fingerprint = bytes.fromhex(own.name)
    without = [seconds() for _ in range(2)]
    state = np.zeros(_FILE_BYTES, dtype=np.uint8)
    keys = np.arange(8_000, dtype=np.int32)
    for number in range(_FILES):
        path = own / f"{number}{SUFFIX}"
        write_segment(
            path, fingerprint=fingerprint, scope=b"s", keys=keys + number, start=7_488, state=state
        )
    beside = [seconds() for _ in range(2)]
    print(
        f"start: {min(without):.2f} s, beside {_FILES * _FILE_BYTES / 1e9:g} GB {min(beside):.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.prefixes")
    everything = ("restart", "swap", "start")
    parser.add_argument("workloads", nargs="*", default=everything, metavar="|".join(everything))
    parser.add_argument("--conversations", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    for name in options.workloads:
        with TemporaryDirectory() as folder:
            match name:
                case "restart":
                    restart(Path(folder))
                case "swap":
                    swap(Path(folder), options.conversations, options.turns)
                case "start":
                    start(Path(folder))
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
