"""Files of prefixes that are damaged, and writers that are killed: ``make fuzz-prefixes``.

``python -m tests.fuzz.prefixes [MUTATIONS [KILLS]]``, 100,000 and 200 by default.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from io import FileIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from server.core.prefix_folder import SUFFIX, segment_files, sweep
from server.engine.cache.buffers import Buffers
from server.engine.disk.segment_file import UnusableFile, read_header, read_state, write_segment

_STATE_BYTES = 1 << 20
_LONGEST_LIFE = 0.02


def mutations_accepted(folder: Path, count: int) -> int:
    """How many of ``count`` random changes to a segment file go unnoticed."""
    path = folder / "mutated"
    state = np.frombuffer(random.Random(2).randbytes(3000), dtype=np.uint8)
    keys = np.arange(50, dtype=np.int32)
    write_segment(path, fingerprint=b"f" * 16, scope=b"s" * 16, keys=keys, start=20, state=state)
    whole = path.read_bytes()
    chance = random.Random(3)
    accepted = 0
    for _ in range(count):
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.randrange(len(changed) or 1)
            match chance.randrange(4):
                case 0:
                    changed[place : place + 1] = bytes([chance.randrange(256)])
                case 1:
                    del changed[place : place + chance.choice((1, 4, 16, 4096))]
                case 2:
                    changed[place:place] = chance.randbytes(chance.choice((1, 4, 16)))
                case _ if changed:
                    changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            with FileIO(path) as file:
                header, read_keys, state_at = read_header(file)
                read = read_state(file, header, state_at, Buffers(0).take)
        except UnusableFile:
            continue
        same = np.array_equal(read, state) and np.array_equal(read_keys, keys)
        accepted += not (same and (header.fingerprint, header.start) == (b"f" * 16, 20))
    return accepted


def wrong_after_kills(folder: Path, kills: int) -> int:
    """How many files are not what was to be written, after ``kills`` writers died by SIGKILL.

    All write files of the same names, one after the other.
    """
    model = folder / "model"
    model.mkdir(exist_ok=True)
    chance = random.Random(4)
    wrong = 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            _write_on(model)
        time.sleep(chance.uniform(0.001, _LONGEST_LIFE))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        wrong += sum(not _is_right(file.path) for file in segment_files(folder))
    assert segment_files(folder), "none lived long enough"
    sweep(folder, 1 << 40, 1e6, abandoned=-1.0)
    assert all(path.suffix == SUFFIX for path in model.iterdir()), "what was begun is swept"
    return wrong


def _write_on(model: Path) -> None:
    try:
        for number in count():
            keys = np.arange(number % 8 + 1, dtype=np.int32)
            path = model / f"{number % 8}{SUFFIX}"
            state = _state(keys)
            write_segment(path, fingerprint=b"f", scope=b"s", keys=keys, start=0, state=state)
    finally:
        os._exit(1)


def _is_right(path: Path) -> bool:
    with FileIO(path) as file:
        header, keys, state_at = read_header(file)
        return np.array_equal(read_state(file, header, state_at, Buffers(0).take), _state(keys))


def _state(keys: NDArray[np.int32]) -> NDArray[np.uint8]:
    return np.full(_STATE_BYTES, len(keys), dtype=np.uint8)


def main(mutations: int = 100_000, kills: int = 200) -> None:
    """Report how many damaged files were taken for whole ones, which must be none."""
    with TemporaryDirectory() as folder:
        accepted = mutations_accepted(Path(folder), mutations)
        print(f"{accepted} of {mutations} mutations accepted")
        wrong = wrong_after_kills(Path(folder), kills)
        print(f"{wrong} wrong files after {kills} kills")
    sys.exit(bool(accepted or wrong))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
