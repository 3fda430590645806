"""Answers that were written by one process come back in the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.core.prefix_folder import ANSWERS_SUFFIX, sweep
from server.core.request import CacheScope
from server.prompt.answer_log import AnswerLog, KeptAnswer
from server.prompt.written_answers import WrittenAnswers
from tests.unit.prompt.test_written_answers import (
    ASKED,
    HISTORY,
    SCOPE,
    SHOUTED,
    SHOUTING,
    VOCABULARY,
    WRITTEN,
    in_lower_case,
    put_back,
    remember,
)

ROOM = 1 << 20
FINGERPRINT = b"the model"


@contextmanager
def process(
    folder: Path, fingerprint: Callable[[], bytes] = lambda: FINGERPRINT
) -> Iterator[WrittenAnswers]:
    """The answers as one worker process knows them, until it ends."""
    log = AnswerLog(folder, folder_bytes=ROOM, fingerprint=fingerprint)
    yield WrittenAnswers(VOCABULARY, most_tokens=1000, log=log)
    log.close(10)


def log_of(folder: Path) -> Path:
    (path,) = folder.rglob(f"*{ANSWERS_SUFFIX}")
    return path


def written(folder: Path, *answers: list[int]) -> Path:
    """The log of a process that wrote ``answers`` to one question."""
    with process(folder) as before:
        for answer in answers:
            remember(before, ASKED, answer)
    return log_of(folder)


def comes_back(folder: Path, scope: CacheScope = SCOPE) -> bool:
    with process(folder) as after:
        return after.put_back(scope, in_lower_case, HISTORY) != HISTORY


def test_an_answer_comes_back_in_the_next_process(tmp_path: Path) -> None:
    written(tmp_path, WRITTEN)
    with process(tmp_path) as after:
        assert put_back(after, HISTORY)[: len(ASKED + WRITTEN)] == ASKED + WRITTEN


def test_so_does_one_that_only_says_the_same_message(tmp_path: Path) -> None:
    with process(tmp_path) as before:
        remember(before, ASKED, SHOUTED, reading=in_lower_case)
    with process(tmp_path) as after:
        assert put_back(after, HISTORY, in_lower_case) == SHOUTING


def test_it_lies_on_disk_before_its_process_ends_which_may_be_killed(tmp_path: Path) -> None:
    with process(tmp_path) as before:
        remember(before, ASKED, WRITTEN)
        end = time.monotonic() + 10
        while not comes_back(tmp_path) and time.monotonic() < end:
            time.sleep(0.01)
        assert comes_back(tmp_path)


def test_what_was_written_since_the_start_counts_more_than_what_the_log_has(
    tmp_path: Path,
) -> None:
    written(tmp_path, WRITTEN)
    with process(tmp_path) as after:
        remember(after, ASKED, VOCABULARY.letters("hello"))
        prompt = put_back(after, HISTORY)
    assert prompt[len(ASKED) : len(ASKED) + 5] == VOCABULARY.letters("hello")


def test_another_api_key_gets_nothing_and_the_file_does_not_say_whose_it_is(
    tmp_path: Path,
) -> None:
    log = written(tmp_path, WRITTEN)
    assert not comes_back(tmp_path, CacheScope(api_key="another"))
    with process(tmp_path / "elsewhere") as other:
        remember(other, ASKED, WRITTEN)
    assert log_of(tmp_path / "elsewhere").name != log.name


def test_another_model_gets_nothing(tmp_path: Path) -> None:
    written(tmp_path, WRITTEN)
    with process(tmp_path, lambda: b"another") as after:
        assert put_back(after, HISTORY) == HISTORY


def test_nothing_is_written_once_the_model_s_file_has_changed(tmp_path: Path) -> None:
    fingerprints = iter([FINGERPRINT])

    def fingerprint() -> bytes:
        for known in fingerprints:
            return known
        raise OSError("the model's files have changed")

    with process(tmp_path, fingerprint) as before:
        remember(before, ASKED, WRITTEN)
        before.put_back(SCOPE, in_lower_case, HISTORY)
    assert not comes_back(tmp_path)


def test_a_damaged_record_is_passed_over_and_the_next_comes_back(tmp_path: Path) -> None:
    first = written(tmp_path / "first", VOCABULARY.letters("something")).stat().st_size
    log = written(tmp_path / "both", VOCABULARY.letters("something"), WRITTEN)
    whole = log.read_bytes()
    for place in range(first):
        log.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        assert comes_back(tmp_path / "both"), place


def test_of_a_log_that_was_cut_what_is_whole_comes_back(tmp_path: Path) -> None:
    log = written(tmp_path, WRITTEN, VOCABULARY.letters("something"))
    whole = log.read_bytes()
    log.write_bytes(whole[:-1])
    assert comes_back(tmp_path)


def test_no_byte_of_a_record_can_change_without_its_loss(tmp_path: Path) -> None:
    log = written(tmp_path, WRITTEN)
    whole = log.read_bytes()
    for place in range(len(whole)):
        log.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        assert not comes_back(tmp_path), place


def test_tokens_that_the_vocabulary_does_not_have_are_passed_over(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, folder_bytes=ROOM, fingerprint=lambda: FINGERPRINT)
    wrong = KeptAnswer(
        tokens=b"\xff\xff\xff\x7f" * 9, opening=1, prompt=b"", reply_prefix="", message=None
    )
    no_tokens = KeptAnswer(tokens=b"", opening=1, prompt=b"", reply_prefix="", message=None)
    log.submit(lambda: log.append(SCOPE, wrong))
    log.submit(lambda: log.append(SCOPE, no_tokens))
    log.close(10)
    assert not comes_back(tmp_path)


def test_a_log_stays_within_its_bound_and_keeps_the_newest(tmp_path: Path) -> None:
    long = VOCABULARY.letters("something else " * 100)
    log = written(tmp_path, *[[*long, *VOCABULARY.letters(str(i))] for i in range(40)], WRITTEN)
    assert log.stat().st_size <= 64 << 10
    assert comes_back(tmp_path)


def test_the_same_answer_is_written_once(tmp_path: Path) -> None:
    once = written(tmp_path / "once", WRITTEN).stat().st_size
    assert written(tmp_path / "twice", WRITTEN, WRITTEN).stat().st_size == once


def test_a_sweep_removes_answers_with_the_prefixes(tmp_path: Path) -> None:
    log = written(tmp_path, WRITTEN)
    sweep(tmp_path, most_bytes=ROOM, most_age=3600)
    assert log.exists()
    sweep(tmp_path, most_bytes=0, most_age=3600)
    assert not log.exists()


def test_a_folder_that_cannot_be_made_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with process(in_the_way) as answers:
        remember(answers, ASKED, WRITTEN)
        assert put_back(answers, HISTORY) != HISTORY
    assert "Answers are not kept on disk" in caplog.text
