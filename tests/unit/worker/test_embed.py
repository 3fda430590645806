"""Embeddings from a real worker process, on small random models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from server.core.embeddings import Embeddings
from server.core.errors import ContextLengthExceeded, InvalidRequest
from server.core.events import Failed, Finished
from server.core.request import TextPrompt
from server.core.worker_settings import WorkerSettings
from server.worker.protocol import Load
from server.worker.supervise.client import ModelClient
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.supervisor import Supervisor
from tests.tiny_models import (
    CONTEXT,
    EMBEDDING,
    VOCABULARY,
    write_tiny_encoder,
    write_tiny_model,
)
from tests.unit.worker.conftest import collect, generate

pytestmark = pytest.mark.process

CLS, SEP = 2, 3
ClientFor = Callable[..., ModelClient]


@pytest_asyncio.fixture
async def client_for(tmp_path: Path) -> AsyncIterator[ClientFor]:
    """Makes clients of models served in safe mode, in which every CPU can run them."""
    made: list[Supervisor] = []

    def make(path: Path, **settings: object) -> ModelClient:
        options = {"safe_mode": True, "threads": 1} | settings
        load = Load(
            model_id="tiny",
            path=str(path),
            settings=WorkerSettings(**options),  # type: ignore[arg-type]
        )
        made.append(Supervisor(load, record=SafeModeRecord(tmp_path / "cache")))
        return ModelClient(made[-1])

    yield make
    for supervisor in made:
        await supervisor.stop()


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_tiny_encoder(tmp_path / "encoder.gguf", gguf.PoolingType.MEAN)


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "decoder.gguf", "full attention")


def vectors(embedded: Embeddings) -> NDArray[np.float32]:
    return np.frombuffer(embedded.vectors, "<f4").reshape(-1, EMBEDDING)


async def test_an_encoder_embeds_and_does_not_generate(
    client_for: ClientFor, encoder: Path
) -> None:
    client = client_for(encoder)
    embedded = await client.embed(["a bc", [CLS, 4, 5, SEP]])
    assert vectors(embedded).shape == (2, EMBEDDING)
    assert not client.info.generates
    assert client.info.embedding is not None
    assert client.info.embedding.context == CONTEXT
    assert client.info.kv_cells == 0
    (event,) = await collect(client)
    assert isinstance(event, Failed)
    assert (event.error.code, event.error.at) == ("invalid_request", ("model",))
    assert "'tiny' computes embeddings; it does not generate" in event.error.message
    assert (await client.render(TextPrompt(text="a"))).tokens


async def test_a_text_is_put_between_the_tokens_that_the_vocabulary_wants(
    client_for: ClientFor, encoder: Path
) -> None:
    client = client_for(encoder)
    # [SEP] in a text is four unknown and known pieces, never the control token.
    written = await client.embed(["a [SEP] b"])
    spelt = await client.embed(["a [S] b"])
    text, tokens = vectors(await client.embed(["a", [CLS, 4, SEP]]))
    np.testing.assert_array_equal(text, tokens)
    assert written.prompt_tokens == spelt.prompt_tokens + 2


async def test_a_decoder_embeds_beside_its_answers(client_for: ClientFor, decoder: Path) -> None:
    client = client_for(decoder)
    alone = vectors(await client.embed(["one", "two" * 100]))
    stream = generate(client, max_tokens=900, ignore_eos=True)
    events = [await anext(stream), await anext(stream)]
    beside = vectors(await client.embed(["one", "two" * 100]))
    with pytest.raises(InvalidRequest):
        await client.embed([[VOCABULARY]])
    np.testing.assert_allclose(alone, beside, atol=1e-6)
    events += [event async for event in stream]
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.completion_tokens == 900


async def test_many_inputs_are_answered_in_order(client_for: ClientFor, decoder: Path) -> None:
    # Flash attention adds up in half precision, so that the shape of a batch shows.
    client = client_for(decoder, flash_attention="off")
    inputs: list[str | list[int]] = ["x" * (1 + 37 * n % 300) for n in range(50)]
    together = await client.embed(inputs)
    alone = [await client.embed([given]) for given in inputs]
    np.testing.assert_allclose(
        vectors(together), np.concatenate([vectors(one) for one in alone]), atol=1e-5
    )
    assert together.prompt_tokens == sum(one.prompt_tokens for one in alone)


async def test_fewer_dimensions_are_the_first_ones_at_length_one(
    client_for: ClientFor, encoder: Path
) -> None:
    client = client_for(encoder)
    (whole,) = vectors(await client.embed(["abc"]))
    cut = np.frombuffer((await client.embed(["abc"], dimensions=5)).vectors, "<f4")
    np.testing.assert_allclose(cut, whole[:5] / np.linalg.norm(whole[:5]), atol=1e-6)
    with pytest.raises(InvalidRequest, match=f"{EMBEDDING} dimensions") as refusal:
        await client.embed(["abc"], dimensions=EMBEDDING + 1)
    assert refusal.value.at == ("dimensions",)


@pytest.fixture(params=["encoder", "decoder"])
def either(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


async def test_what_the_model_cannot_take_is_refused_with_the_numbers(
    client_for: ClientFor, either: Path
) -> None:
    client = client_for(either)
    longest = await client.embed([[5] * CONTEXT])
    assert longest.prompt_tokens == CONTEXT
    with pytest.raises(ContextLengthExceeded, match=rf"{CONTEXT} tokens.*{CONTEXT + 1} tokens"):
        await client.embed(["a", [5] * (CONTEXT + 1)])
    for token in (-1, VOCABULARY, 2**31, 2**40):
        with pytest.raises(InvalidRequest, match=f"Token {token} of input 1"):
            await client.embed([[5], [5, token]])
    assert (await client.embed(["a"])).prompt_tokens


async def test_an_encoder_takes_no_more_than_it_has_positions_for(
    client_for: ClientFor, encoder: Path
) -> None:
    client = client_for(encoder, ctx_size=2 * CONTEXT)
    with pytest.raises(ContextLengthExceeded, match=f"is {CONTEXT} tokens"):
        await client.embed([[5] * (CONTEXT + 1)])
