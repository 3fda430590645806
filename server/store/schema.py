"""The tables, and the migrations to them from those of earlier versions.

A migration is never changed once it is released: a later one changes what it made. Bodies are JSON
in binary columns, since PostgreSQL's text cannot hold U+0000.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    update,
)

_metadata = MetaData()
# SQLite numbers rows by itself only in columns of the type INTEGER.
_Key = BigInteger().with_variant(Integer, "sqlite")

schema_version = Table(
    "schema_version", _metadata, Column("version", Integer, primary_key=True, autoincrement=False)
)

secrets = Table(
    "secrets",
    _metadata,
    Column("name", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

runners = Table(
    "runners",
    _metadata,
    Column("id", String, primary_key=True),
    Column("seen_at", Float, nullable=False),
)
"""Servers that make responses in the background, and when each was last seen."""

responses = Table(
    "responses",
    _metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("previous_id", String),
    # The first response of the chain that this one belongs to; chains are evicted whole.
    Column("root_id", String, nullable=False),
    Column("conversation_id", String),
    Column("runner", String),
    Column("bytes", BigInteger, nullable=False),
    # The last column: reading the others does not read it.
    Column("body", LargeBinary, nullable=False),
    Index("responses_by_previous", "previous_id"),
    Index("responses_by_root", "root_id", "used_at"),
    Index("responses_by_conversation", "conversation_id"),
    Index("responses_by_status", "status", "runner"),
)

conversations = Table(
    "conversations",
    _metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
)

items = Table(
    "items",
    _metadata,
    # The order of the items of a response, and of a conversation.
    Column("key", _Key, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False),
    Column("owner", String, nullable=False),
    # An item belongs to a response, to a conversation, or to both; else it is removed.
    Column("response_id", String),
    Column("direction", String, nullable=False),
    Column("conversation_id", String),
    Column("bytes", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # They have the bytes, so that adding them up reads no bodies.
    Index("items_by_response", "response_id", "key", "bytes"),
    Index("items_by_conversation", "conversation_id", "key", "bytes"),
    Index("items_by_id", "id", "owner"),
)

events = Table(
    "events",
    _metadata,
    Column("response_id", String, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("type", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

files = Table(
    "files",
    _metadata,
    # The order of a list: two files may be of the same second.
    Column("key", _Key, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("bytes", BigInteger, nullable=False),
    Column("purpose", String, nullable=False),
    Column("filename", String, nullable=False),
    Index("files_by_owner", "owner", "key"),
    Index("files_by_expiry", "expires_at"),
)
"""Uploaded files and results of batches; their contents lie in a folder (`file_folder`)."""

batches = Table(
    "batches",
    _metadata,
    Column("key", _Key, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("batches_by_owner", "owner", "key"),
    Index("batches_by_status", "status", "key"),
)


def create(connection: Connection) -> None:
    """Make all tables, in a database that has none."""
    _metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(schema_version).values(version=VERSION))


def migrate(connection: Connection, version: int) -> None:
    """Bring a database of an earlier version up to date."""
    for migration in _MIGRATIONS[version - 1 :]:
        migration(connection)
    connection.execute(update(schema_version).values(version=VERSION))


def _add_files_and_batches(connection: Connection) -> None:
    _metadata.create_all(connection, tables=(files, batches), checkfirst=False)


def _without_tokens(connection: Connection) -> None:
    """Items had room for the tokens of answers, which lie beside the cached prefixes instead."""
    # SQLite drops columns since 3.35; an older one keeps it, empty.
    if connection.dialect.name != "sqlite" or sqlite3.sqlite_version_info >= (3, 35):
        connection.exec_driver_sql("ALTER TABLE items DROP COLUMN tokens")


_MIGRATIONS: Sequence[Callable[[Connection], None]] = (_add_files_and_batches, _without_tokens)
"""Each brings a database to the next version, the first one from version 1."""

VERSION = 1 + len(_MIGRATIONS)
"""Of the schema that this code knows."""
