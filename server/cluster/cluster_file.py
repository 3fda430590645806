"""Reads `cluster.toml`, and says what is wrong in it.

`server.cluster.tables` describes its tables.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from server.cluster.tables import (
    FRONT_SETTINGS,
    REPLICA_SETTINGS,
    Cluster,
    Group,
    Head,
    Replicas,
)
from server.core.near_names import closest
from server.core.settings import Settings
from server.core.settings_file import ConfigError

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 compared
# What to say in place of pydantic's own words, by the type of its error.
_WORDS = {
    "missing": "it is missing",
    "model_type": "give a table",
    "dict_type": "give a table",
    "list_type": "give a list",
    "string_type": "give a text",
    "string_too_short": "it is empty",
    "path_type": "give a path",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "int_parsing": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "string_pattern_mismatch": "names have lower-case letters, digits and hyphens",
}
_SETTINGS_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)


def read_cluster(path: Path) -> Cluster:
    """The cluster that the file describes; raises ConfigError, which says what is wrong where."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        cluster = Cluster.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(path, error, content))) from error
    front = _checked(cluster.front, FRONT_SETTINGS, f"{path}: front")
    settings = _checked(cluster.settings, REPLICA_SETTINGS, f"{path}: settings")
    groups = {}
    for name, group in cluster.groups.items():
        own = _checked(group.settings, REPLICA_SETTINGS, f"{path}: groups.{name}.settings")
        groups[name] = group.model_copy(update={"settings": own})
        _check_shared(settings | own, f"{path}: groups.{name}")
    found = cluster.model_copy(update={"front": front, "settings": settings, "groups": groups})
    _check_exposure(found, path)
    _check_ports(found, path)
    return found


def _checked(values: Mapping[str, Any], allowed: Collection[str], where: str) -> dict[str, Any]:
    """The stated settings as plain data of their kinds; raises ConfigError."""
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in Settings.model_fields.items()
        if name in allowed
    }
    table = create_model("SettingsTable", __config__=_SETTINGS_CONFIG, **fields)
    try:
        checked = table.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0])
            if problem["type"] == "extra_forbidden":
                lines.append(f"{where}: {_not_here(name, allowed)}")
            else:
                lines.append(f"{where}.{name}: {_reason(problem)}")
        raise ConfigError("\n".join(lines)) from error
    stated: dict[str, Any] = checked.model_dump(mode="json", exclude_unset=True)
    return stated


def _not_here(name: str, allowed: Collection[str]) -> str:
    """Why a setting cannot be in a table."""
    if name in FRONT_SETTINGS or name in REPLICA_SETTINGS:
        return f"{name} belongs into [{'front' if name in FRONT_SETTINGS else 'settings'}]"
    if name in Settings.model_fields:
        return f"{name} is no setting of a cluster"
    return _unknown(name, name, allowed)


def _problems(path: Path, error: ValidationError, content: Mapping[str, Any]) -> Iterator[str]:
    for problem in error.errors():
        steps = [str(step) for step in problem["loc"] if step != "[key]"]
        place = ".".join(steps)
        if problem["type"] == "extra_forbidden":
            yield f"{path}: {_unknown(place, steps[-1], _table(steps[:-1]).model_fields)}"
        elif place == "groups" and not content.get("groups"):
            yield f"{path}: there is no table [groups.NAME], so there is no model"
        else:
            yield f"{path}: {place}: {_reason(problem)}"


def _table(steps: Sequence[str]) -> type[BaseModel]:
    """What the table at this place is."""
    match steps:
        case []:
            return Cluster
        case ["head"]:
            return Head
        case ["groups", _]:
            return Group
        case _:
            return Replicas


def _unknown(place: str, name: str, known: Collection[str]) -> str:
    near = closest(name, known)
    return f"unknown key {place!r}" + (f"; did you mean {near!r}?" if near else "")


def _reason(problem: ErrorDetails) -> str:
    """What is wrong with a value."""
    said = problem["msg"].removeprefix("Value error, ")
    return _WORDS.get(problem["type"], said)


def _check_shared(settings: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError where replicas would each keep what they have to share."""
    if settings.get("store", True):
        url = str(settings.get("store_url", ""))
        if not url.startswith("postgresql:"):
            raise ConfigError(
                f"{where}: replicas share one store: set store_url = "
                '"postgresql://USER@HOST/NAME" in [settings], or store = false'
            )
        if settings.get("files", True) and "files_dir" not in settings:
            raise ConfigError(
                f"{where}: replicas share uploaded files: set files_dir in [settings] to a folder "
                "that all machines see, or files = false"
            )


def _check_exposure(cluster: Cluster, path: Path) -> None:
    """Raises ConfigError where other machines could use a group without an API key."""
    front = cluster.front_settings()
    if front.loopback or front.allow_unauthenticated:
        return
    for name in cluster.groups:
        settings = cluster.replica_settings(name)
        if not (settings.get("api_keys") or settings.get("keys_file")):
            raise ConfigError(
                f"{path}: groups.{name}: other machines may use the front at {front.host}: set "
                "api_keys or keys_file in [settings], or allow_unauthenticated = true in [front]"
            )


def _check_ports(cluster: Cluster, path: Path) -> None:
    """Raises ConfigError where two ports of the head are one; Ray's is that of every address."""
    head, front = cluster.head, cluster.front_settings()
    ports = {
        "head.port": (_EVERYWHERE[0], head.port),
        "head.members_port": (head.members_host or head.address, head.members_port),
        "front.port": (front.host, front.port),
    }
    for (one, (host, port)), (other, (others_host, same)) in combinations(ports.items(), 2):
        if port == same and (host == others_host or {host, others_host} & {*_EVERYWHERE}):
            raise ConfigError(f"{path}: {other}: {port} is {one} already")
