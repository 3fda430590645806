"""The workloads of the load generator.

All are greedy, and all but ``json`` ignore the end of text, so that every server generates the same
number of tokens. Each prompt begins with its own number, so that no two share a
prefix by accident.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from server.benchmark.agent import MessagesSession, ResponsesSession, agent
from server.benchmark.target import Run, Target
from server.benchmark.texts import some_text

_SENTENCES = [
    "The old ferry crosses the river twice every morning.",
    "My sister planted three apple trees behind the house.",
    "The library closes early on the last Friday of the month.",
    "We walked along the beach until the sun went down.",
    "A small dog was sleeping in front of the bakery.",
    "The teacher wrote the answer on the board in blue chalk.",
    "Fresh bread smells best when it comes out of the oven.",
    "He repaired the broken clock with a piece of wire.",
    "The train to the coast leaves from the second platform.",
    "Nobody remembers who painted the picture in the hall.",
    "She keeps her letters in a wooden box under the bed.",
    "The children built a bridge of stones across the stream.",
    "It rained so hard that the street turned into a lake.",
    "The new doctor speaks four languages and plays the piano.",
    "They sell fish and vegetables on the square on Saturdays.",
    "The cat jumped from the roof onto the garden wall.",
    "Every winter the lake freezes and people skate on it.",
    "His grandfather worked in the coal mine for thirty years.",
    "The museum shows maps that sailors drew by hand.",
    "A tall man with a red umbrella waited at the corner.",
    "The farmer counts his sheep before he closes the gate.",
    "In summer the kitchen window stays open all night.",
    "The last bus was full, so we took a taxi home.",
    "Two birds have built their nest above the front door.",
    "The soup needs more salt and a little lemon juice.",
    "Her first book was about a lighthouse in the north.",
]

CUSTOMER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "full_name": {"type": "string", "maxLength": 32},
        "year_of_birth": {"type": "integer", "minimum": 1900, "maximum": 2020},
        "phone_number": {"type": "string", "pattern": "^[0-9]{3}-[0-9]{4}$"},
        "delivery_address": {
            "type": "object",
            "properties": {
                "street_and_number": {"type": "string", "maxLength": 32},
                "postal_code": {"type": "string", "pattern": "^[0-9]{5}$"},
                "city": {"type": "string", "maxLength": 20},
                "country": {"enum": ["Austria", "Brazil", "Canada", "Denmark"]},
            },
            "required": ["street_and_number", "postal_code", "city", "country"],
            "additionalProperties": False,
        },
        "subscriptions": {
            "type": "array",
            "items": {"enum": ["daily_summary", "weekly_newsletter", "product_updates"]},
            "minItems": 2,
            "maxItems": 3,
        },
    },
    "required": [
        "full_name",
        "year_of_birth",
        "phone_number",
        "delivery_address",
        "subscriptions",
    ],
    "additionalProperties": False,
}

_STALL_HEAD_START_SECONDS = 1.5


Workload = Callable[[Target, int], Awaitable[Run]]


def _some_sentences(count: int, seed: int) -> str:
    """Plausible sentences, as small models repeat nonsense badly."""
    return " ".join(random.Random(seed).sample(_SENTENCES, count))  # noqa: S311 nothing is secret


async def run_workload(name: str, target: Target, seed: int) -> Run:
    """Run the workload ``name``; ``seed`` varies its prompts, not their shape."""
    return await WORKLOADS[name](target, seed)


async def _together(
    target: Target, seed: int, *, name: str, streams: int, words: int, tokens: int, shared: int = 0
) -> Run:
    """``streams`` requests at once, each with its own prompt after ``shared`` words of system."""
    system = [_system(some_text(shared, seed))] if shared else []
    prompts = [
        f"Number {seed}-{index}: {some_text(words, seed + index + 1)}. Tell a long story with it."
        for index in range(streams)
    ]
    started = time.perf_counter()
    answers = await asyncio.gather(
        *(target.ask([*system, _user(prompt)], tokens, ignore_eos=True) for prompt in prompts)
    )
    return Run(workload=name, answers=answers, seconds=time.perf_counter() - started)


async def _stall(target: Target, seed: int) -> Run:
    """Three streams run while a prompt of 2,800 words arrives."""
    prompts = [f"{seed}-{index} {some_text(20, seed + index)}" for index in range(3)]
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        streams = [
            group.create_task(target.ask([_user(prompt)], 160, ignore_eos=True))
            for prompt in prompts
        ]
        await asyncio.sleep(_STALL_HEAD_START_SECONDS)
        newcomer = await target.ask([_user(some_text(2800, seed))], 8, ignore_eos=True)
    return Run(
        workload="stall",
        answers=[stream.result() for stream in streams],
        seconds=time.perf_counter() - started,
        newcomer=newcomer,
    )


async def _json(target: Target, seed: int) -> Run:
    """Four streams at once under a JSON schema."""
    schema = {"name": "customer", "strict": True, "schema": CUSTOMER}
    parameters = {"response_format": {"type": "json_schema", "json_schema": schema}}
    prompts = [f"Invent customer {seed}-{index}. Answer in JSON." for index in range(4)]
    started = time.perf_counter()
    answers = await asyncio.gather(
        *(target.ask([_user(prompt)], 300, **parameters) for prompt in prompts)
    )
    return Run(workload="json", answers=answers, seconds=time.perf_counter() - started)


async def _returning(target: Target, seed: int) -> Run:
    """Twelve chats of 300 words, one after the other; then each comes back with a next turn."""
    chats = [[_user(f"Chat {seed}-{index} {some_text(300, seed + index)}")] for index in range(12)]
    for chat in chats:
        answer = await target.ask(chat, 8, ignore_eos=True)
        chat += [{"role": "assistant", "content": answer.text}, _user("What came next?")]
    started = time.perf_counter()
    answers = [await target.ask(chat, 8, ignore_eos=True) for chat in chats]
    return Run(workload="returning", answers=answers, seconds=time.perf_counter() - started)


async def _copy(target: Target, seed: int) -> Run:
    """One stream that repeats sentences of its prompt, which are also its prediction."""
    source = _some_sentences(13, seed)
    started = time.perf_counter()
    answer = await target.ask(
        [_user(f"Repeat the following text exactly:\n\n{source}")],
        128,
        ignore_eos=True,
        prediction={"type": "content", "content": source},
    )
    return Run(workload="copy", answers=[answer], seconds=time.perf_counter() - started)


async def _overflow(target: Target, seed: int) -> Run:
    """Four requests that each need a little over half of the KV cells.

    The prompts are a quarter of each, so they fit together; the cells run out during decode.
    """
    words = target.kv_tokens // 8
    tokens = 3 * words
    prompts = [f"Number {seed}-{index}: {some_text(words, seed + index)}" for index in range(4)]
    started = time.perf_counter()
    answers = await asyncio.gather(
        *(target.ask([_user(prompt)], tokens, ignore_eos=True) for prompt in prompts)
    )
    return Run(workload="overflow", answers=answers, seconds=time.perf_counter() - started)


def _system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


WORKLOADS: dict[str, Workload] = {
    "single": partial(_together, name="single", streams=1, words=40, tokens=128),
    "c8": partial(_together, name="c8", streams=8, words=60, tokens=64),
    "c16": partial(_together, name="c16", streams=16, words=60, tokens=64),
    "prompt": partial(_together, name="prompt", streams=1, words=2800, tokens=8),
    "deep": partial(_together, name="deep", streams=1, words=4000, tokens=64),
    "prefix16": partial(_together, name="prefix16", streams=16, words=10, tokens=16, shared=1100),
    "stall": _stall,
    "json": _json,
    "returning": _returning,
    "copy": _copy,
    "overflow": _overflow,
    "agent-messages": partial(agent, name="agent-messages", session=MessagesSession),
    "agent-responses": partial(agent, name="agent-responses", session=ResponsesSession),
}
