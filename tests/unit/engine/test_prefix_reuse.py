"""A prefix gives the same answer however it was kept: for every memory type and type of cells.

Each case is compared with the answer of a fresh model that saw nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from server.core.request import CacheScope
from server.core.worker_settings import KvType
from server.engine.disk.prefix_disk import PrefixDisk
from tests.tiny_models import MEMORY_TYPES, write_tiny_model
from tests.unit.engine.model_rig import (
    ROUNDING,
    SHORT_WINDOWS,
    Answer,
    Model,
    assert_same,
    memory_type,
    prompt,
)
from tests.unit.engine.processor import has_kernels

pytestmark = pytest.mark.process

FEW_TOKENS = 4
KV_CELLS = 2048
WINDOWS = (16, 128, 512)
# Quantised cells turn a last bit into one of their few steps. The largest differences in this file
# are 0.0007, 0.0010, 0.0021 and 0.0083 (AVX2); missing cells make 0.06 and more.
ROUNDINGS: dict[KvType, float] = {"f32": ROUNDING, "f16": ROUNDING, "q8_0": 0.01, "q4_0": 0.04}

Kind = tuple[str, int]
KINDS: list[Kind] = [
    *((name, 0) for name in MEMORY_TYPES if name != "sliding window"),
    *(("sliding window", window) for window in WINDOWS),
    (SHORT_WINDOWS, WINDOWS[0]),
]


@pytest.fixture(scope="module", params=KINDS, ids=[f"{name} {size or ''}" for name, size in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def path(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, window = kind
    folder = tmp_path_factory.mktemp("tiny")
    return write_tiny_model(folder / "tiny.gguf", memory_type(name), window=window)


@pytest.fixture(params=ROUNDINGS)
def kv_type(request: pytest.FixtureRequest) -> KvType:
    kind: KvType = request.param
    if kind != "f32" and not has_kernels():
        pytest.skip("llama.cpp's own flash attention sums in half precision, which is off by 0.01")
    return kind


@pytest.fixture
def load(kind: Kind, path: Path, kv_type: KvType) -> Iterator[Callable[..., Model]]:
    loaded: list[Model] = []

    def load(
        kv_cells: int = KV_CELLS,
        *,
        stored_tokens: int = KV_CELLS,
        prefix_tier: PrefixDisk | None = None,
    ) -> Model:
        flash = kv_type != "f32"
        model = Model(
            path,
            kv_cells=kv_cells,
            flash_attention=flash,
            kv_type=kv_type,
            stored_tokens=stored_tokens,
            prefix_tier=prefix_tier,
            swa_full=kind[0] != SHORT_WINDOWS,
        )
        loaded.append(model)
        return model

    yield load
    for model in loaded:
        model.close()


@pytest.fixture
def same_as_new(load: Callable[..., Model], kv_type: KvType) -> Callable[[Model, list[int]], None]:
    """Asks a model, and a fresh one, and compares."""

    def ask(model: Model, tokens: list[int]) -> None:
        (answer,) = few(model, tokens)
        assert_same([answer], few(load(), tokens), ROUNDINGS[kv_type])

    return ask


def few(model: Model, tokens: list[int]) -> list[Answer]:
    return model.answers([tokens], max_tokens=FEW_TOKENS)


def idle(model: Model) -> None:
    while model.engine._cache.tidy(idle=True):
        pass


def in_cells(model: Model, tokens: list[int]) -> int:
    return model.engine._cache.match(CacheScope(), np.array(tokens, dtype=np.int32), len(tokens))


def needs_parts(model: Model) -> None:
    if not model.context.partial_removal:
        pytest.skip("states that cannot be cut are kept whole")


def needs_whole_states(model: Model) -> None:
    if model.context.partial_removal:
        pytest.skip("its prefixes can be cut anywhere")


def open_disk(folder: Path, *, whole_states: bool = False) -> PrefixDisk:
    disk = PrefixDisk(
        folder,
        model_id="tiny",
        most_bytes=1 << 28,
        daily_bytes=1 << 28,
        most_age=1e6,
        fingerprint=lambda: b"model",
        whole_states=whole_states,
    )
    disk._writer._thread.submit(lambda: None).result(30)
    return disk


def test_a_stored_prefix_used_in_part_and_stored_again(
    load: Callable[..., Model], same_as_new: Callable[[Model, list[int]], None]
) -> None:
    model = load()
    needs_parts(model)
    long = prompt(1, 700)
    few(model, long)
    few(model, prompt(2, 30))
    idle(model)
    assert in_cells(model, long) == 0, "it is in the store"
    for turn, length in enumerate((650, 333, 520, 90, 7)):
        asked = [*long[:length], *prompt(10 + turn, 9)]
        same_as_new(model, asked)
        assert model.cached() >= length, "it came from the store"
        few(model, prompt(30 + turn, 20))
        idle(model)
    same_as_new(model, [*long, *prompt(3, 5)])


@pytest.mark.parametrize("from_memory", [False, True], ids=["from cells", "from memory"])
def test_a_prefix_kept_on_disk(
    load: Callable[..., Model],
    same_as_new: Callable[[Model, list[int]], None],
    folder: Path,
    from_memory: bool,
) -> None:
    needs_parts(load())
    first = open_disk(folder)
    model = load(prefix_tier=first)
    long = prompt(1, 700)
    few(model, long[:600])
    few(model, long)
    few(model, [*long[:150], *prompt(2, 30)])
    if from_memory:
        few(model, prompt(3, 20))
        idle(model)
        assert in_cells(model, long) == 0
    model.engine.keep_prefixes(30)
    first.close(30)
    for turn, length in enumerate((650, 333)):
        disk = open_disk(folder)
        again = load(prefix_tier=disk)
        same_as_new(again, [*long[:length], *prompt(10 + turn, 9)])
        assert again.cached() >= length, "it came from disk"
        assert disk.counters.read_cells >= length
        disk.close(30)


def test_a_whole_state_kept_on_disk_continues_its_conversation(
    load: Callable[..., Model],
    same_as_new: Callable[[Model, list[int]], None],
    folder: Path,
) -> None:
    needs_whole_states(load())
    first = open_disk(folder, whole_states=True)
    model = load(prefix_tier=first)
    conversation = prompt(1, 300)
    (answer,) = few(model, conversation)
    model.engine.keep_prefixes(30)
    first.close(30)
    for turn in range(2):
        computed = len(conversation) + len(answer.tokens) - 1  # of the last one nothing follows
        conversation += [*answer.tokens, *prompt(10 + turn, 20)]
        disk = open_disk(folder, whole_states=True)
        again = load(prefix_tier=disk)
        (answer,) = few(again, conversation)
        assert again.cached() == computed == disk.counters.read_cells, "it came from disk"
        same_as_new(again, [*conversation, *answer.tokens, *prompt(3, 9)])
        again.engine.keep_prefixes(30)
        disk.close(30)


def goes_on(model: Model, border: int, kind: Kind) -> bool:
    """Whether the last answer went on from there; short windows may have the next cells still."""
    return model.cached() == border or (kind[0] == SHORT_WINDOWS and model.cached() > border)


def test_a_chat_whose_template_drops_thoughts_goes_on_where_its_answer_was_opened(
    kind: Kind,
    load: Callable[..., Model],
    same_as_new: Callable[[Model, list[int]], None],
    folder: Path,
) -> None:
    needs_whole_states(load())
    first = open_disk(folder, whole_states=True)
    model = load(prefix_tier=first)
    chat, opening, border = prompt(1, 200), prompt(2, 3), 0
    for turn in range(3):
        model.answers([[*chat, *opening]], max_tokens=FEW_TOKENS, turn_border=len(chat))
        assert goes_on(model, border, kind)
        border = len(chat)
        chat += [*opening, *prompt(10 + turn, 12)]
        same_as_new(model, chat)
        assert goes_on(model, border, kind)
    model.engine.keep_prefixes(30)
    first.close(30)
    disk = open_disk(folder, whole_states=True)
    again = load(prefix_tier=disk)
    same_as_new(again, [*chat[:border], *prompt(20, 9)])
    assert again.cached() == border == disk.counters.read_cells, "it came from disk"
    disk.close(30)


def test_a_prefix_of_another_sequence_after_cells_were_freed_before_it(
    load: Callable[..., Model], same_as_new: Callable[[Model, list[int]], None]
) -> None:
    model = load(stored_tokens=0)
    needs_parts(model)
    cache = model.engine._cache
    few(model, prompt(1, 40))
    long = prompt(2, 600)
    few(model, long)
    few(model, prompt(3, 30))
    first = cache._least_recently_used()
    assert first is not None
    cache._release(first)  # its cells come before those of the long prompt
    few(model, prompt(4, 300))
    for length in (200, 450):
        same_as_new(model, [*long[:length], *prompt(5, 9)])
        assert model.cached() >= length


def test_a_prefix_shared_while_its_sequence_runs(
    load: Callable[..., Model], kv_type: KvType
) -> None:
    model = load()
    prefix = prompt(1, 560)
    prompts = [[*prefix, *prompt(10 + i, 4 + 40 * i)] for i in range(3)]
    answers = model.answers(prompts, max_tokens=FEW_TOKENS)
    assert [model.cached(i) for i in (1, 2)] == [560, 560]
    expected = [few(load(), tokens)[0] for tokens in prompts]
    assert_same(answers, expected, ROUNDINGS[kv_type])


def test_preempted_sequences(load: Callable[..., Model], kv_type: KvType) -> None:
    prompts = [prompt(30 + i, 100) for i in range(6)]
    crowded = load(512)
    answers = crowded.answers(prompts, max_tokens=40)
    assert crowded.engine.counters.preemptions > 0
    expected = load().answers(prompts, max_tokens=40)
    assert_same(answers, expected, ROUNDINGS[kv_type])


def test_a_long_cached_prefix_keeps_all_its_cells(load: Callable[..., Model]) -> None:
    model = load(stored_tokens=0)
    needs_parts(model)
    for seed, length in ((1, 40), (2, 600), (3, 60)):
        few(model, prompt(seed, length))
    first = model.engine._cache._least_recently_used()
    assert first is not None
    model.engine._cache._release(first)
    few(model, prompt(4, 300))
    for sequence_id in model.engine._cache._cached:
        assert llama_cpp.llama_memory_seq_pos_min(model.context._memory, sequence_id) == 0
