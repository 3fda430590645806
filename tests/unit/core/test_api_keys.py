"""The file of API keys: what it may say, and what is said about wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.core.api_keys import KeyLimits, digest_of, read_keys
from server.core.settings_file import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_byte_order_mark_is_no_part_of_the_file(file: Path) -> None:
    file.write_text('\ufeff[keys.ann]\nkey = "s"\n')
    assert [key.name for key in read_keys(file)] == ["ann"]


def test_a_key_has_a_name_a_digest_and_limits(file: Path) -> None:
    file.write_text(
        '[keys."ann@example.com"]\nkey = "s"\n'
        f'[keys.bob]\ndigest = "sha256:{"0" * 64}"\nrequests_per_minute = 1\n'
        'tokens_per_minute = 2\nconcurrent = 3\npriority = "low"\nadmin = true\n'
    )
    ann, bob = read_keys(file)
    assert (ann.name, ann.digest, ann.limits) == (
        "ann@example.com",
        digest_of(b"s"),
        KeyLimits(),
    )
    assert bob.digest == bytes(32)
    assert (ann.admin, bob.admin) == (False, True)
    assert bob.limits == KeyLimits(
        requests_per_minute=1, tokens_per_minute=2, concurrent=3, priority="low"
    )


def test_the_file_of_the_documentation_is_one(file: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text(encoding="utf-8")
    (printed,) = re.findall(r"^```toml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    digits = iter("ab")
    file.write_text(re.sub("[0-9a-f]+…", lambda _: next(digits) * 64, printed))
    alice, nightly = read_keys(file)
    assert (alice.name, alice.admin, alice.limits.concurrent) == ("alice", True, 4)
    assert (nightly.name, nightly.admin, nightly.limits.priority) == ("nightly", False, "low")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[keys.a", "Expected"),
        ("port = 1", "it holds tables like"),
        ("keys = 1", "it holds tables like"),
        ("[keys]\na = 1", r"keys\.a: Expected `object`"),
        ("[keys.a]", r"keys\.a: give either key or digest"),
        (f'[keys.a]\nkey = "s"\ndigest = "sha256:{"0" * 64}"', "give either key or digest"),
        ('[keys.a]\nkey = ""', "length >= 1"),
        ('[keys.a]\ndigest = "md5:0"', "regex"),
        ('[keys.a]\nkey = "s"\nlimit = 1', "unknown field `limit`"),
        ('[keys.a]\nkey = "s"\nconcurrent = 0', "`int` >= 1"),
        ('[keys.a]\nkey = "s"\npriority = "urgent"', "Invalid enum value 'urgent'"),
        ('[keys.a]\nkey = "s"\nadmin = 1', "Expected `bool`"),
        ('[keys."a b"]\nkey = "s"', "at most 64 letters"),
        ('[keys.a]\nkey = "s"\n[keys.b]\nkey = "s"', "a and b are the same key"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_without_the_key(
    file: Path, text: str, problem: str
) -> None:
    file.write_text(text.replace('"s"', '"topsecret"'))
    with pytest.raises(ConfigError, match=problem) as raised:
        read_keys(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "topsecret" not in str(raised.value)


def test_a_file_that_is_missing_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\.toml: No such file or directory$"):
        read_keys(file)
