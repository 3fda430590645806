"""Results that were written before a crash are found again, each once."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from server.batches.batch_record import Tokens
from server.batches.result_files import Failure, Response, Result, ResultFiles, result, tokens_of
from server.store.file_folder import FileFolder


@pytest.fixture
def folder(tmp_path: Path) -> FileFolder:
    return FileFolder(tmp_path, lambda: "store")


def opened(folder: FileFolder) -> ResultFiles:
    return ResultFiles(folder, output_id="out", error_id="err")


def answer(name: str, status: int = 200) -> Result:
    body = msgspec.Raw(b'{"usage": {"prompt_tokens": 2, "completion_tokens": 3}}')
    return result(name, response=Response(status_code=status, request_id="r", body=body))


def names(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]


def test_whatever_a_crash_cuts_each_line_has_one_result(folder: FileFolder) -> None:
    files = opened(folder)
    files.append([answer("a"), answer("b"), answer("bad", 400)])
    files.close()
    path = folder.part("out")
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        again = opened(folder)
        written = (cut >= first) + (cut >= len(whole))
        assert again.completed == written
        assert again.failed == 1
        assert again.tokens == Tokens(prompt=2, completion=3) + Tokens(
            prompt=2 * written, completion=3 * written
        )
        again.append([answer("a"), answer("b")])
        again.close()
        assert sorted(names(path)) == ["a", "b"]


def test_of_several_results_of_a_line_the_first_counts(folder: FileFolder) -> None:
    files = opened(folder)
    cancelled = Failure(code="batch_cancelled", message="")
    files.append([answer("a"), result("a", error=cancelled), answer("b", 400)])
    files.append([result("b", error=cancelled), result("c", error=cancelled)])
    files.close()
    assert names(folder.part("out")) == ["a"]
    assert names(folder.part("err")) == ["b", "c"]
    assert (files.completed, files.failed) == (1, 2)


def test_a_crash_between_the_name_and_the_store_loses_nothing(folder: FileFolder) -> None:
    files = opened(folder)
    files.append([answer("a")])
    assert files.complete() == (folder.path("out").stat().st_size, 0)
    assert not folder.path("err").exists()
    again = opened(folder)
    assert again.done == {"a"}
    assert again.complete()[0] == folder.path("out").stat().st_size
    assert not folder.part("out").exists()


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Tokens(prompt=5, cached=2, completion=7, reasoning=3),
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "input_tokens_details": {"cached_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            Tokens(prompt=5, cached=2, completion=7, reasoning=3),
        ),
        (
            {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 7},
            Tokens(prompt=5, cached=2, completion=7),
        ),
        ({"prompt_tokens": 5, "total_tokens": 5}, Tokens(prompt=5)),
        (None, Tokens()),
        ("odd", Tokens()),
    ],
)
def test_tokens_are_counted_in_every_familys_words(usage: object, tokens: Tokens) -> None:
    assert tokens_of(msgspec.Raw(json.dumps({"usage": usage}).encode())) == tokens


def test_a_line_is_one_line_to_every_reader(folder: FileFolder) -> None:
    files = opened(folder)
    body = msgspec.Raw('{"text": "a\x85b\u2028c\u2029d"}'.encode())
    files.append([result("a", response=Response(status_code=200, request_id="r", body=body))])
    files.close()
    (line,) = folder.part("out").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["response"]["body"]["text"] == "a\x85b\u2028c\u2029d"
