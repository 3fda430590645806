"""An agent of openai-agents that must call a tool and then tells of it; prints what happened.

Arguments: the server's URL, the model's id, the API (``chat`` or ``responses``), and whether to
stream (``True`` or ``False``).
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, ConfigDict, Field

QUESTION = "Canberra has 467194 inhabitants."

asked: list[str] = []


class City(BaseModel):
    """What is said about a city."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=30)
    inhabitants: int = Field(ge=0, le=100_000_000)


def inhabitants(city: Literal["Canberra", "Sydney"]) -> int:
    """How many people live in a city."""
    asked.append(city)
    return 467194


async def answer(agent: Agent[Any], *, streamed: bool) -> Any:
    """What the agent finally says."""
    if not streamed:
        return (await Runner.run(agent, QUESTION, max_turns=2)).final_output
    run = Runner.run_streamed(agent, QUESTION, max_turns=2)
    async for _ in run.stream_events():
        pass
    return run.final_output


async def main(url: str, model: str, api: str, streamed: str) -> None:
    """Run one agent with a tool, and one whose answer has a schema."""
    set_tracing_disabled(disabled=True)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        models = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}
        chat = models[api](model=model, openai_client=client)
        settings = ModelSettings(temperature=0, max_tokens=100, include_usage=True)
        # After its call, the agent goes back to a free choice.
        forced = settings.resolve(ModelSettings(tool_choice="required", parallel_tool_calls=False))
        caller = Agent(
            name="caller", model=chat, tools=[function_tool(inhabitants)], model_settings=forced
        )
        extractor = Agent(name="extractor", model=chat, output_type=City, model_settings=settings)
        stream = streamed == "True"
        told = await answer(caller, streamed=stream)
        city = await answer(extractor, streamed=stream)
    print(json.dumps({"asked": asked, "told": told, "city": city.model_dump()}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
