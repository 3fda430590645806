"""A process that is killed while it stores loses nothing that it said was stored."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from server.store.database import Database
from server.store.records import Records
from tests.unit.store.endless_writer import ITEMS

KILLS = 6


@pytest.mark.process
def test_a_killed_process_leaves_every_stored_response_whole(url: str) -> None:
    chance = random.Random(20)
    stored: list[str] = []
    for kill in range(KILLS):
        command = [sys.executable, "-m", "tests.unit.store.endless_writer", url, f"k{kill}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            stored.append(writer.stdout.readline().strip())
            time.sleep(chance.uniform(0, 0.3))
            writer.kill()
            stored += writer.stdout.read().split()
    assert len(stored) > 2 * KILLS
    database = Database(url)
    with database.reading() as connection:
        records = Records(connection)
        for name in stored:
            assert records.responses.get(name, "me") is not None
            assert len(records.responses.outputs(name)) == ITEMS
        info = records.upkeep.info()
    database.close()
    # Each process may have stored one more, whole, without having said so.
    assert len(stored) <= info.responses <= len(stored) + KILLS
    assert info.items == info.responses * 2 * ITEMS
