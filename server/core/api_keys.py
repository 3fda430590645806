"""API keys: their names, what each may use and do, and the file that lists them."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from server.core.settings_file import ConfigError

Priority = Literal["high", "normal", "low"]

RANKS: dict[Priority, int] = {"high": 1, "normal": 0, "low": -1}
"""The priority of a key's requests among others: the greater goes first."""

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_Limit = Annotated[int, msgspec.Meta(ge=1)]


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may use; None is no limit.

    Attributes:
        requests_per_minute: Requests with a body.
        tokens_per_minute: Tokens of prompts and answers together.
        concurrent: Requests being answered at one time.
        priority: Which requests a model begins with first.
    """

    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None
    concurrent: _Limit | None = None
    priority: Priority = "normal"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key: its name, its SHA-256 digest, and its limits.

    With that of an ``admin``, models may be pulled, loaded and unloaded.
    """

    name: str
    digest: bytes
    limits: KeyLimits = KeyLimits()
    admin: bool = False


class _Entry(KeyLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as the file has it."""

    key: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    digest: Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    admin: bool = False


def digest_of(key: bytes) -> bytes:
    """The SHA-256 digest by which ``key`` is known."""
    return hashlib.sha256(key).digest()


def unnamed_keys(keys: Sequence[str]) -> list[ApiKey]:
    """The keys of the setting ``api_keys``, named after their places: key-1, key-2 and so on.

    They belong to the operator: they have no limits and may manage models.
    """
    return [
        ApiKey(name=f"key-{place}", digest=digest_of(key.encode()), admin=True)
        for place, key in enumerate(keys, start=1)
    ]


def read_keys(path: Path) -> list[ApiKey]:
    """The keys in the TOML file at ``path``: one table ``[keys.NAME]`` for each.

    Raises ConfigError, which names the file and the key at fault and shows no key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    tables = content.pop("keys", {})
    if content or not isinstance(tables, dict):
        raise ConfigError(f"{path}: it holds tables like [keys.alice] and nothing else")
    found = [_key(path, name, table) for name, table in tables.items()]
    names = {key.digest: key.name for key in found}
    for key in found:
        if names[key.digest] != key.name:
            raise ConfigError(f"{path}: {key.name} and {names[key.digest]} are the same key")
    return found


def check_name(name: str, where: str) -> None:
    """Raises ConfigError about ``where`` if no key can have this name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name has at most 64 letters, digits and ._@-")


def _key(path: Path, name: str, table: Any) -> ApiKey:
    where = f"{path}: keys.{name[:100]}"
    check_name(name, where)
    try:
        entry = msgspec.convert(table, _Entry)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
    if (entry.key is None) == (entry.digest is None):
        raise ConfigError(f"{where}: give either key or digest")
    if entry.digest is not None:
        digest = bytes.fromhex(entry.digest.removeprefix("sha256:"))
    else:
        assert entry.key is not None
        digest = digest_of(entry.key.encode())
    stated = {field: getattr(entry, field) for field in KeyLimits.__struct_fields__}
    return ApiKey(name=name, digest=digest, limits=KeyLimits(**stated), admin=entry.admin)
