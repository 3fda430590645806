"""Models of real shapes: their files, their lines in the table, and the limit of memory."""

from __future__ import annotations

from pathlib import Path

import gguf
import llama_cpp
import pytest

from tests.benchmark import shape_session
from tests.benchmark.bandwidth import read_bandwidth
from tests.benchmark.comparison import Row
from tests.benchmark.session import OURS, PEER, PEER_TUNED, Session
from tests.benchmark.shapes import NAMES, Shape, bytes_per_token, path_of, write_model
from tests.unit.benchmark.test_comparison import sample

DENSE = Shape(2, 256, 512, 4, 2, 64)
MIXTURE = Shape(2, 256, 256, 4, 2, 64, experts=8, experts_used=2)


@pytest.fixture(scope="module", params=[DENSE, MIXTURE], ids=["dense", "mixture"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "random.gguf"
    write_model(file, request.param, llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M)
    return file


@pytest.mark.process
def test_a_file_has_its_shape_and_format_and_nothing_is_left_beside_it(model: Path) -> None:
    reader = gguf.GGUFReader(model)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert reader.fields["llama.embedding_length"].contents() == 256
    assert kinds["blk.1.attn_q.weight"] == "Q4_K"
    assert kinds["token_embd.weight"] == "Q6_K"
    assert "tokenizer.chat_template" in reader.fields
    assert list(model.parent.iterdir()) == [model]


@pytest.mark.process
def test_a_token_reads_the_experts_it_uses(model: Path) -> None:
    tensors = gguf.GGUFReader(model).tensors
    experts = sum(tensor.n_bytes for tensor in tensors if "_exps" in tensor.name)
    everything = sum(tensor.n_bytes for tensor in tensors)
    assert bytes_per_token(model) == everything - experts * 6 // 8


def test_memory_is_read_at_some_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmark.bandwidth._BYTES", 1 << 20)
    assert read_bandwidth(2) > 0


def test_every_model_is_a_workload_and_the_largest_only_by_name() -> None:
    assert set(shape_session.WORKLOADS.values()) == set(NAMES)
    assert set(shape_session.WORKLOADS) - set(shape_session.USUAL) == {"shapes-3b-q4_k_m"}


def test_nothing_is_looked_up_in_what_random_weights_say() -> None:
    path = Path("model")
    [experiment] = shape_session.experiments({"1b-q4_k_m": path}, path, 1, quick=False)
    servers = {server.name: (server, asked) for server, asked in experiment.servers}
    assert "--no-prompt-lookup" in servers[OURS][0].arguments
    assert servers[PEER][1] == servers[OURS][1]
    assert set(servers[PEER_TUNED][1]) == {"c8", "c16"}
    assert experiment.starts == 3


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Row]:
    """The rows of a mixture that reads 100 MB a token."""
    monkeypatch.setattr(shape_session, "bytes_per_token", lambda _: 100_000_000)
    name = "moe-q4_k_m"
    session = Session()
    session.samples += [
        sample(OURS, "single", name, tokens_per_second=25.0, itl_p50=0.02),
        sample(PEER, "single", name, tokens_per_second=20.0, itl_p50=0.04),
        sample(OURS, "c8", name, tokens_per_second=19.0),
        sample(PEER, "c8", name, tokens_per_second=10.0),
        sample(OURS, "single", "main", tokens_per_second=1.0, itl_p50=1.0),
    ]
    file = path_of(name, Path("cache"))
    found = shape_session.rows(session, {name: file}, {1: 8e9, 2: 10e9})
    return {row.label: row for row in found}


def test_models_have_targets_of_their_own(lines: dict[str, Row]) -> None:
    assert lines["moe Q4_K_M single: tokens/s"].met is True
    assert lines["moe Q4_K_M c8: tokens/s"].target == "≥ 2.00"
    assert lines["moe Q4_K_M c8: tokens/s"].met is False


def test_decoding_is_a_share_of_what_memory_allows(lines: dict[str, Row]) -> None:
    row = lines["moe Q4_K_M single: decoding, % of the limit of memory"]
    assert row.values == {OURS: 50, PEER: 25}
    assert row.ratio == "limit, tokens/s by threads: 80 with 1, 100 with 2"
