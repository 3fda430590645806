"""An agent of openai-agents whose session is a conversation on the server; prints what it holds.

Arguments: the server's URL, the model's id.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, ConfigDict


class Colour(BaseModel):
    """A colour."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["red", "green"]


async def main(url: str, model: str) -> None:
    """Two turns in a session, which is then shortened and emptied; then two turns by chaining."""
    set_tracing_disabled(disabled=True)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        agent = Agent(
            name="painter",
            instructions="You are brief.",
            model=OpenAIResponsesModel(model=model, openai_client=client),
            model_settings=ModelSettings(temperature=0),
            # An answer that a limit cuts would end the run with an error.
            output_type=Colour,
        )
        session = OpenAIConversationsSession(openai_client=client)
        for question in ("Name a colour.", "And another."):
            await Runner.run(agent, question, session=session)
        roles = [item["role"] for item in await session.get_items()]
        popped = await session.pop_item()
        left = len(await session.get_items())
        await session.clear_session()
        cleared = len(await session.get_items())
        first = await Runner.run(agent, "Name a colour.", auto_previous_response_id=True)
        second = await Runner.run(
            agent, "And another.", previous_response_id=first.last_response_id
        )
        items = await client.responses.input_items.list(second.last_response_id)
    print(
        json.dumps(
            {
                "roles": roles,
                "popped": popped["role"],
                "left": left,
                "cleared": cleared,
                "chained": len(items.data),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
