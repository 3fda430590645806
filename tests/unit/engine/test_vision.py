"""Prompts with images give the same answers as by llama.cpp's own helper, however they are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from server.engine.batch import Batch
from server.engine.disk.prefix_disk import PrefixDisk
from server.engine.scheduling.pace import Pace
from server.engine.scheduling.scheduler import Scheduler
from server.engine.scheduling.step import Step
from server.engine.spans import Spans
from server.engine.vision.picture_source import picture_of
from tests.tiny_vision import KINDS, write_vision_model
from tests.unit.engine.model_rig import Answer, assert_same, prompt
from tests.unit.engine.vision_rig import Eyes, Prompt, VisionModel, image

pytestmark = pytest.mark.process

FEW = 6

Load = Callable[..., VisionModel]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def files(kind: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp(kind)
    if kind == "states":
        return write_vision_model(folder, "causal", memory_type="hybrid")
    return write_vision_model(folder, kind)


@pytest.fixture
def load(files: tuple[Path, Path], kind: str) -> Iterator[Load]:
    loaded: list[VisionModel] = []

    def load(**options: object) -> VisionModel:
        loaded.append(VisionModel(files[0], Eyes(files[1]), **options))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


BEFORE, BETWEEN, AFTER = prompt(1, 20), prompt(2, 25), prompt(3, 9)
CONVERSATIONS: dict[str, Prompt] = {
    "an image between texts": [BEFORE, image(1), AFTER],
    "an image first": [image(2), AFTER],
    "several images": [BEFORE, image(1), BETWEEN, image(2, 20, 50), AFTER],
    "an image twice in a row": [BEFORE, image(3), image(3), AFTER],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_an_answer_is_the_one_by_the_helper(load: Load, name: str) -> None:
    conversation = CONVERSATIONS[name]
    expected = load().by_helper(conversation, FEW)
    assert_same(load().see(conversation, max_tokens=FEW), [expected])


FIRST: Prompt = [BEFORE, image(1), BETWEEN]
SECOND: Prompt = [*FIRST, prompt(4, 30), image(2), AFTER]


@pytest.fixture
def second(load: Load) -> Answer:
    """The second turn's answer by a model that saw nothing else."""
    return load().by_helper(SECOND, FEW)


def test_a_second_turn_takes_the_first_from_the_cache(load: Load, second: Answer) -> None:
    model = load()
    model.see(FIRST, max_tokens=FEW)
    seen = len(model.eyes.encoded)
    assert_same(model.see(SECOND, max_tokens=FEW), [second])
    assert model.cached() == cells(model, FIRST)
    assert len(model.eyes.encoded) == 2 * seen, "only the second image was encoded"


def test_an_image_behind_another_text_is_not_encoded_again(load: Load) -> None:
    model = load()
    model.see(FIRST, max_tokens=1)
    seen = len(model.eyes.encoded)
    other: Prompt = [AFTER, image(1), BETWEEN]
    assert_same(model.see(other, max_tokens=FEW), [load().by_helper(other, FEW)])
    assert len(model.eyes.encoded) == seen


def test_an_image_in_twenty_turns_is_encoded_once_though_its_cells_are_lost(load: Load) -> None:
    model = load(kv_cells=256, stored_tokens=0)
    turns = [*FIRST]
    for number in range(20):
        model.see(turns, max_tokens=1)
        turns.append(prompt(30 + number, 5))
        if number % 5 == 4:
            model.see([prompt(60 + number, 240)], max_tokens=1)
            model.see(turns, max_tokens=1)
            assert model.cached() <= len(BEFORE)
    assert sorted(model.eyes.encoded) == [*range(pieces(model, FIRST))]


def test_requests_that_come_together_share_an_image(load: Load) -> None:
    model = load()
    prompts: list[Prompt] = [[*FIRST, prompt(seed, 12)] for seed in range(5, 9)]
    expected = [load().by_helper(each, FEW) for each in prompts]
    assert_same(model.see(*prompts, max_tokens=FEW), expected)
    assert sorted(model.eyes.encoded) == [*range(pieces(model, FIRST))], "once each"
    # Text of fewer than 16 tokens is not waited for.
    shared = cells(model, FIRST) - len(BETWEEN) - 1
    assert min(model.cached(number) for number in range(1, 4)) >= shared


def test_a_prefix_with_an_image_comes_back_from_host_memory(load: Load, second: Answer) -> None:
    model = load(stored_tokens=1024)
    model.see(FIRST, max_tokens=FEW)
    model.see([prompt(9, 40)], max_tokens=1)  # the first is not the one used last now
    while model.engine._scheduler.tidy():
        pass
    assert model.engine._cache._store.newest_first()
    assert_same(model.see(SECOND, max_tokens=FEW), [second])
    assert model.cached() == cells(model, FIRST)


def test_a_prefix_with_an_image_comes_back_from_disk(
    load: Load, second: Answer, folder: Path
) -> None:
    disk = prefix_disk(folder)
    model = load(prefix_tier=disk)
    model.see(FIRST, max_tokens=FEW)
    model.engine.keep_prefixes(10)
    disk.close(10)
    again = prefix_disk(folder)
    model = load(prefix_tier=again)
    assert_same(model.see(SECOND, max_tokens=FEW), [second])
    assert model.cached() == cells(model, FIRST)
    assert again.counters.read
    again.close(10)


def test_preempted_sequences_with_images_go_on(load: Load) -> None:
    prompts: list[Prompt] = [[prompt(seed, 30), image(seed), AFTER] for seed in range(10, 14)]
    expected = [load().by_helper(each, 40) for each in prompts]
    model = load(kv_cells=256, stored_tokens=0)
    assert_same(model.see(*prompts, max_tokens=40), expected)
    assert model.engine.counters.preemptions


# With "states", the state of a prompt (a hybrid model's) cannot go back into an image.
in_parts = pytest.mark.parametrize("kind", [*KINDS, "states"], indirect=True, scope="module")


@in_parts
def test_an_image_beside_a_stream_is_read_in_parts(load: Load, kind: str) -> None:
    large: Prompt = [BEFORE, image(20, 200, 150), AFTER]
    stream: Prompt = [prompt(21, 20)]
    expected = [load().by_helper(stream, 60), load().by_helper(large, FEW)]
    model = load()
    model.encode(large)  # else the stream may have ended by then
    longest = 0
    decode = model.context.decode

    def watched(batch: Batch) -> None:
        nonlocal longest
        longest = max(longest, batch.size if batch.image else 0)
        decode(batch)

    with (
        patch.object(model.context, "decode", watched),
        patch.object(Pace, "prefill_tokens_beside_streams", lambda *_, **__: 5),
    ):
        each = [{"max_tokens": 60}, {"max_tokens": FEW}]
        assert_same(model.see(stream, large, each=each), expected)
    whole = max(len(span) for span in Spans(model.spans(large)).images_from(0))
    parts = -(-whole // 5) if kind != "whole" else 1
    assert longest == -(-whole // parts)


@in_parts
def test_a_sequence_preempted_inside_an_image_reads_it_again(load: Load, kind: str) -> None:
    if kind == "whole":
        return  # no step computes only a part of these
    large: Prompt = [BEFORE, image(22, 200, 150), AFTER]
    expected = load().by_helper(large, FEW)
    model = load()
    with patch.object(Scheduler, "_image_cells", lambda _, state, __: min(3, state.run)):
        model.begin([model.spans(large)], max_tokens=FEW)
        inside = False
        while not inside:
            if not model.engine.step():
                model.engine._receive(seconds=1)
            inside = any(s.whole < s.computed for s in model.engine._scheduler.running)
        model.engine._scheduler._preempt_last(Step())
        model.engine._cache.check_integrity()
        assert_same(model.finish(1), [expected])


def test_an_encoding_that_is_not_wanted_any_more_ends_before_it_is_done(load: Load) -> None:
    projector = load().eyes.projector
    picture = picture_of(image(23))
    whole = dict(projector.encode(picture, lambda _: True))
    answers = iter([True])
    assert not [*projector.encode(picture, lambda _: next(answers, False))]
    again = dict(projector.encode(picture, lambda _: True))
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[index], again[index]) for index in whole)


def prefix_disk(folder: Path) -> PrefixDisk:
    disk = PrefixDisk(
        folder,
        model_id="tiny",
        most_bytes=1 << 28,
        daily_bytes=1 << 28,
        most_age=1e6,
        fingerprint=lambda: b"model",
    )
    disk._writer._thread.submit(lambda: None).result(30)
    return disk


def cells(model: VisionModel, conversation: Prompt) -> int:
    return sum(map(len, model.spans(conversation)))


def pieces(model: VisionModel, conversation: Prompt) -> int:
    return len(Spans(model.spans(conversation)).images_from(0))
