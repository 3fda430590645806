"""Every input gets what it needs: what is not done is named, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.e2e.server import running_server
from tests.inputs.inputs import ANY, MESSAGES, Input
from tests.inputs.models import write_models
from tests.inputs.table import INPUTS

pytestmark = pytest.mark.process


@contextmanager
def asking(folder: Path, checkout: str = "") -> Iterator[httpx.Client]:
    """A client of a server that has the models of the inputs, which are written into ``folder``."""
    models, families = folder / "models", folder / "families"
    models.mkdir()
    families.mkdir()
    write_models(models, families)
    folders = {"DRAGOMAN_MODELS_DIR": str(models), "DRAGOMAN_TEMPLATE_DIRS": str(families)}
    with (
        running_server(checkout=checkout, **folders) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with asking(tmp_path_factory.mktemp("inputs")) as client:
        yield client


def named(response: httpx.Response, header: str) -> list[str]:
    value = response.headers.get(header, "")
    return sorted(re.split(r", (?![^(]*\))", value)) if value else []


def content(body: dict[str, Any]) -> str:
    """The visible text of an answer."""
    if "choices" in body:
        choice = body["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"] or "")
    parts = body.get("content") or [
        part for item in body["output"] if item["type"] == "message" for part in item["content"]
    ]
    return "".join(part.get("text", "") for part in parts)


def arguments(body: dict[str, Any]) -> Any:
    """The arguments of the one call in an answer."""
    if "choices" in body:
        (call,) = body["choices"][0]["message"]["tool_calls"]
        return json.loads(call["function"]["arguments"])
    if "output" in body:
        (call,) = (item for item in body["output"] if item["type"] == "function_call")
        return json.loads(call["arguments"])
    (call,) = (block for block in body["content"] if block["type"] == "tool_use")
    return call["input"]


def schema_of(row: Input) -> Any:
    tool = row.fields["tools"][0]
    return (
        tool["input_schema"]
        if row.path == MESSAGES
        else (tool.get("function") or tool)["parameters"]
    )


@pytest.mark.parametrize("row", INPUTS, ids=lambda row: f"{row.kind}: {row.path} {row.model}")
def test_an_input_gets_what_it_needs(http: httpx.Client, row: Input) -> None:
    check(http, row)


def check(http: httpx.Client, row: Input) -> None:
    """Raises AssertionError, or what reading an answer of another form raises."""
    response = http.post(row.path, json=row.body)
    assert response.status_code == row.status, response.text
    if row.status >= 400:
        error = response.json()["error"]
        place = error["param"] if "param" in error else error["message"]
        assert place.startswith(row.param) if row.path == MESSAGES else place == row.param, error
    else:
        assert named(response, "x-dragoman-ignored") == sorted(row.ignored)
        assert named(response, "x-dragoman-loosened") == sorted(row.loosened)
        check_answer(response, row)
    at = 0
    for text in row.says:
        at = response.text.find(text, at)
        assert at >= 0, (text, response.text)
    assert not [text for text in row.lacks if text in response.text], response.text


def check_answer(response: httpx.Response, row: Input) -> None:
    if row.schema is not None:
        value = json.loads(content(response.json()))
        assert jsonschema_rs.is_valid(dict(row.schema), value), value
    choice = row.fields.get("tool_choice")
    must_call = choice == "required" or (isinstance(choice, dict) and choice.get("type") == "any")
    if row.arguments is None or "tools" not in row.fields or not must_call:
        return
    found = arguments(response.json())
    if row.arguments is not ANY:
        assert found == row.arguments
    else:
        assert isinstance(found, dict)
        assert row.loosened or jsonschema_rs.is_valid(schema_of(row), found), found
