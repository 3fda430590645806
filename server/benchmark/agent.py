"""The workload ``agent``: a coding agent's session over ``/v1/messages`` or ``/v1/responses``.

Each prompt is the one before with an answer, a call, the call's result and a late system note. All
of these are the client's own, so that every server reads the same prompts: models stray from each
other after a few words, and no small one makes a call when it should. Answers ignore the end of
text, so that they are of one length.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from server.benchmark.agent_answers import MESSAGES, RESPONSES
from server.benchmark.target import Run, Target
from server.benchmark.texts import some_text
from server.benchmark.timed_client import Api


class Shape(NamedTuple):
    """The size of a session; ``system`` and ``result`` are in words, ``answer`` is in tokens."""

    turns: int
    system: int
    tools: int
    result: int
    answer: int


# A word of `some_text` is a token.
FULL = Shape(turns=20, system=6000, tools=25, result=300, answer=60)
SHORT = Shape(turns=3, system=200, tools=4, result=40, answer=8)


class Session(ABC):
    """A conversation that grows, in the form of one API."""

    api: Api

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        # No session may find another API's prefix.
        self.system = f"Session {seed}, {self.api.path}. {some_text(shape.system, seed)}"
        self.question = "Work through the files and tell a long story about each."

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """The next request, without its model."""

    @abstractmethod
    def go_on(self, number: int, answer: str, result: str, note: str) -> None:
        """Add an answer, the call ``number`` behind it, its result, and a system note."""

    def schemas(self) -> list[tuple[str, str, dict[str, Any]]]:
        """The name, the description and the parameters of each tool."""
        return [
            (f"tool_{number}", f"Does task {number} with a file.", _PARAMETERS)
            for number in range(self.shape.tools)
        ]


_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "description": "The path of the file."},
        "lines": {"type": "integer", "description": "How many lines to read."},
        "mode": {"enum": ["read", "write", "search"]},
    },
    "required": ["path"],
}


class MessagesSession(Session):
    """Over Anthropic's API."""

    api = MESSAGES

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__(shape, seed)
        self._messages: list[dict[str, Any]] = [{"role": "user", "content": self.question}]

    def body(self) -> dict[str, Any]:
        """The next request, without its model."""
        tools = [
            {"name": name, "description": text, "input_schema": schema}
            for name, text, schema in self.schemas()
        ]
        return {
            "system": self.system,
            "tools": tools,
            "messages": self._messages,
            "max_tokens": self.shape.answer,
        }

    def go_on(self, number: int, answer: str, result: str, note: str) -> None:
        """Add an answer, a call, its result and a note."""
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "tool_0", "input": {}}
        told = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": result}
        self._messages += [
            {"role": "assistant", "content": [{"type": "text", "text": answer}, call]},
            {"role": "user", "content": [told]},
            {"role": "system", "content": note},
        ]


class ResponsesSession(Session):
    """Over OpenAI's Responses API; nothing is stored, so that each request brings all items."""

    api = RESPONSES

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__(shape, seed)
        self._items = [_item("developer", self.system), _item("user", self.question)]

    def body(self) -> dict[str, Any]:
        """The next request, without its model."""
        tools = [
            {"type": "function", "name": name, "description": text, "parameters": schema}
            for name, text, schema in self.schemas()
        ]
        return {
            "tools": tools,
            "input": self._items,
            "max_output_tokens": self.shape.answer,
            "store": False,
        }

    def go_on(self, number: int, answer: str, result: str, note: str) -> None:
        """Add an answer, a call, its result and a note."""
        call_id = f"call_{number}"
        said = {"type": "output_text", "text": answer, "annotations": []}
        call = {"call_id": call_id, "name": "tool_0", "arguments": "{}"}
        self._items += [
            {"type": "message", "role": "assistant", "content": [said]},
            {"type": "function_call", **call},
            {"type": "function_call_output", "call_id": call_id, "output": result},
            _item("developer", note),
        ]


def _item(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


async def agent(
    target: Target, seed: int, *, name: str, session: Callable[[Shape, int], Session]
) -> Run:
    """A session of one agent, turn after turn."""
    shape = SHORT if target.short else FULL
    growing = session(shape, seed)
    answers = []
    started = time.perf_counter()
    for number in range(shape.turns):
        body = {"model": target.model, "temperature": 0, "ignore_eos": True, **growing.body()}
        answer = await target.endpoint.stream(body, growing.api)
        answers.append(answer)
        if answer.error is not None:
            break
        said = some_text(shape.answer, seed + shape.turns + number + 1)
        result = some_text(shape.result, seed + number + 1)
        growing.go_on(number, said, result, f"Turn {number} is over.")
    seconds = time.perf_counter() - started
    return Run(workload=name, answers=answers, seconds=seconds, growing=True)
