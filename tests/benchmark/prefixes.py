"""What prefixes on disk save, and what they cost: `python -m tests.benchmark.prefixes [WORKLOAD]`.

- *restart*: a long prompt, asked again with another question after the server was restarted, with
  the files in the page cache and without; and beside llama-server, which is told to save its slot
  and to restore it.
- *swap*: ten conversations with each of two models, in memory for one, in turns: with the disk, and
  without, or by the server of the checkout ``--baseline FOLDER``, which was installed there.
- *beside*: a stream while prefixes are read, compared with one while prefixes come from memory; and
  a stream while another model leaves and writes its prefixes, compared with one without the disk.
- *start*: seconds to the first answer, beside 10 GB of files and beside none.

All runs of one comparison take turns, since a shared machine has fast and slow minutes.
`make bench` runs these workloads too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from server.benchmark.report import percentile
from server.benchmark.target import Target
from server.benchmark.timed_client import Answer, Endpoint
from server.core.prefix_folder import SUFFIX, segment_files
from server.core.settings import load
from server.engine.disk.segment_file import segment_head
from tests.benchmark import peer
from tests.benchmark.comparison import Row
from tests.benchmark.document import markdown
from tests.benchmark.session import OURS, PEER
from tests.e2e.server import BASE, INSTRUCT, MODELS, running_server

_TEXT = """
    the river of a small town runs past mills and gardens to where old ships wait for rain while
    clerks count coins by lamplight and children name every bridge after birds
"""
WORDS = _TEXT.split()
_CELLS = "12288"
# Fits either model with these cells and a worker in reserve, and not both.
_BUDGET_FOR_ONE = "1GiB"
_FILES = 200
_FILE_BYTES = 50_000_000
_STREAMED_TOKENS = 400
_SWAP_ANSWER_TOKENS = 48


def text(seed: int, words: int) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choices(WORDS, k=words))


@contextmanager
def served(folder: Path, *arguments: str, disk: str = "20GiB", checkout: str = "") -> Iterator[str]:
    """The address of a server that keeps prefixes in ``folder`` and has answered nothing."""
    options = ("--kv-tokens", _CELLS, "--ctx-size", _CELLS, *arguments)
    environment = {"DRAGOMAN_PREFIX_DISK": disk, "DRAGOMAN_PREFIX_DISK_DIR": str(folder)}
    with running_server(*options, checkout=checkout, **environment) as server:
        yield server.url


async def ask(
    url: str, messages: list[dict[str, str]], tokens: int = 16, *, model: str = INSTRUCT
) -> Answer:
    target = Target(endpoint=Endpoint(url), model=model)
    answer = await target.ask(messages, tokens, ignore_eos=True)
    assert answer.error is None, answer.error
    return answer


def first_token(
    url: str, model: str, messages: list[dict[str, str]], tokens: int = 16
) -> tuple[float, str]:
    """Seconds to the first token of an answer, and the answer."""
    answer = asyncio.run(ask(url, messages, tokens, model=model))
    assert answer.first is not None
    return answer.first, answer.text


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def restart(folder: Path, *, quick: bool) -> Iterator[Row]:
    document = text(1, 600 if quick else 3_000)

    def asked_anew(question: str) -> float:
        with served(folder) as url:
            first_token(url, INSTRUCT, [user("Hello")])
            return first_token(url, INSTRUCT, [user(f"{document}\n{question}")])[0]

    cold = asked_anew("What is this about?")
    warm = asked_anew("Who counts the coins?")
    _drop_cache(folder)
    dropped = asked_anew("Which birds are named?")
    yield _row("restart: TTFT, files in the page cache, s", warm, cold, 0.1)
    yield _row("restart: TTFT, files on disk, s", dropped, cold, 0.15)
    restored = _with_slot_file(folder, document)
    yield Row(
        label="restart: TTFT, files in the page cache, llama-server with its slot's file, s",
        values={OURS: warm, PEER: restored},
        ratio=f"{warm / restored:.2f}",
        target="",
        met=None,
    )


def _with_slot_file(folder: Path, document: str) -> float:
    """Seconds in which a restarted llama-server reads its slot's file and begins to answer."""
    binary = peer.install(load().cache_dir)
    model = MODELS / f"{INSTRUCT}.gguf"
    options = ("-c", _CELLS, "-np", "1", "--slot-save-path", str(folder))

    def tell(url: str, action: str) -> None:
        address = f"{url}/slots/0?action={action}"
        httpx.post(address, json={"filename": "slot"}, timeout=60).raise_for_status()

    with peer.serving(binary, model, *options) as url:
        first_token(url, INSTRUCT, [user(f"{document}\nWhat is this about?")])
        tell(url, "save")
    with peer.serving(binary, model, *options) as url:
        first_token(url, INSTRUCT, [user("Hello")])
        began = time.perf_counter()
        tell(url, "restore")
        restoring = time.perf_counter() - began
        return restoring + first_token(url, INSTRUCT, [user(f"{document}\nWho counts coins?")])[0]


def _drop_cache(folder: Path) -> None:
    """Have the system forget the contents of all files in ``folder``."""
    for file in segment_files(folder):
        descriptor = os.open(file.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def swap(folder: Path, *, quick: bool, baseline: Path | None = None) -> Iterator[Row]:
    """Each answer waits until the other model has left. The servers take turns, answer by answer.

    A conversation begins with a system text that all share and a document of its own. It grows from
    1,800 words to 2,700, answers not counted.
    """
    conversations, turns = (2, 2) if quick else (10, 4)
    instructions, document, further = (20, 40, 20) if quick else (300, 1_500, 300)
    with ExitStack() as running:
        budget = ("--memory-budget", _BUDGET_FOR_ONE)
        if baseline is None:
            other, served_by_other = "none on disk", served(folder, *budget, disk="0")
        else:
            other = "the baseline"
            served_by_other = served(folder, *budget, checkout=str(baseline))
        urls = {
            other: running.enter_context(served_by_other),
            "disk": running.enter_context(served(folder, *budget)),
        }
        waits: dict[str, list[float]] = {server: [] for server in urls}
        talks = {
            (number, model, server): [
                {"role": "system", "content": text(0, instructions)},
                user(text(number, document)),
            ]
            for number in range(1, conversations + 1)
            for model in (INSTRUCT, BASE)
            for server in urls
        }
        for turn in range(1, turns + 1):
            for (number, model, server), messages in talks.items():
                seconds, answer = first_token(urls[server], model, messages, _SWAP_ANSWER_TOKENS)
                waits[server].append(seconds)
                messages += [
                    {"role": "assistant", "content": answer},
                    user(text(100 * turn + number, further)),
                ]
    p50 = {server: median(seconds) for server, seconds in waits.items()}
    yield _row(f"swap: TTFT p50, beside {other}, s", p50["disk"], p50[other], 0.25)


def beside(folder: Path, *, quick: bool) -> Iterator[Row]:
    """The inter-token latency of a stream beside reads, and beside writes."""
    documents = [text(seed, 300 if quick else 1_500) for seed in range(2 if quick else 5)]

    async def ask_all(url: str) -> None:
        for document in documents:
            await ask(url, [user(f"{document}\nGo on.")], 1)

    async def gaps_while(url: str, work: Callable[[str], Awaitable[object]]) -> float:
        """The 99th percentile of a stream's gaps in which ``work`` is done."""
        stream = asyncio.create_task(ask(url, [user("Tell a tale.")], _STREAMED_TOKENS))
        await work(url)
        found = percentile((await stream).gaps, 0.99)
        assert found is not None
        return found

    async def leave(url: str) -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            await client.post(f"{url}/v1/models/unload", json={"model": BASE})

    def settled(url: str) -> str:
        """The address, once the worker has answered and prepared what it does when idle."""
        asyncio.run(ask(url, [user("Hello")]))
        time.sleep(2)
        return url

    rounds = 1 if quick else 3
    read, remembered = [], []
    with served(folder) as url:
        asyncio.run(ask_all(url))
    for _ in range(rounds):
        with served(folder) as url:
            read.append(asyncio.run(gaps_while(settled(url), ask_all)))
            remembered.append(asyncio.run(gaps_while(url, ask_all)))
    label = "stream beside prefixes read from disk: ITL p99, s"
    yield _row(label, median(read), median(remembered), 1.2)

    found: dict[str, list[float]] = {"0": [], "20GiB": []}
    for _ in range(rounds):
        for disk, gaps in found.items():
            with TemporaryDirectory() as empty, served(Path(empty), disk=disk) as url:
                for document in documents:
                    asyncio.run(ask(url, [user(document)], 1, model=BASE))
                gaps.append(asyncio.run(gaps_while(settled(url), leave)))
    label = "stream beside a model that writes: ITL p99, s"
    yield _row(label, median(found["20GiB"]), median(found["0"]), 1.2)


def start(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Start beside files of the same model and setting, all of which are looked at."""

    def seconds() -> float:
        began = time.perf_counter()
        with served(folder) as url:
            first_token(url, INSTRUCT, [user("Hello")])
            return time.perf_counter() - began

    times = 1 if quick else 3
    seconds()
    (own,) = (path for path in folder.iterdir() if path.is_dir())
    without = min(seconds() for _ in range(times))
    _write_sparse_files(own)
    beside_files = min(seconds() for _ in range(times))
    yield _row("start beside 10 GB of prefixes: to the first token, s", beside_files, without, 1.05)


def _write_sparse_files(folder: Path) -> None:
    """Files of prefixes with contents that take no room on disk; only their heads are written."""
    state = np.zeros(_FILE_BYTES, dtype=np.uint8)
    keys = np.arange(8_000, dtype=np.int32)
    for number in range(_FILES):
        head = segment_head(
            fingerprint=bytes.fromhex(folder.name),
            scope=b"s",
            keys=keys + number,
            start=7_488,
            state=state,
        )
        with (folder / f"{number}{SUFFIX}").open("wb") as file:
            file.write(head)
            file.truncate(len(head) + _FILE_BYTES)


def _row(label: str, ours: float, other: float, most: float) -> Row:
    """A line for a time that should be at most ``most`` times the ``other``."""
    return Row(
        label=label,
        values={OURS: ours},
        ratio=f"{ours / other:.3f} of {other:.3g} s",
        target=f"≤ {most:.2f}",
        met=ours <= most * other,
    )


WORKLOADS: dict[str, Callable[..., Iterator[Row]]] = {
    "restart": restart,
    "swap": swap,
    "beside": beside,
    "start": start,
}


def measure(names: Sequence[str], *, quick: bool, baseline: Path | None = None) -> list[Row]:
    """A row for each comparison of these workloads; ``quick`` ones are too short to be quoted.

    ``baseline`` is the checkout of another server, for *swap*.
    """
    workloads = WORKLOADS | {"swap": partial(swap, baseline=baseline)}
    rows: list[Row] = []
    for name in names:
        with TemporaryDirectory() as folder:
            rows += workloads[name](Path(folder), quick=quick)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.prefixes")
    everything = tuple(WORKLOADS)
    parser.add_argument("workloads", nargs="*", default=everything, metavar="|".join(everything))
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    parser.add_argument(
        "--baseline", type=Path, help="an installed checkout whose server is compared in swap"
    )
    options = parser.parse_args()
    rows = measure(options.workloads, quick=options.quick, baseline=options.baseline)
    print("\n".join(markdown(rows)))
    print(f"Load average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
