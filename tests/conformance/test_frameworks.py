"""Agents of pydantic-ai and langchain: a forced call, its result, and structured output."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tests.e2e.server import BASE, INSTRUCT, Server

pytest.importorskip("pydantic_ai", reason="not installed: pip install '.[clients]'")
pytest.importorskip("langchain_openai", reason="not installed: pip install '.[clients]'")

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent, NativeOutput, RunContext, ToolOutput
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

QUESTION = "Canberra has 467194 inhabitants."


class City(BaseModel):
    """A city and how many people live there."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=30)
    inhabitants: int = Field(ge=0, le=100_000_000)


@pytest.fixture(params=[INSTRUCT, BASE])
def model(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class TestPydanticAi:
    @pytest.fixture(params=["chat", "responses", "messages"])
    async def chat(
        self, server: Server, model: str, request: pytest.FixtureRequest
    ) -> AsyncIterator[Model]:
        settings = ModelSettings(temperature=0, max_tokens=100)
        if request.param == "messages":
            claude = AnthropicProvider(base_url=server.url, api_key="unused")
            async with claude.client:
                # pydantic-ai knows by name which of Anthropic's models answer under a schema.
                profile = ModelProfile(supports_json_schema_output=True)
                yield AnthropicModel(model, provider=claude, settings=settings, profile=profile)
            return
        kind = OpenAIChatModel if request.param == "chat" else OpenAIResponsesModel
        provider = OpenAIProvider(base_url=f"{server.url}/v1", api_key="unused")
        async with provider.client:
            yield kind(model, provider=provider, settings=settings)

    async def test_native_output(self, chat: Model) -> None:
        agent = Agent(chat, output_type=NativeOutput(City), retries=0)
        assert (await agent.run(QUESTION)).output.name

    async def test_tool_output(self, chat: Model) -> None:
        """The agent gets its answer from a forced call."""
        agent = Agent(chat, output_type=ToolOutput(City), retries=0)
        assert (await agent.run(QUESTION)).output.name

    async def test_a_tool_loop(self, chat: Model) -> None:
        """The first turn must call the tool; the second reports its result."""
        asked = []

        def settings(context: RunContext[None]) -> ModelSettings:
            if context.run_step == 1:
                return ModelSettings(tool_choice="required", parallel_tool_calls=False)
            return ModelSettings(tool_choice="none")

        agent = Agent(chat, model_settings=settings, retries=0)

        @agent.tool_plain
        def inhabitants(city: Literal["Canberra", "Sydney"]) -> int:
            """How many people live in a city."""
            asked.append(city)
            return 467194

        result = await agent.run(QUESTION)
        assert len(asked) == 1
        assert result.output


class TestLangchain:
    @pytest.fixture(params=["chat", "messages"])
    def chat(
        self, server: Server, model: str, request: pytest.FixtureRequest
    ) -> ChatOpenAI | ChatAnthropic:
        if request.param == "messages":
            return ChatAnthropic(
                base_url=server.url,
                api_key=SecretStr("unused"),
                model_name=model,
                temperature=0,
                max_tokens_to_sample=100,
                max_retries=0,
                timeout=100,
                stop=None,
            )
        return ChatOpenAI(
            base_url=f"{server.url}/v1",
            api_key=SecretStr("unused"),
            model=model,
            temperature=0,
            max_completion_tokens=100,
            max_retries=0,
        )

    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    def test_structured_output(self, chat: ChatOpenAI | ChatAnthropic, method: str) -> None:
        structured = chat.with_structured_output(City, method=method)  # type: ignore[arg-type]
        city = structured.invoke(QUESTION)
        assert isinstance(city, City)

    def test_a_tool_loop(self, chat: ChatOpenAI | ChatAnthropic) -> None:
        @tool
        def inhabitants(city: Literal["Canberra", "Sydney"]) -> int:
            """How many people live in a city."""
            return 467194

        messages: list[BaseMessage] = [HumanMessage(QUESTION)]
        asked = chat.bind_tools([inhabitants], tool_choice="inhabitants").invoke(messages)
        [call] = asked.tool_calls
        assert call["name"] == "inhabitants"
        assert call["args"]["city"] in {"Canberra", "Sydney"}
        told = ToolMessage(str(inhabitants.invoke(call["args"])), tool_call_id=call["id"])
        answer = chat.invoke([*messages, asked, told])
        assert answer.text

    def test_it_streams(self, chat: ChatOpenAI | ChatAnthropic) -> None:
        assert "".join(chunk.text for chunk in chat.stream("Name a colour."))
