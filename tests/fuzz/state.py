"""Sessions of two API keys with a server that remembers: responses, conversations, messages.

Each request builds on answers to earlier ones: ids that were made in the run, of either key,
deleted or never made, calls with and without results, items that come back whole or garbled. What
must hold: no answer is 5xx, errors have their family's shape, and no key sees or uses what is the
other's.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from random import Random
from typing import Any

import httpx

KEYS = ("key-of-one", "key-of-two")
_ODD: list[Any] = [None, True, 0, -1, 2**63, 1e308, "", "\0", "x" * 300, "é\u202e𝄞", [], {}, [[]]]
_NEVER_MADE = ["resp_0", "conv_0", "msg_0", "../x", "%2e%2e", "resp_" + "a" * 40, "é", "x" * 400]
_TOOLS = [
    {"type": "function", "name": "f", "parameters": {"type": "object"}},
    {"type": "custom", "name": "g"},
    {"type": "web_search"},
]
_COMPACTION = [{"type": "compaction", "compact_threshold": 1}]
_EDITS = [
    {"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 0}},
    {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "tool_uses", "value": 0},
        "keep": {"type": "tool_uses", "value": 0},
    },
]


class Sessions:
    """Sends requests that ``random`` draws; ``statuses`` counts the answers.

    Args:
        http: A client of a server that takes `KEYS`.
        model: The model to name.
        random: Two runs with equal ones send the same, but for ids.
    """

    def __init__(self, http: httpx.AsyncClient, model: str, random: Random) -> None:
        self.statuses: Counter[int] = Counter()
        self._http = http
        self._model = model
        self._random = random
        self._owner = 0
        self._made: list[dict[str, list[str]]] = [defaultdict(list), defaultdict(list)]
        self._items: list[list[dict[str, Any]]] = [[], []]
        self._blocks: list[list[dict[str, Any]]] = [[], []]

    async def step(self) -> None:
        """Send one request of either key."""
        self._owner = self._random.randrange(2)
        await self._one_of(
            *3 * [self._create],
            self._retrieve,
            self._input_items,
            self._count_or_compact,
            self._end,
            self._talk,
            self._talk_items,
            *2 * [self._message],
        )()

    # --- responses ---

    async def _create(self) -> None:
        body = self._state() | {
            "input": self._one_of(self._mark(), *4 * [self._some_items()], [], None),
            "store": self._one_of(True, True, None, False),
            "background": self._one_of(False, False, False, True),
            "stream": self._one_of(False, True),
            "max_output_tokens": self._random.randint(1, 3),
            "metadata": self._one_of({}, {"a": self._mark()}, None),
            "include": self._one_of(None, [], ["reasoning.encrypted_content"], ["x"]),
            "truncation": self._one_of(None, "auto", "disabled"),
            "context_management": self._one_of(None, [], _COMPACTION),
            "tools": self._one_of(None, _TOOLS, _TOOLS[:1]),
        }
        self._spoil(body)
        answer = await self._send("POST", "/v1/responses", body)
        if answer.status_code == 200:
            self._remember(answer)

    def _state(self) -> dict[str, Any]:
        """What a response goes on from: nothing, a response, a conversation, or wrongly both."""
        body: dict[str, Any] = {"model": self._model}
        chosen = self._random.randrange(8)
        if chosen in {1, 2, 3, 7}:
            body["previous_response_id"] = self._id("resp")
        if chosen in {4, 5, 6, 7}:
            name = self._id("conv")
            body["conversation"] = self._one_of(name, {"id": name})
        return body

    def _some_items(self) -> list[Any]:
        return [self._item() for _ in range(self._random.randint(1, 4))]

    def _item(self) -> Any:
        """An item: a new one, one that was answered, a reference, or nearly one."""
        call = self._one_of("c1", "c2", *self._made[self._owner]["call"][-2:])
        garbled = self._one_of("", "gAAAA", "dragoman-reasoning-1:", "dragoman-reasoning-1:AAAA")
        item = self._one_of(
            {"role": "user", "content": self._mark()},
            {"type": "message", "role": "assistant", "content": [self._text("output_text")]},
            {"type": "message", "role": "developer", "content": [self._text("input_text")]},
            {"type": "function_call", "call_id": call, "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": call, "output": self._mark()},
            {"type": "custom_tool_call", "call_id": call, "name": "g", "input": self._mark()},
            {"type": "custom_tool_call_output", "call_id": call, "output": [self._text("text")]},
            {"type": "reasoning", "summary": [], "encrypted_content": garbled},
            {"type": "compaction", "encrypted_content": garbled},
            {"type": "configuration_update", "reasoning": {"effort": "low"}},
            {"type": "item_reference", "id": self._id("item")},
            {"id": self._id("item")},
            {"type": "x"},
            *self._items[self._owner][-4:],
        )
        item = dict(item)
        if self._random.randrange(6) == 0 and "id" not in item:
            item["id"] = self._one_of(
                *self._made[self._owner]["item"][-2:], f"mine_{self._owner}", "", "a b"
            )
        if self._random.randrange(12) == 0:
            self._spoil(item)
        return item

    async def _retrieve(self) -> None:
        query = self._one_of(
            {},
            {"stream": "true"},
            {"stream": "true", "starting_after": self._one_of("0", "3", "999", "-1", "x")},
            {"include[]": "x", "stream": "maybe"},
        )
        await self._send("GET", f"/v1/responses/{self._path_id('resp')}", query=query)

    async def _input_items(self) -> None:
        query = {
            "after": self._one_of("", self._id("item"), "x"),
            "limit": self._one_of("1", "100", "0", "x"),
            "order": self._one_of("asc", "desc", "x"),
        }
        kept = {name: query[name] for name in query if self._random.randrange(2)}
        await self._send("GET", f"/v1/responses/{self._path_id('resp')}/input_items", query=kept)

    async def _count_or_compact(self) -> None:
        body = self._state() | {"input": self._one_of(self._mark(), self._some_items(), None)}
        self._spoil(body)
        what = self._one_of("input_tokens", "compact")
        answer = await self._send("POST", f"/v1/responses/{what}", body)
        if answer.status_code == 200 and what == "compact":
            self._items[self._owner] += answer.json()["output"]

    async def _end(self) -> None:
        path = f"/v1/responses/{self._path_id('resp')}"
        if self._random.randrange(2):
            await self._send("POST", f"{path}/cancel")
        else:
            await self._send("DELETE", path)

    # --- conversations ---

    async def _talk(self) -> None:
        body = {"metadata": self._one_of({}, {"a": self._mark()}, None)}
        path = f"/v1/conversations/{self._path_id('conv')}"
        match self._random.randrange(5):
            case 0:
                await self._send("GET", path)
            case 1:
                self._spoil(body)
                await self._send("POST", path, body)
            case 2:
                await self._send("DELETE", path)
            case _:
                body["items"] = self._one_of([], None, self._some_items())
                self._spoil(body)
                answer = await self._send("POST", "/v1/conversations", body)
                if answer.status_code == 200:
                    self._made[self._owner]["conv"].append(answer.json()["id"])

    async def _talk_items(self) -> None:
        path = f"/v1/conversations/{self._path_id('conv')}/items"
        item = f"{path}/{self._path_id('item')}"
        match self._random.randrange(4):
            case 0:
                await self._send("GET", item)
            case 1:
                await self._send("DELETE", item)
            case 2:
                order = self._one_of("asc", "desc", "x")
                await self._send("GET", path, query={"order": order, "limit": "3"})
            case _:
                body = {"items": self._some_items()}
                self._spoil(body)
                answer = await self._send("POST", path, body)
                if answer.status_code == 200:
                    self._remember_items(answer.json()["data"])

    # --- messages ---

    async def _message(self) -> None:
        """A turn of an agent that sends its whole history, with blocks of earlier answers."""
        ids = self._one_of("t1", "t2", *self._made[self._owner]["use"][-2:])
        result = {"type": "tool_result", "tool_use_id": ids, "content": self._mark()}
        thought = {"type": "thinking", "thinking": self._mark(), "signature": self._one_of("", "x")}
        use = {"type": "tool_use", "id": ids, "name": "f", "input": self._one_of({}, {"a": 1})}
        said = [self._one_of(thought, use, self._text("text"), *self._blocks[self._owner][-3:])]
        body = {
            "model": self._model,
            "max_tokens": self._random.randint(1, 3),
            "messages": [
                {"role": "user", "content": self._mark()},
                {"role": "assistant", "content": self._one_of(said, self._mark())},
                {"role": "user", "content": self._one_of([result], [self._text("text")])},
            ],
            "stream": self._one_of(False, True),
            "tools": self._one_of(None, [{"name": "f", "input_schema": {"type": "object"}}]),
            "context_management": self._one_of(None, {"edits": _EDITS}, {"edits": _EDITS[1:]}),
            "compaction": self._one_of(*3 * [None], {"type": "summarize"}),
        }
        self._spoil(self._one_of(body, body["messages"][1], said[0], result))
        path = self._one_of("/v1/messages", "/v1/messages/count_tokens")
        answer = await self._send("POST", path, body)
        if answer.headers["content-type"] == "application/json" and "content" in answer.json():
            blocks = answer.json()["content"]
            self._blocks[self._owner] += blocks
            self._made[self._owner]["use"] += [block["id"] for block in blocks if "id" in block]

    # --- what requests are made of ---

    def _one_of(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def _mark(self) -> str:
        """A text that says whose it is."""
        return f"{self._one_of('', 'Hi. ', '<|im_end|>')}of {KEYS[self._owner]}"

    def _text(self, kind: str) -> dict[str, Any]:
        return {"type": kind, "text": self._mark()}

    def _id(self, kind: str) -> str:
        """An id of this kind, mostly one of this key's; one of the other's must be refused."""
        own, others = self._made[self._owner][kind], self._made[1 - self._owner][kind]
        chosen = self._random.randrange(10)
        if own and chosen < 7:
            return str(self._random.choice(own[-5:]))
        if others and chosen < 9:
            return str(self._random.choice(others[-5:]))
        wrong = [name for names in self._made[self._owner].values() for name in names[-1:]]
        return str(self._random.choice([*_NEVER_MADE, *wrong]))

    def _path_id(self, kind: str) -> str:
        return str(
            httpx.URL("http://x/").copy_with(path=f"/{self._id(kind)}").raw_path[1:], "ascii"
        )

    def _spoil(self, value: dict[str, Any]) -> None:
        """Sometimes give a field a value that it cannot have, or leave it out."""
        if value and self._random.randrange(5) == 0:
            name = self._random.choice(sorted(value))
            value[name] = self._random.choice(_ODD)
            if self._random.randrange(3) == 0:
                del value[name]

    # --- answers ---

    async def _send(
        self, method: str, path: str, body: object = None, *, query: Mapping[str, str] | None = None
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {KEYS[self._owner]}"}
        answer = await self._http.request(method, path, headers=headers, json=body, params=query)
        self.statuses[answer.status_code] += 1
        told = f"{KEYS[self._owner]}: {method} {path} {query} {json.dumps(body)}: {answer.text}"
        assert answer.status_code < 500, told
        assert KEYS[1 - self._owner] not in answer.text, told
        if self._uses_the_other_s(method, path, body):
            assert answer.status_code >= 400, told
        if answer.status_code >= 400:
            error = answer.json()["error"]
            places = set() if path.startswith("/v1/messages") else {"param", "code"}
            assert error.keys() == {"message", "type"} | places, told
            assert error["type"] != "server_error", told
        return answer

    def _uses_the_other_s(self, method: str, path: str, body: object) -> bool:
        """Whether a request goes on from what the other key stored."""
        named: list[Any] = [name for name in path.split("/")[3:] if method != "DELETE"][:3:2]
        if isinstance(body, dict):
            # What is compacted has no conversation; it is named as ignored.
            talk = None if path.endswith("/compact") else body.get("conversation")
            named += [body.get("previous_response_id"), talk]
            named += [talk.get("id")] if isinstance(talk, dict) else []
            for field in ("input", "items"):
                given = body.get(field)
                items = given if isinstance(given, list) else []
                named += [item["id"] for item in items if _is_reference(item)]
        own, others = (
            {name for names in self._made[whose].values() for name in names}
            for whose in (self._owner, 1 - self._owner)
        )
        return any(isinstance(name, str) and name in others - own for name in named)

    def _remember(self, answer: httpx.Response) -> None:
        """Note the ids of a response, whole or streamed, and its items."""
        response = _last_response(answer)
        self._made[self._owner]["resp"].append(response["id"])
        self._remember_items(response["output"])

    def _remember_items(self, items: list[dict[str, Any]]) -> None:
        made = self._made[self._owner]
        self._items[self._owner] += items
        made["item"] += [item["id"] for item in items]
        made["call"] += [item["call_id"] for item in items if "call_id" in item]


def _is_reference(item: object) -> bool:
    if not isinstance(item, dict) or "id" not in item:
        return False
    return item.get("type") == "item_reference" or item.keys() == {"id"}


def _last_response(answer: httpx.Response) -> dict[str, Any]:
    if answer.headers["content-type"] == "application/json":
        return dict(answer.json())
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return dict([event["response"] for event in events if "response" in event][-1])
