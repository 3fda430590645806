"""Finished answers to random schemas validate."""

from __future__ import annotations

import datetime
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any

import jsonschema
import pytest
from openai import OpenAI
from openai.types.chat.chat_completion import Choice

from tests.e2e.random_schemas import Schema, random_schema
from tests.e2e.server import INSTRUCT, Server

_SCHEMAS = 36
_AT_ONCE = 6
_DRAFT = jsonschema.Draft202012Validator


def _is_date_time(text: object) -> bool:
    return not isinstance(text, str) or _has_zone(datetime.datetime.fromisoformat(_plain(text)))


def _is_time(text: object) -> bool:
    return not isinstance(text, str) or _has_zone(datetime.time.fromisoformat(_plain(text)))


def _has_zone(moment: datetime.datetime | datetime.time) -> bool:
    return moment.tzinfo is not None


def _plain(text: str) -> str:
    """Without what RFC 3339 allows and Python cannot parse: lower-case letters and leap seconds."""
    return text.upper().replace(":60", ":59")


_FORMATS = jsonschema.FormatChecker(["date", "email", "ipv4", "ipv6", "uuid"])
_FORMATS.checkers |= {
    "date-time": (_is_date_time, ValueError),
    "time": (_is_time, ValueError),
}


def _exactly(text: str) -> Any:
    """JSON with exact numbers; as a float, 0.5000000000000000000001 is 0.5."""
    return json.loads(text, parse_float=Decimal)


def _answer(client: OpenAI, seed: int, schema: Schema) -> Choice:
    answer = client.chat.completions.create(
        model=INSTRUCT,
        messages=[{"role": "user", "content": "Invent an interesting example, as JSON."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "example", "schema": schema},
        },
        temperature=1,
        seed=seed,
        max_tokens=400,
    )
    return answer.choices[0]


@pytest.mark.timeout(600)
def test_every_finished_answer_to_a_random_schema_validates(server: Server) -> None:
    schemas = [random_schema(seed) for seed in range(_SCHEMAS)]
    with server.client(timeout=500) as client, ThreadPoolExecutor(_AT_ONCE) as threads:
        choices = list(threads.map(partial(_answer, client), range(_SCHEMAS), schemas))
    finished = [each for each in choices if each.finish_reason == "stop"]
    # A small model may never finish under a schema that refers to itself or allows any properties:
    # 18 of 150 answers did not finish, and rounding changes that number.
    assert len(finished) > _SCHEMAS / 2
    for schema, choice in zip(schemas, choices, strict=True):
        assert choice.finish_reason in {"stop", "length"}
        if choice in finished:
            validator = _DRAFT(_exactly(json.dumps(schema)), format_checker=_FORMATS)
            validator.validate(_exactly(choice.message.content or ""))
