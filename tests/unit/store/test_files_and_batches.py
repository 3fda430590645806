"""Files and batches in both databases, and databases from before there were any."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

from server.store.database import Database
from server.store.kinds import BatchStatus, PageRequest, StoredBatch, StoredFile, UnknownCursor
from server.store.records import Records
from server.store.schema import schema_version


def file(
    name: str, *, owner: str = "me", purpose: str = "batch", expires: int | None = None
) -> StoredFile:
    return StoredFile(
        id=name,
        owner=owner,
        created_at=1,
        expires_at=expires,
        bytes=10,
        purpose=purpose,
        filename="a",
    )


def batch(name: str, status: BatchStatus = "validating", *, owner: str = "me") -> StoredBatch:
    return StoredBatch(id=name, owner=owner, created_at=1, status=status, body=b"{}")


def test_files_are_listed_as_they_came_and_to_their_owner(database: Database) -> None:
    with database.writing() as connection:
        records = Records(connection)
        for number in range(5):
            records.files.add(file(f"f{number}", purpose="batch" if number % 2 else "user_data"))
        records.files.add(file("other", owner="you"))
        page = records.files.page("me", PageRequest(limit=2))
        assert ([each.id for each in page.files], page.more) == (["f4", "f3"], True)
        page = records.files.page("me", PageRequest(limit=3, after="f3"))
        assert ([each.id for each in page.files], page.more) == (["f2", "f1", "f0"], False)
        page = records.files.page("me", PageRequest(order="asc", after="f0"), "user_data")
        assert [each.id for each in page.files] == ["f2", "f4"]
        with pytest.raises(UnknownCursor):
            records.files.page("me", PageRequest(after="other"))
        assert records.files.get("other", "me") is None
        assert records.files.bytes() == 60


def test_a_file_that_has_expired_is_not_there(database: Database) -> None:
    now = int(time.time())
    with database.writing() as connection:
        records = Records(connection)
        records.files.add(file("old", expires=now - 1))
        records.files.add(file("new", expires=now + 60))
        assert records.files.get("old", "me") is None
        assert [each.id for each in records.files.page("me", PageRequest()).files] == ["new"]
        assert records.files.expired() == ["old"]


def test_a_batch_changes_only_from_the_state_it_is_thought_to_have(database: Database) -> None:
    with database.writing() as connection:
        records = Records(connection)
        records.batches.add(batch("b"))
        assert records.batches.update(batch("b", "cancelling"), ["validating"])
        assert not records.batches.update(batch("b", "in_progress"), ["validating"])
        found = records.batches.get("b", "me")
        assert found is not None
        assert found.status == "cancelling"


def test_batches_that_have_ended_are_forgotten_and_others_stay(database: Database) -> None:
    with database.writing() as connection:
        records = Records(connection)
        records.batches.add(batch("a", "completed"))
        records.batches.add(batch("b", "in_progress"))
        records.batches.add(batch("c", "failed"))
        assert [each.id for each in records.batches.unfinished()] == ["b"]
        records.batches.remove_before(2)
        assert [each.id for each in records.batches.page("me", PageRequest(), "").batches] == ["b"]
        assert records.upkeep.info().batches == 1


def test_a_database_of_the_first_version_gets_room_for_files(url: str) -> None:
    first = Database(url)
    with first.writing() as connection:
        for table in ("files", "batches"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        kind = "BLOB" if connection.dialect.name == "sqlite" else "BYTEA"
        connection.exec_driver_sql(f"ALTER TABLE items ADD COLUMN tokens {kind}")
        connection.execute(update(schema_version).values(version=1))
    first.close()
    database = Database(url)
    with database.writing() as connection:
        records = Records(connection)
        records.files.add(file("f"))
        records.batches.add(batch("b"))
        assert records.upkeep.info().files == 1
    assert database.secret == first.secret
    database.close()
