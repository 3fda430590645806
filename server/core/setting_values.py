"""Kinds of values that settings have, and how each is read and checked."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, StringConstraints
from pydantic_settings import NoDecode

_BYTES_PER_UNIT = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?:(?P<unit>[KMGT]?)(?:i?B)?|(?P<percent>%))")
_ROOT_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_HTTP_URL = re.compile(r"https?://[^\s/?#]+(?:/[^\s?#]*)?")
_STORE_URL = re.compile(r"sqlite:///(?!:memory:).+|postgresql://.+")


def _split_commas(value: object) -> object:
    """Lists arrive from the environment as one comma separated string."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def _amount(value: object) -> object:
    """Accept a plain number of bytes beside text such as "8GiB" and "75%"."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_amount(value: str) -> str:
    parts = _AMOUNT.fullmatch(value)
    if parts is None:
        raise ValueError("give bytes (8000000000, 8GiB) or a share of the whole (75%)")
    if parts["percent"] and float(parts["number"]) > 100:
        raise ValueError("a share is at most 100%")
    return value


def _check_store_url(value: str) -> str:
    if not _STORE_URL.fullmatch(value):
        raise ValueError("give sqlite:///PATH or postgresql://USER@HOST/NAME")
    return value


def _check_host(value: str) -> str:
    if "/" in value or "@" in value or value != value.strip():
        raise ValueError("give a name or an address, with or without a port, and no URL")
    return value


def _check_network(value: str) -> str:
    if value != "*":
        ipaddress.ip_network(value)
    return value


def _check_root_path(value: str) -> str:
    if not _ROOT_PATH.fullmatch(value):
        raise ValueError("give a path like /llm, of letters, digits and ._~-")
    return value.rstrip("/")


def _check_http_url(value: str) -> str:
    if not _HTTP_URL.fullmatch(value):
        raise ValueError("give an address like http://127.0.0.1:4318")
    return value


def _expand(path: Path) -> Path:
    return path.expanduser()


ExpandedPath = Annotated[Path, AfterValidator(_expand)]
Words = Annotated[
    list[Annotated[str, StringConstraints(min_length=1)]],
    NoDecode,
    BeforeValidator(_split_commas),
]
HostNames = Annotated[
    list[Annotated[str, StringConstraints(min_length=1), AfterValidator(_check_host)]],
    NoDecode,
    BeforeValidator(_split_commas),
]
Networks = Annotated[
    list[Annotated[str, AfterValidator(_check_network)]],
    NoDecode,
    BeforeValidator(_split_commas),
]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
RootPath = Annotated[str, AfterValidator(_check_root_path)]
Paths = Annotated[list[ExpandedPath], NoDecode, BeforeValidator(_split_commas)]
Amount = Annotated[str, BeforeValidator(_amount), AfterValidator(_check_amount)]


StoreUrl = Annotated[str, AfterValidator(_check_store_url)]


def amount_bytes(amount: str, whole: int) -> int:
    """The bytes that a checked ``Amount`` stands for; shares are of ``whole``."""
    parts = _AMOUNT.fullmatch(amount)
    assert parts is not None, "checked when the settings were made"
    number = float(parts["number"])
    return int(
        number * whole / 100 if parts["percent"] else number * _BYTES_PER_UNIT[parts["unit"]]
    )
