"""How many tokens an agent's session is to a model whose template has no tools."""

from __future__ import annotations

import httpx

from server.benchmark.agent import MessagesSession, Shape
from server.benchmark.texts import some_text
from tests.e2e.server import INSTRUCT, Server

SHAPE = Shape(turns=4, system=500, tools=25, result=300, answer=60)
# A tool in JSON; of a turn the marks of its messages, the call and the words of the note.
MOST_OF_A_TOOL = 88
MOST_OF_A_TURN = 56
MOST_ELSE = 60


def test_tools_and_turns_of_an_agent_take_few_tokens_beyond_their_texts(server: Server) -> None:
    session = MessagesSession(SHAPE, 7)
    for number in range(SHAPE.turns):
        answer, result = some_text(SHAPE.answer, number), some_text(SHAPE.result, 100 + number)
        session.go_on(number, answer, result, f"Turn {number} is over.")
    body = {"model": INSTRUCT, **session.body()}
    body.pop("max_tokens")
    counted = httpx.post(f"{server.url}/v1/messages/count_tokens", json=body, timeout=60)
    texts = SHAPE.system + SHAPE.turns * (SHAPE.answer + SHAPE.result)
    beside = SHAPE.tools * MOST_OF_A_TOOL + SHAPE.turns * MOST_OF_A_TURN + MOST_ELSE
    assert texts < counted.json()["input_tokens"] < texts + beside
