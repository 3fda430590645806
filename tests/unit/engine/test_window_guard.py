from __future__ import annotations

import numpy as np

from server.engine.batch import Batch
from server.engine.llama.window_guard import WindowGuard

IDS, WINDOW = 4, 8


class Cells:
    """Which positions each id holds, twins included."""

    def __init__(self) -> None:
        self.held: dict[int, set[int]] = {}
        self.guard = WindowGuard(IDS, WINDOW, self.hold, self.release)

    def hold(self, source: int, target: int, start: int, end: int) -> None:
        shared = {p for p in self.held.get(source, set()) if start <= p < end}
        self.held.setdefault(target, set()).update(shared)

    def release(self, sequence_id: int, start: int) -> None:
        self.held[sequence_id] = {p for p in self.held.get(sequence_id, set()) if p < start}

    def decode(self, *runs: tuple[int, int, int]) -> None:
        batch = Batch(64)
        for sequence_id, start, end in runs:
            batch.add(sequence_id, np.zeros(end - start, dtype=np.int32), start, end - start)
            self.held.setdefault(sequence_id, set()).update(range(start, end))
        self.guard.grown(batch)

    def unheld(self, sequence_id: int) -> list[int]:
        """Positions that only the id itself holds."""
        return sorted(self.held[sequence_id] - self.held.get(sequence_id + IDS, set()))


def test_no_cell_leaves_the_window_while_only_one_id_holds_it() -> None:
    cells = Cells()
    cells.decode((0, 0, 3), (1, 0, 30))
    assert cells.unheld(1) == []
    for length in range(3, 40):
        cells.decode((0, length, length + 1))
        assert all(position > length - WINDOW for position in cells.unheld(0))


def test_a_twin_loses_what_its_id_loses() -> None:
    cells = Cells()
    cells.decode((2, 0, 20))
    cells.release(2, 12)
    cells.guard.cut(2, 12)
    assert cells.held[2 + IDS] == set(range(12))
    cells.decode((2, 12, 13))
    cells.decode((2, 13, 16))
    assert cells.unheld(2) == []


def test_a_twin_holds_what_its_id_shares_instead_of_its_own_cells() -> None:
    cells = Cells()
    cells.decode((3, 0, 10))
    calls: list[tuple[int, int, int, int]] = []
    cells.guard._hold = lambda *call: calls.append(call)
    cells.guard.shared(3, 4, 10)
    assert cells.held[3 + IDS] == set(range(4)), "its own cells are let go"
    assert calls == [(3, 3 + IDS, 4, 10)]


def test_after_clearing_twins_start_anew() -> None:
    cells = Cells()
    cells.decode((0, 0, 20))
    cells.held.clear()
    cells.guard.clear()
    cells.decode((0, 0, 2))
    assert cells.unheld(0) == [0, 1]
