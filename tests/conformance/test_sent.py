"""What libraries make of one sentence and one tool, as the documentation shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

from tests.conformance.conftest import RunClient
from tests.conformance.recorded import check
from tests.conformance.scripted import MODEL, call, scripted_server
from tests.conformance.scripted_worker import Turn

pytest.importorskip("pydantic_ai", reason="not installed: pip install '.[clients]'")
pytest.importorskip("langchain_anthropic", reason="not installed: pip install '.[clients]'")

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

QUESTION = "Canberra has 467194 inhabitants."
CITY = '{"name": "Canberra", "inhabitants": 467194}'

Ask = Callable[[str], Coroutine[Any, Any, object]]


def inhabitants(city: Literal["Canberra", "Sydney"]) -> int:
    """How many people live in a city."""
    return 467194 if city == "Canberra" else 5_000_000


async def pydantic_ai_responses(url: str) -> None:
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="unused")
    async with provider.client:
        agent = Agent(OpenAIResponsesModel(MODEL, provider=provider), tools=[inhabitants])
        await agent.run(QUESTION)


async def pydantic_ai_messages(url: str) -> None:
    provider = AnthropicProvider(base_url=url, api_key="unused")
    async with provider.client:
        agent = Agent(AnthropicModel(MODEL, provider=provider), tools=[inhabitants])
        await agent.run(QUESTION)


async def langchain_messages(url: str) -> None:
    chat = ChatAnthropic(
        base_url=url, api_key=SecretStr("unused"), model_name=MODEL, timeout=100, stop=None
    )
    await chat.bind_tools([tool(inhabitants)]).ainvoke(QUESTION)


@pytest.mark.parametrize(
    ("library", "ask"),
    [
        ("pydantic-ai, responses", pydantic_ai_responses),
        ("pydantic-ai, messages", pydantic_ai_messages),
        ("langchain-anthropic", langchain_messages),
    ],
)
async def test_of_libraries_beside_the_server(tmp_path: Path, library: str, ask: Ask) -> None:
    async with scripted_server(tmp_path, Turn(say="Yes.")) as server:
        await ask(server.url)
    check(library, server.sent)


async def test_of_openai_agents(tmp_path: Path, run_client: RunClient) -> None:
    turns = [
        Turn(say=call("inhabitants", city="Canberra"), tools=True),
        Turn(say=CITY, when="inhabitants"),
        Turn(say="467194"),
    ]
    async with scripted_server(tmp_path, *turns) as server:
        await asyncio.to_thread(run_client, "agent.py", server.url, MODEL, "responses", "False")
    check("openai-agents, responses", server.sent)


async def test_of_litellm(tmp_path: Path, run_client: RunClient) -> None:
    turns = [Turn(say=call("paint", red=1), tools=True), Turn(say="Red.", tools=False)]
    async with scripted_server(tmp_path, *[*turns] * 4) as server:
        await asyncio.to_thread(run_client, "routes.py", server.url, MODEL)
    check("litellm, to messages", server.sent)
