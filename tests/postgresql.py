"""A PostgreSQL server of the tests' own, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

_USER = "postgres"


def _programs() -> Path | None:
    """The folder of the server's programs; Debian has them outside the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


@contextmanager
def running_postgresql() -> Iterator[Callable[[], str]]:
    """Makes URLs of new databases while the server runs; skips the test where there is none."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    # The server refuses to run as root.
    as_user = _USER if os.geteuid() == 0 else None

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60, user=as_user)

    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if as_user:
            shutil.chown(folder, _USER, _USER)
        data = str(folder / "data")
        run("initdb", "-D", data, "-U", _USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")

        def database() -> str:
            # A schema is made faster than a database, and a connection sees only its own.
            name = f"s{uuid.uuid4().hex}"
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"CREATE SCHEMA {name}".encode())
            return f"{server}&options=-csearch_path%3D{name}"

        server = f"postgresql://{_USER}@/postgres?host={folder}"
        try:
            yield database
        finally:
            # A test that starts no processes may be the last one.
            [pid, *_] = (folder / "data" / "postmaster.pid").read_text().split()
            os.kill(int(pid), signal.SIGQUIT)
