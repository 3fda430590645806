"""`dragoman keys` makes keys that a server takes, and keeps only their digests."""

from __future__ import annotations

from pathlib import Path

from server.core.api_keys import KeyLimits, digest_of, read_keys
from tests.unit.cli.conftest import Run


def test_a_new_key_is_printed_once_and_its_digest_kept(run: Run, folder: Path) -> None:
    limits = ["--requests-per-minute", "9", "--priority", "low"]
    made = run("keys", "add", "alice", "--keys-file", "keys.toml", *limits)
    assert (
        made.exit_code,
        run("keys", "add", "b.c", "--admin", "--keys-file", "keys.toml").exit_code,
    ) == (
        0,
        0,
    )
    file = folder / "keys.toml"
    alice, other = read_keys(file)
    assert (alice.admin, other.admin) == (False, True)
    assert alice.digest == digest_of(made.out.strip().encode())
    assert alice.limits == KeyLimits(requests_per_minute=9, priority="low")
    assert made.out.strip() not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    listed = run("keys", "list", "--keys-file", "keys.toml").out.splitlines()
    assert listed[0].split(maxsplit=1) == ["alice", "requests_per_minute 9, priority low"]
    assert listed[1].split(maxsplit=1) == ["b.c", "priority normal, admin"]


def test_what_stood_in_the_file_stays(run: Run, folder: Path) -> None:
    file = folder / "keys.toml"
    file.write_text('# ours\n[keys.old]\nkey = "s"')
    file.chmod(0o640)
    assert run("keys", "add", "new", "--keys-file", "keys.toml").exit_code == 0
    assert [key.name for key in read_keys(file)] == ["old", "new"]
    assert file.read_text().startswith("# ours\n")
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_name_that_is_taken_missing_or_unfit_is_refused(run: Run, folder: Path) -> None:
    (folder / "keys.toml").write_text('[keys.old]\nkey = "s"')
    where = ["--keys-file", "keys.toml"]
    assert "a key named old already" in run("keys", "add", "old", *where).err
    assert "give the new key a name" in run("keys", "add", *where).err
    assert "at most 64 letters" in run("keys", "add", "a b", *where).err
    assert "--keys-file" in run("keys", "add", "new").err
    assert "cannot write" in run("keys", "add", "new", "--keys-file", "no/keys.toml").err
