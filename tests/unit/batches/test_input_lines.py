"""Files of batches hold anything: each is either read or refused, line by line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batches.input_lines import Checked, body_of, checked_lines
from server.core.errors import ModelNotFound

ENDPOINT = "/v1/completions"
MOST = 2_000


def find(model: str) -> None:
    if model != "m":
        raise ModelNotFound("There is no such model.")


def check(folder: Path, content: bytes) -> tuple[Checked, Path]:
    path = folder / "in.jsonl"
    path.write_bytes(content)
    checked = checked_lines(path, endpoint=ENDPOINT, most_bytes=MOST, find_model=find)
    return checked, path


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
lines = st.one_of(
    st.binary(max_size=30),
    values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {
            "custom_id": st.sampled_from(["a", "b", "c", 1, None, "x" * 600]),
            "method": st.sampled_from(["POST", "POST", "POST", "GET", None]),
            "url": st.sampled_from([ENDPOINT, ENDPOINT, ENDPOINT, "/v1/embeddings", 5]),
            "body": st.fixed_dictionaries(
                {"model": st.sampled_from(["m", "m", "m", "other", None])},
                optional={"stream": st.sampled_from([True, False, None, 1]), "x": values},
            )
            | values,
        }
    ).map(lambda value: json.dumps(value).encode()),
    st.just(b'{"x": "' + b"y" * MOST + b'"}'),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lines, max_size=6), st.sampled_from([b"\n", b"\r\n"]))
def test_every_line_is_read_or_refused_with_its_number(
    tmp_path: Path, given_lines: list[bytes], end: bytes
) -> None:
    content = end.join(given_lines)
    checked, path = check(tmp_path, content)
    numbers = {error.line for error in checked.errors}
    assert checked.lines or checked.errors
    assert len({line.custom_id for line in checked.lines}) == len(checked.lines)
    assert None not in numbers or not checked.lines
    file = os.open(path, os.O_RDONLY)
    for line in checked.lines:
        body = json.loads(body_of(file, line))
        assert body["model"] == line.model == "m"
        assert not body.get("stream")
    os.close(file)
    # Each line that is not empty is one or the other, up to one that is too long.
    physical = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    long = next((n for n, line in enumerate(physical, 1) if len(line) >= MOST), None)
    filled = [n for n, line in enumerate(physical, 1) if line.strip() and (not long or n <= long)]
    assert len(checked.lines) + len(numbers - {None}) == len(filled)


def test_a_file_that_changes_later_is_not_read_as_something_else(tmp_path: Path) -> None:
    def line(name: str) -> bytes:
        request = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": {"model": "m"}}
        return json.dumps(request).encode() + b"\n"

    checked, path = check(tmp_path, line("a"))
    path.write_bytes(line("b"))
    file = os.open(path, os.O_RDONLY)
    with pytest.raises(ValueError, match="changed"):
        body_of(file, checked.lines[0])
    os.close(file)
