"""`dragoman keys`: makes named API keys, and shows those there are."""

from __future__ import annotations

import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.cli.console import CommandError, err, out
from server.cli.formatting import columns
from server.cli.options import takes_settings
from server.core.api_keys import ApiKey, KeyLimits, Priority, check_name, digest_of, read_keys
from server.core.settings import Settings

_PREFIX = "dgm-"


class Action(StrEnum):
    """What to do with the keys."""

    ADD = "add"
    LIST = "list"


@takes_settings("config", "keys_file")
def keys(  # noqa: PLR0917 typer calls it by names
    settings: Settings,
    action: Annotated[
        Action,
        typer.Argument(
            metavar="add|list",
            help="add: make a key, add its digest to the file, and print the key, this once. "
            "list: the keys of the file with their limits.",
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name of the new key.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Maximum requests in a minute (default: no limit).")
    ] = None,
    tokens_per_minute: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum tokens of prompts and answers in a minute (default: no limit)."
        ),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum requests answered at once (default: no limit)."),
    ] = None,
    priority: Annotated[
        Priority, typer.Option(help="Priority of its requests among those that wait.")
    ] = "normal",
    admin: Annotated[
        bool, typer.Option("--admin", help="Let it pull, load and unload models and adapters.")
    ] = False,
) -> None:
    """Make a named API key, or list those there are.

    A running server takes a new key at once. To withdraw one, delete its table from the file.
    """
    file = settings.keys_file
    if file is None:
        raise CommandError("no file of keys: name one with --keys-file or DRAGOMAN_KEYS_FILE")
    if action is Action.LIST:
        _print(read_keys(file))
        return
    if name is None:
        raise CommandError("give the new key a name: dragoman keys add NAME")
    limits = KeyLimits(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent=concurrent,
        priority=priority,
    )
    _add(file, name, limits, admin=admin)


def _add(file: Path, name: str, limits: KeyLimits, *, admin: bool) -> None:
    check_name(name, str(file))
    if file.exists() and any(key.name == name for key in read_keys(file)):
        raise CommandError(f"{file} has a key named {name} already")
    key = _PREFIX + secrets.token_urlsafe(32)
    lines = [f'[keys."{name}"]', f'digest = "sha256:{digest_of(key.encode()).hex()}"']
    lines += [f"{field} = {value}" for field, value in _stated(limits) if isinstance(value, int)]
    if limits.priority != "normal":
        lines.append(f'priority = "{limits.priority}"')
    if admin:
        lines.append("admin = true")
    before = file.read_text(encoding="utf-8").rstrip() + "\n\n" if file.exists() else ""
    # A server that reads the file meanwhile must find all of it.
    written = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        written.touch(mode=0o600)
        if file.exists():
            written.chmod(file.stat().st_mode & 0o777)
        written.write_text(before + "\n".join(lines) + "\n", encoding="utf-8")
        written.replace(file)
    except OSError as error:
        written.unlink(missing_ok=True)
        raise CommandError(f"cannot write {file}: {error.strerror}") from error
    err.print(f"The key of {name}, which is not shown again:", markup=False)
    out.print(key, markup=False)


def _print(found: list[ApiKey]) -> None:
    rows = [(key.name, ", ".join(_told(key))) for key in sorted(found, key=lambda key: key.name)]
    out.print(columns(rows) if rows else "no keys", markup=False)


def _told(key: ApiKey) -> list[str]:
    """Its limits, and that it is an admin's if it is."""
    limits = [f"{field} {value}" for field, value in _stated(key.limits)]
    return [*limits, "admin"] if key.admin else limits


def _stated(limits: KeyLimits) -> list[tuple[str, int | str]]:
    """The limits that there are, in the file's words."""
    fields = KeyLimits.__struct_fields__
    return [(field, value) for field in fields if (value := getattr(limits, field)) is not None]
