"""The database opens with the newest schema, for its owner alone, whoever else opens it."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, update

from server.core.errors import StoreUnavailable
from server.store.database import Database
from server.store.kinds import Limits
from server.store.records import Records
from server.store.schema import VERSION, batches, files, items, schema_version
from server.store.store import Store
from tests.unit.store.test_records import conversation, item, response

LIMITS = Limits(bytes=1 << 30, seconds=86_400)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/a/b/store.db", LIMITS)
    yield opened
    await opened.close()


def test_several_servers_may_open_an_empty_database_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: Database(url), range(8)))
    assert len({database.secret for database in opened}) == 1
    for database in opened:
        database.close()


def test_a_database_of_a_newer_version_is_not_touched(url: str) -> None:
    database = Database(url)
    with database.writing() as connection:
        connection.execute(update(schema_version).values(version=VERSION + 1))
    database.close()
    with pytest.raises(StoreUnavailable, match="newer dragoman"):
        Database(url)


def test_a_database_of_version_1_is_brought_up_to_date_and_loses_nothing(url: str) -> None:
    database = Database(url)
    kept = item("o")
    with database.writing() as connection:
        Records(connection).responses.save(response("r"), [], [kept])
        connection.execute(update(schema_version).values(version=1))
        kind = "BLOB" if connection.dialect.name == "sqlite" else "BYTEA"
        connection.exec_driver_sql(f"ALTER TABLE items ADD COLUMN tokens {kind}")
        for later in (files, batches):
            later.drop(connection)
    database.close()
    database = Database(url)
    with database.reading() as connection:
        assert connection.execute(select(schema_version.c.version)).scalar() == VERSION
        found = inspect(connection)
        for table in (items, files, batches):
            assert {each["name"] for each in found.get_columns(table.name)} == {*table.c.keys()}
        assert Records(connection).responses.outputs("r") == [kept]
    database.close()


def test_a_transaction_that_reads_sees_one_moment(database: Database) -> None:
    with database.writing() as connection:
        Records(connection).responses.save(response("r"), [], [item("o")])
    with database.reading() as reading:
        assert Records(reading).responses.outputs("r") == [item("o")]
        with database.writing() as writing:
            Records(writing).responses.delete("r", "me")
        assert Records(reading).responses.outputs("r") == [item("o")]
    with database.reading() as later:
        assert Records(later).responses.outputs("r") == []


def test_folder_and_files_are_their_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    before = os.umask(0)
    try:
        database = Database(f"sqlite:///{folder}/store.db")
    finally:
        os.umask(before)
    files = list(folder.iterdir())
    assert {file.name for file in files} == {"store.db", "store.db-wal", "store.db-shm"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    database.close()


async def test_an_owner_is_a_hash_that_other_stores_do_not_share(
    store: Store, tmp_path: Path
) -> None:
    other = Store(f"sqlite:///{tmp_path}/other.db", LIMITS)
    digest = "ab" * 32
    assert await store.owner(digest) == await store.owner(digest)
    assert await store.owner(digest) not in {digest, await other.owner(digest)}
    assert await store.owner("") == ""
    await other.close()


async def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def half(records: object) -> None:
        records.conversations.create(conversation(), [item("a")])  # type: ignore[attr-defined]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.write(half)
    assert await store.read(lambda records: records.upkeep.info().conversations) == 0


async def test_a_store_whose_file_vanishes_begins_a_new_one(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.write(lambda records: records.responses.save(response("r"), [], []))
    for file in (tmp_path / "a" / "b").iterdir():
        file.unlink()
    await store.write(lambda records: records.responses.save(response("s"), [], []))
    assert "vanished" in caplog.text
    assert await store.read(lambda records: records.upkeep.info().responses) == 1


async def test_a_store_that_cannot_be_written_says_so_once_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "folder"
    blocker.write_text("")
    store = Store(f"sqlite:///{blocker}/store.db", LIMITS)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.write(lambda records: records.responses.save(response("r"), [], []))
        assert store.failing
    assert caplog.text.count("the store fails") == 1
    blocker.unlink()
    await store.write(lambda records: records.responses.save(response("r"), [], []))
    assert not store.failing
    await store.close()


async def test_a_full_disk_loses_nothing_that_was_stored(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await store.write(lambda records: records.responses.save(response("r"), [item("i")], []))
    database = store._database
    assert database is not None
    database.close()  # the next connection gets the limit

    def fill(records: object) -> None:
        connection = records.responses._connection  # type: ignore[attr-defined]
        connection.exec_driver_sql("PRAGMA max_page_count = 30")
        records.responses.save(response("s"), [item("i", "x" * 1_000_000)], [])  # type: ignore[attr-defined]

    with pytest.raises(StoreUnavailable):
        await store.write(fill)
    assert "full" in caplog.text
    assert await store.read(lambda records: records.responses.get("r", "me")) == response("r")


async def test_the_bound_holds_while_responses_are_written(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db", Limits(bytes=100_000, seconds=86_400))
    for index in range(100):
        await store.write(
            lambda records, index=index: records.responses.save(  # type: ignore[misc]
                response(f"r{index}"), [item("i", "x" * 5_000)], []
            )
        )
    held = await store.write(lambda records: records.upkeep.bytes())
    assert held <= 100_000 + 5_200
    newest = await store.read(lambda records: records.responses.get("r99", "me"))
    assert newest is not None
    await store.close()


async def write_without_rest(store: Store, count: int) -> None:
    """Store ``count`` responses of 100 KB, one right after the other."""
    for index in range(count):
        await store.write(
            lambda records, index=index: records.responses.save(  # type: ignore[misc]
                response(f"r{index}"), [item("i", "x" * 100_000)], []
            )
        )


async def test_what_was_written_comes_into_sqlite_s_file_while_the_store_is_used(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "a/b/store.db"
    await write_without_rest(store, 100)
    await asyncio.to_thread(store._checkpointer.shutdown)
    assert file.stat().st_size > 4_000_000


async def test_sqlite_s_log_stays_bounded_where_writing_never_rests(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.store.store._MOST_LOG_BYTES", 8 << 20)
    await write_without_rest(store, 400)
    assert (tmp_path / "a/b/store.db-wal").stat().st_size < 12 << 20


async def test_room_that_a_sweep_makes_goes_back_to_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    store = Store(f"sqlite:///{file}", Limits(bytes=1, seconds=86_400))
    large = item("i", "x" * 1_000_000)
    await store.write(lambda records: records.responses.save(response("r"), [large], []))
    await store.write(lambda _: None)  # after the sweep that the first one made due
    await store.close()
    assert file.stat().st_size < 200_000


async def test_the_event_loop_does_not_wait_for_the_disk(store: Store) -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_: object) -> None:
        loop.call_soon_threadsafe(started.set)
        release.wait(5)

    release = threading.Event()
    writing = asyncio.create_task(store.write(slow))
    await asyncio.wait_for(started.wait(), 30)  # the loop runs while the transaction does
    # Reading goes on beside it.
    assert await store.read(lambda records: records.responses.get("r", "me")) is None
    release.set()
    await writing
