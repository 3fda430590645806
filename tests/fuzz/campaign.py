"""Sends generated requests to a running server and holds it to three promises.

No answer is 5xx, every error has its family's shape, and no worker dies.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from tests.conformance.connection import assert_canary
from tests.e2e.server import BASE, INSTRUCT, Server, running_server
from tests.fuzz.bodies import ENCODER, JUDGE, POST_PATHS, bodies
from tests.fuzz.connections import Connection, Got, Sent
from tests.fuzz.made import Made
from tests.fuzz.others import METRICS, batch_file, undescribed
from tests.fuzz.variants import Variants
from tests.tiny_models import MEMORY_TYPES, write_tiny_model
from tests.tiny_rerankers import write_cross_encoder, write_judge

# A context of 128 tokens bounds what an accepted request may cost. Workers take turns: threads of
# many would wait for each other.
_CELLS = ("--ctx-size", "128", "--kv-tokens", "2048")
SERVER_OPTIONS = (*_CELLS, "--log-level", "error", "--threads", "1")
# Two of the playground's files stand for all, and metrics, which cost most, are asked for once.
_LEFT_OUT = r"^/(playground.*|metrics)?$"
# How many requests of a round hypothesis and schemathesis draw; the others are variants of these.
# Drawing them costs as much as making 100,000 variants.
_BODIES, _CASES = 250, 200
_AT_ONCE = 48
# The families that the tiny models of each memory type are taken for.
_FAMILIES = {
    "full attention": "chatml",
    "sliding window": "gemma",
    "recurrent": "llama-3",
    "hybrid": "mistral",
}
# Their control tokens, of chats and of gaps to fill.
_MARKERS = ["<|im_start|>", "<|im_end|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
_CONNECTION_HEADERS = {b"host", b"connection", b"content-length", b"transfer-encoding"}
# The last is another one each time.
_NOT_SENT = {*_CONNECTION_HEADERS, b"accept-encoding", b"x-schemathesis-testcaseid"}


def tiny_name(memory_type: str) -> str:
    """The id of the tiny model of this type."""
    return f"tiny-{memory_type.replace(' ', '-')}"


TINY = [tiny_name(memory_type) for memory_type in MEMORY_TYPES]


class Campaign:
    """Fuzzing of one server; ``answers`` counts them by endpoint and status."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answers: Counter[tuple[str, int]] = Counter()
        self._http = httpx.Client(base_url=server.url, timeout=120)
        self._description: dict[str, Any] = self._http.get("/openapi.json").json()
        self._operations = _operations(self._description)
        self._assert_answers()
        self._workers = server.worker_pids()

    @property
    def requests(self) -> int:
        """The number of answers."""
        return self.answers.total()

    @property
    def statuses(self) -> Counter[int]:
        """The number of answers by status."""
        counts: Counter[int] = Counter()
        for (_, status), count in self.answers.items():
            counts[status] += count
        return counts

    def add(self, answers: Counter[tuple[str, int]]) -> None:
        """Count answers that came otherwise."""
        self.answers += answers

    def draw(self, count: int, number: int) -> list[Sent]:
        """``count`` requests that follow from seed ``number``, at least as many as are drawn."""
        drawn = [*undescribed(TINY[0], JUDGE), batch_file(TINY[0])]
        drawn += self._bodies(_BODIES, number)
        drawn += self._cases(_CASES, number)
        chance = Random(number)
        variants = Variants(chance, cheap=TINY, costly=[INSTRUCT, BASE], whole=POST_PATHS)
        for sent in drawn:
            variants.learn(sent)
        drawn.append(METRICS)
        drawn += [variants.make() for _ in range(count - len(drawn))]
        chance.shuffle(drawn)
        return drawn

    async def send(self, requests: Sequence[Sent]) -> None:
        """Send ``requests``, some at once, and check the answers.

        Some name what earlier ones made; equal requests are sent alike but for that.
        """
        url = httpx.URL(self.server.url)
        assert url.port is not None
        made = Made(Random(len(requests)), [*TINY, INSTRUCT, JUDGE])
        waiting = map(made.named, requests)

        async def send_some(connection: Connection) -> None:
            for sent in waiting:
                try:
                    got = await connection.exchange(sent)
                except (OSError, TimeoutError) as error:
                    raise AssertionError(f"{sent}: {error!r}") from error
                check(sent, got)
                made.note(got.content)
                self.answers[sent.endpoint, got.status] += 1

        connections = [Connection(url.host, url.port) for _ in range(_AT_ONCE)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for connection in connections:
                    tasks.create_task(send_some(connection))
        finally:
            for connection in connections:
                connection.close()

    def assert_workers_lived(self) -> None:
        """No worker was replaced, and all models answer."""
        self._assert_answers()
        assert self.server.worker_pids() == self._workers

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _assert_answers(self) -> None:
        for model in (INSTRUCT, BASE, *TINY):
            assert_canary(self.server, model)
        for model in (JUDGE, ENCODER):
            body = {"query": "a b", "documents": ["c", "a"], "model": model}
            answer = self._http.post("/v1/rerank", json=body)
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["results"]) == 2

    def _bodies(self, count: int, number: int) -> list[Sent]:
        """Nearly valid bodies."""
        json_type = [(b"content-type", b"application/json")]
        return [
            Sent("POST", body.path, body.path.encode(), json_type, body.content)
            for body in _drawn(bodies(self._fields()), count, number)
        ]

    def _cases(self, count: int, number: int) -> list[Sent]:
        """What schemathesis makes from our OpenAPI description."""
        each = max(count // len(self._operations), 1)
        drawn = [case for cases in self._operations for case in _drawn(cases, each, number)]
        return [sent for sent in map(self._sendable, drawn) if sent is not None]

    def _sendable(self, case: Case[Any]) -> Sent | None:
        """The request of ``case``; None if it cannot be written as HTTP."""
        if isinstance(case.body, dict):
            # Otherwise most requests would fail at the name of the model.
            case.body["model"] = POST_PATHS.get(case.path, {}).get("model", TINY[0])
            case.body = {name: _affordable(name, value) for name, value in case.body.items()}
        request = case.as_transport_kwargs(base_url=self.server.url)
        request.pop("cookies", None)
        if isinstance(request.get("data"), str | bytes):
            request["content"] = request.pop("data")
        try:
            made = self._http.build_request(**request)
            content = made.read()
        except (httpx.InvalidURL, UnicodeError, ValueError, TypeError, AttributeError):
            return None
        headers = [each for each in made.headers.raw if each[0].lower() not in _NOT_SENT]
        if any(set(name + value) & set(b"\r\n\0") for name, value in headers):
            return None
        return Sent(case.method, case.path, made.url.raw_path, headers, content)

    def _fields(self) -> dict[str, list[str]]:
        """The names of the parameters of each path, as the server describes them."""
        found = {}
        for path in POST_PATHS:
            content = self._description["paths"][path]["post"]["requestBody"]["content"]
            name = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            found[path] = sorted(self._description["components"]["schemas"][name]["properties"])
        return found


def check(sent: Sent, got: Got) -> None:
    """Hold an answer to what is promised of every one."""
    exchange = f"{sent}: {got}"
    assert got.status < 500, exchange
    assert b'"type":"server_error"' not in got.content, exchange
    if got.status >= 400 and sent.method != "HEAD":
        error = json.loads(got.content)["error"]
        if isinstance(error, str):  # TEI's form, and Ollama's
            assert sent.path in {"/rerank", "/reranking"} or sent.path.startswith("/api/"), exchange
            return
        path = unquote(sent.target.partition(b"?")[0].decode()) + "/"
        anthropic = path.startswith("/v1/messages/")
        own = {"message", "type"} if anthropic else {"message", "type", "param", "code"}
        assert error.keys() == own, exchange
        assert isinstance(error["message"], str), exchange
        assert len(error["message"]) < 2000, exchange


def _operations(description: dict[str, Any]) -> list[st.SearchStrategy[Case[Any]]]:
    """What draws requests to each operation, valid ones and others."""
    schema = schemathesis.openapi.from_dict(description)
    results = schema.exclude(path_regex=_LEFT_OUT).get_all_operations()
    operations = [result.ok() for result in results if isinstance(result, Ok)]
    assert {operation.path for operation in operations} >= POST_PATHS.keys()
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    return [
        st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])
        for operation in operations
    ]


def _drawn(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """``count`` values of ``strategy``, at most."""
    found: list[Any] = []
    draw = settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )(given(strategy)(lambda value: found.append(value)))  # noqa: PLW0108 - it asks for the code
    seed(number)(draw)()
    return found


def _affordable(name: str, value: Any) -> Any:
    """``value``, or a smaller one of its type if the request would take seconds."""
    return min(value, 2) if name in {"n", "best_of"} and isinstance(value, int) else value


def _models(folder: Path) -> list[Path]:
    """Tiny models of every memory type, each with another family's template, and rerankers."""
    files = []
    for memory_type, family in _FAMILIES.items():
        file = folder / f"{tiny_name(memory_type)}.gguf"
        write_tiny_model(file, memory_type, markers=_MARKERS)
        # Their tokens are bytes, of which prompts have more than words.
        file.with_suffix(".toml").write_text(f'family = "{family}"\ncontext = 256\n')
        files.append(file)
    files += [folder / f"{name}.gguf" for name in (JUDGE, ENCODER)]
    write_judge(files[-2])
    write_cross_encoder(files[-1])
    # The judge's template alone is longer than the context of the others.
    files[-2].with_suffix(".toml").write_text("context = 512\n")
    return files


@contextmanager
def fuzzed_server(**environment: str) -> Iterator[Server]:
    """A server with tiny models and rerankers beside the real models."""
    with TemporaryDirectory() as folder:
        models = map(str, _models(Path(folder)))
        environment = {"DRAGOMAN_FILES_DIR": f"{folder}/files", **environment}
        with running_server(*SERVER_OPTIONS, *models, **environment) as server:
            yield server


@contextmanager
def campaign() -> Iterator[Campaign]:
    """A campaign against a server of its own."""
    with fuzzed_server() as server:
        started = Campaign(server)
        try:
            yield started
        finally:
            started.close()
