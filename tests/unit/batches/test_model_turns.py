"""Batches of one model run beside each other, those of another after them."""

from __future__ import annotations

import asyncio

from server.batches.model_turns import ModelTurns


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_models_batches_run_together_and_others_wait_in_order() -> None:
    turns, running, ends = ModelTurns(), [], {}

    async def batch(name: str, model: str) -> None:
        ends[name] = asyncio.Event()
        async with turns.turn(model):
            running.append(name)
            await ends[name].wait()
            running.remove(name)

    async def begin(name: str, model: str) -> asyncio.Task[None]:
        task = asyncio.create_task(batch(name, model))
        await settle()
        return task

    tasks = [await begin("a1", "a"), await begin("a2", "a"), await begin("b1", "b")]
    # It came later than the one of the other model, which would wait for ever.
    tasks += [await begin("a3", "a"), await begin("b2", "b")]
    gone = await begin("b3", "b")
    assert running == ["a1", "a2"]
    gone.cancel()
    ends["a1"].set()
    await settle()
    assert running == ["a2"]
    ends["a2"].set()
    await settle()
    assert running == ["b1", "b2"]
    for name in ("b1", "b2"):
        ends[name].set()
    await settle()
    assert running == ["a3"]
    ends["a3"].set()
    await asyncio.gather(*tasks)
