"""Sends generated requests to a running server and holds it to three promises.

No answer is 5xx, every error has OpenAI's shape, and no worker dies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from tests.conformance.connection import assert_canary
from tests.e2e.server import BASE, INSTRUCT, Server, running_server
from tests.fuzz.bodies import ENCODER, JUDGE, POST_PATHS, Body, bodies
from tests.tiny_rerankers import write_cross_encoder, write_judge

# A context of 128 tokens bounds what an accepted request may cost.
SERVER_OPTIONS = ("--ctx-size", "128", "--kv-tokens", "2048", "--log-level", "error")
# The playground's files are not an API, and metrics grow with every request.
_LEFT_OUT = r"^/(playground.*|metrics)?$"


class Campaign:
    """Fuzzing of one server; ``answers`` counts them by endpoint and status."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answers: Counter[tuple[str, int]] = Counter()
        self._http = httpx.Client(base_url=server.url, timeout=60)
        self._description: dict[str, Any] = self._http.get("/openapi.json").json()
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

    def send_bodies(self, count: int, number: int) -> None:
        """Post ``count`` nearly valid bodies, drawn from seed ``number``."""

        def post(body: Body) -> None:
            headers = {"content-type": "application/json"}
            answer = self._http.post(body.path, content=body.content, headers=headers)
            self._check(f"POST {body.path}", answer)

        self._run(post, bodies(self._fields()), count, number)

    def send_cases(self, count: int, number: int) -> None:
        """Send ``count`` requests that schemathesis makes from our OpenAPI description."""
        schema = schemathesis.openapi.from_dict(self._description)
        results = schema.exclude(path_regex=_LEFT_OUT).get_all_operations()
        operations = [result.ok() for result in results if isinstance(result, Ok)]
        assert {operation.path for operation in operations} >= POST_PATHS.keys()
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for operation in operations:
            cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])
            self._run(self._send_case, cases, count // len(operations), number)

    def assert_workers_lived(self) -> None:
        """No worker was replaced, and all models answer."""
        self._assert_answers()
        assert self.server.worker_pids() == self._workers

    def _assert_answers(self) -> None:
        for model in (INSTRUCT, BASE):
            assert_canary(self.server, model)
        for model in (JUDGE, ENCODER):
            body = {"query": "a b", "documents": ["c", "a"], "model": model}
            answer = self._http.post("/v1/rerank", json=body)
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["results"]) == 2

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send_case(self, case: Case[Any]) -> None:
        if isinstance(case.body, dict):
            # Otherwise most requests would fail at the name of the model.
            case.body["model"] = POST_PATHS.get(case.path, {}).get("model", INSTRUCT)
            case.body = {name: _affordable(name, value) for name, value in case.body.items()}
        request = case.as_transport_kwargs(base_url=self.server.url)
        request.pop("cookies", None)
        if isinstance(request.get("data"), str | bytes):
            request["content"] = request.pop("data")
        try:
            made = self._http.build_request(**request)
            made.read()  # of a form with files, httpx would make the body while it sends
        except (httpx.InvalidURL, UnicodeError, ValueError, TypeError, AttributeError):
            return  # the client cannot send this request
        self._check(f"{case.method} {case.path}", self._http.send(made))

    def _fields(self) -> dict[str, list[str]]:
        """The names of the parameters of each path, as the server describes them."""
        found = {}
        for path in POST_PATHS:
            content = self._description["paths"][path]["post"]["requestBody"]["content"]
            name = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            found[path] = sorted(self._description["components"]["schemas"][name]["properties"])
        return found

    def _check(self, endpoint: str, answer: httpx.Response) -> None:
        self.answers[endpoint, answer.status_code] += 1
        sent = answer.request
        exchange = f"{sent.method} {sent.url} {sent.headers} {sent.content!r}: {answer.text}"
        assert answer.status_code < 500, exchange
        assert '"type":"server_error"' not in answer.text, exchange
        if answer.status_code >= 400 and answer.request.method != "HEAD":
            error = answer.json()["error"]
            if isinstance(error, str):  # TEI's form
                assert sent.url.path in {"/rerank", "/reranking"}, exchange
                return
            anthropic = sent.url.path.startswith("/v1/messages")
            own = {"message", "type"} if anthropic else {"message", "type", "param", "code"}
            assert error.keys() == own, exchange
            assert isinstance(error["message"], str)
            assert len(error["message"]) < 2000

    def _run(self, send: Any, strategy: st.SearchStrategy[Any], count: int, number: int) -> None:
        run = given(strategy)(send)
        run = settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )(run)
        seed(number)(run)()


def _affordable(name: str, value: Any) -> Any:
    """``value``, or a smaller one of its type if the request would take seconds."""
    return min(value, 2) if name in {"n", "best_of"} and isinstance(value, int) else value


def _rerankers(folder: Path) -> list[Path]:
    files = [folder / f"{name}.gguf" for name in (JUDGE, ENCODER)]
    write_judge(files[0])
    write_cross_encoder(files[1])
    # The judge's template alone is longer than the context of the others.
    files[0].with_suffix(".toml").write_text("context = 512\n")
    return files


@contextmanager
def campaign() -> Iterator[Campaign]:
    """A campaign against a server of its own, with two rerankers beside its models."""
    with (
        TemporaryDirectory() as folder,
        running_server(*SERVER_OPTIONS, *map(str, _rerankers(Path(folder)))) as server,
    ):
        started = Campaign(server)
        try:
            yield started
        finally:
            started.close()
