"""The queue of requests on their way to the engine, over a chat model that does as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from server.core.errors import ConversationError
from server.core.events import Accepted, Event, Failed
from server.core.native_prompt import RenderedPrompt
from server.core.pieces import TokenRun
from server.core.request import CacheScope, ChatPrompt, GenerationRequest, Message, TextPrompt, Tool
from server.core.sampling import Sampling
from server.engine.sampling.compiler_on_demand import CompilerOnDemand
from server.engine.sampling.matcher import GrammarCompiler
from server.engine.task import Task
from server.reply.grammar import ReplyGrammar
from server.worker.protocol import FromWorker, Generate, Render, Rendered, StepEvents
from server.worker.serve import constrain
from server.worker.serve.prepare import Preparer

PARALLEL, QUEUE_SIZE = 2, 3
CONTEXT, VOCABULARY = 100, 9
SCOPE = CacheScope(api_key="a key")


class Engine:
    """Takes tasks and keeps them waiting."""

    def __init__(self) -> None:
        self.active = 0
        self.tasks: SimpleQueue[Task] = SimpleQueue()
        self.cancelled: list[int] = []
        self.constraints: list[object] = []
        self.waiting = 0
        self.giving_way = 0
        self.submitting: Callable[[], None] = lambda: None

    def submit(self, task: Task, constraint: object) -> None:
        self.constraints.append(constraint)
        self.submitting()
        self.waiting += 1
        self.tasks.put(task)

    def cancel(self, request_id: int) -> None:
        self.cancelled.append(request_id)

    def seconds_until_free(self) -> float:
        return 7.0


class Setup:
    """A preparer with everything around it; texts say what becomes of them."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.rendered: SimpleQueue[Rendered] = SimpleQueue()
        self.go_on = threading.Event()
        self.tools_usable = True
        chat = SimpleNamespace(
            build=self._build,
            with_usable_tools=self._with_usable_tools,
            sampling=Sampling(),
            reply_format=None,
            reply_grammar=lambda prompt, *_: (
                ReplyGrammar("all", []) if isinstance(prompt, ChatPrompt) else None
            ),
        )
        vocabulary = SimpleNamespace(special_tokens=[], size=VOCABULARY)
        model: Any = SimpleNamespace(
            chat=chat,
            compiler=CompilerOnDemand(lambda: None, vocabulary.size),
            info=SimpleNamespace(context=CONTEXT, parallel=PARALLEL),
            context=SimpleNamespace(kv_cells=CONTEXT, partial_removal=True),
            adapters=SimpleNamespace(chosen=lambda _: None),
            stored_tokens=0,
            vocabulary=vocabulary,
            image_reader=lambda _: None,
        )
        engine: Any = self.engine
        self.preparer = Preparer(model, engine, self._take, queue_size=QUEUE_SIZE, disk=None)
        threading.Thread(target=self.preparer.run, daemon=True).start()

    def _take(self, message: FromWorker) -> None:
        if isinstance(message, Rendered):
            self.rendered.put(message)
        else:
            assert isinstance(message, StepEvents)
            for event in message.events:
                self.events.put(event)

    def _build(self, prompt: TextPrompt | ChatPrompt, **_: object) -> SimpleNamespace:
        match getattr(prompt, "text", None):
            case "slow":
                assert self.go_on.wait(30)
            case "refused":
                raise ConversationError("no")
            case "broken":
                raise RecursionError("too deep")
        return SimpleNamespace(
            rendered=RenderedPrompt(prompt="", tokens=[1, 2], segments=[]),
            pieces=[TokenRun((1, 2))],
            stops=[],
            ends=[8],
            strip_leading_space=False,
            reply_prefix="",
            tools_active=False,
            opening=0,
        )

    def _with_usable_tools(self, prompt: TextPrompt | ChatPrompt) -> TextPrompt | ChatPrompt:
        if isinstance(prompt, TextPrompt) or self.tools_usable:
            return prompt
        return msgspec.structs.replace(prompt, tools=[])

    def generate(self, request_id: int, text: str = "fine", **settings: Any) -> None:
        self._generate(request_id, GenerationRequest(prompt=TextPrompt(text=text), **settings))

    def generate_later(self, request_id: int, text: str = "fine") -> None:
        """A request that gives way."""
        request = GenerationRequest(prompt=TextPrompt(text=text))
        self.preparer.generate(
            Generate(id=request_id, scope=SCOPE, request=request, gives_way=True)
        )

    def generate_with_tools(self, request_id: int, count: int, *, strict: bool = True) -> None:
        tools = [
            Tool(name=f"tool_{n}", parameters={"properties": {f"p{n}": {}}}, strict=strict)
            for n in range(count)
        ]
        prompt = ChatPrompt(messages=[Message(role="user", content="hi")], tools=tools)
        self._generate(request_id, GenerationRequest(prompt=prompt))

    def _generate(self, request_id: int, request: GenerationRequest) -> None:
        self.preparer.generate(Generate(id=request_id, scope=SCOPE, request=request))

    def event(self) -> Event:
        return self.events.get(timeout=30)


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    yield made
    made.go_on.set()


def test_a_request_reaches_the_engine(setup: Setup) -> None:
    setup.generate(1)
    event = setup.event()
    assert isinstance(event, Accepted)
    assert event.prompt_tokens == 2
    assert setup.engine.tasks.get(timeout=30).id == 1


def test_a_request_brings_its_cache_scope(setup: Setup) -> None:
    setup.generate(1)
    assert setup.engine.tasks.get(timeout=30).scope == SCOPE


def test_tokens_that_the_prompts_form_ends_with_end_the_answer(setup: Setup) -> None:
    setup.generate(1, stop_token_ids=[5])
    setup.event()
    assert setup.engine.tasks.get(timeout=30).stop_tokens == {5, 8}


@pytest.mark.parametrize(
    ("asked", "limit"),
    [(None, CONTEXT), (7, 7), (CONTEXT, CONTEXT), (CONTEXT + 1, CONTEXT), (2**31 - 1, CONTEXT)],
)
def test_more_tokens_than_the_context_holds_means_up_to_its_end(
    setup: Setup, asked: int | None, limit: int
) -> None:
    setup.generate(1, max_tokens=asked)
    assert setup.engine.tasks.get(timeout=30).max_tokens == limit


@pytest.mark.parametrize(
    ("usable", "named"),
    [(True, []), (False, ["tools (called only where tool_choice requires it)"])],
)
def test_a_prompt_that_is_only_rendered_names_tools_that_the_model_never_calls(
    setup: Setup, usable: bool, named: list[str]
) -> None:
    setup.tools_usable = usable
    prompt = ChatPrompt(messages=[Message(role="user", content="hi")], tools=[Tool(name="f")])
    setup.preparer.render(Render(id=1, prompt=prompt))
    rendered = setup.rendered.get(timeout=30).prompt
    assert rendered is not None
    assert rendered.ignored == named


def test_tools_that_the_model_never_calls_constrain_nothing_and_are_named(setup: Setup) -> None:
    setup.tools_usable = False
    setup.generate_with_tools(1, 1)
    event = setup.event()
    assert isinstance(event, Accepted)
    assert event.ignored == ["tools (called only where tool_choice requires it)"]
    setup.engine.tasks.get(timeout=30)
    assert setup.engine.constraints == [None]


@pytest.mark.parametrize("token", [-1, VOCABULARY, 9_999_999_999])
def test_a_bias_of_a_token_outside_the_vocabulary_is_refused(setup: Setup, token: int) -> None:
    setup.generate(1, sampling=Sampling(logit_bias={0: 1.0, token: 1.0}))
    failed = setup.event()
    assert isinstance(failed, Failed)
    assert failed.error.at == ("sampling", "logit_bias")
    assert f"token {token} is not in the vocabulary of {VOCABULARY}" in failed.error.message
    setup.generate(2, sampling=Sampling(logit_bias={VOCABULARY - 1: 1.0}))
    assert isinstance(setup.event(), Accepted)


def test_beyond_those_that_run_and_those_that_may_wait_requests_are_refused(setup: Setup) -> None:
    for request_id in range(PARALLEL + QUEUE_SIZE + 1):
        setup.generate(request_id, "slow")
    refused = setup.event()
    assert isinstance(refused, Failed)
    assert (refused.id, refused.error.code) == (PARALLEL + QUEUE_SIZE, "queue_full")
    assert refused.error.retry_after == 7.0
    assert f"{QUEUE_SIZE} requests" in refused.error.message


def test_what_the_engine_has_counts_too(setup: Setup) -> None:
    setup.engine.active, setup.engine.waiting = PARALLEL, QUEUE_SIZE
    setup.generate(1)
    assert isinstance(setup.event(), Failed)
    setup.engine.waiting -= 1
    setup.generate(2)
    assert isinstance(setup.event(), Accepted)


def test_one_that_gives_way_is_prepared_behind_all_others(setup: Setup) -> None:
    setup.generate_later(1, "slow")
    setup.generate_later(2)
    setup.generate_later(3)
    setup.generate(4)
    setup.go_on.set()
    prepared = [setup.engine.tasks.get(timeout=30) for _ in range(4)]
    assert [task.id for task in prepared] in ([1, 4, 2, 3], [4, 1, 2, 3])
    assert [task.gives_way for task in prepared if task.id in {1, 4}].count(True) == 1


def test_one_that_gives_way_takes_no_place_in_the_queue(setup: Setup) -> None:
    engine = setup.engine
    engine.active, engine.waiting, engine.giving_way = PARALLEL, QUEUE_SIZE, PARALLEL
    setup.generate(1)
    assert isinstance(setup.event(), Accepted)
    engine.giving_way = 0
    setup.generate_later(2)
    assert isinstance(setup.event(), Accepted)
    setup.generate(3)
    assert isinstance(setup.event(), Failed)


@pytest.mark.parametrize(
    ("text", "code"), [("refused", "invalid_conversation"), ("broken", "internal_error")]
)
def test_a_failure_is_reported_and_the_next_request_is_prepared(
    setup: Setup, text: str, code: str
) -> None:
    setup.generate(1, text)
    failed = setup.event()
    assert isinstance(failed, Failed)
    assert (failed.id, failed.error.code) == (1, code)
    setup.preparer.render(Render(id=2, prompt=TextPrompt(text=text)))
    rendered = setup.rendered.get(timeout=30)
    assert rendered.error is not None
    assert rendered.error.code == code
    setup.generate(3)
    assert isinstance(setup.event(), Accepted)


def test_a_request_cancelled_while_it_waits_or_is_prepared_never_reaches_the_engine(
    setup: Setup,
) -> None:
    setup.generate(1, "slow")
    setup.generate(2)
    setup.generate(3)
    setup.preparer.cancel(1)
    setup.preparer.cancel(2)
    setup.go_on.set()
    assert setup.event().id == 3
    assert setup.engine.tasks.get(timeout=30).id == 3
    assert setup.engine.tasks.empty()


def test_a_request_cancelled_while_it_is_handed_over_is_cancelled_in_the_engine(
    setup: Setup,
) -> None:
    setup.engine.submitting = lambda: setup.preparer.cancel(1)
    setup.generate(1)
    assert setup.engine.tasks.get(timeout=30).id == 1
    setup.generate(2, "refused")
    while setup.event().id != 2:
        pass
    assert setup.engine.cancelled == [1]


def test_a_request_the_engine_has_is_cancelled_there(setup: Setup) -> None:
    setup.generate(1)
    assert setup.engine.tasks.get(timeout=30).id == 1
    setup.generate(2, "refused")
    while setup.event().id != 2:
        pass
    setup.preparer.cancel(1)
    assert setup.engine.cancelled == [1]


class Trials:
    """Stands in for trying tools out: each waits to be let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: SimpleQueue[str] = SimpleQueue()
        self.let_through = threading.Semaphore(0)
        monkeypatch.setattr(GrammarCompiler, "try_out", lambda _, grammar: self._try(grammar))
        monkeypatch.setattr(GrammarCompiler, "compile", lambda *_: "compiled")

    def _try(self, grammar: str) -> None:
        self.begun.put(grammar)
        assert self.let_through.acquire(timeout=30)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    return Trials(monkeypatch)


def test_every_tool_is_tried_out(setup: Setup, trials: Trials) -> None:
    trials.let_through.release(3)
    setup.generate_with_tools(1, 3)
    assert isinstance(setup.event(), Accepted)
    assert setup.engine.tasks.get(timeout=30).id == 1
    assert trials.begun.qsize() == 3
    assert setup.engine.constraints == ["compiled"]


def test_trying_out_the_tools_of_a_request_ends_in_time(
    setup: Setup, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constrain, "_TOOLS_SECONDS", 0.5)
    setup.generate_with_tools(1, 128)
    trials.begun.get(timeout=30)
    time.sleep(0.6)
    trials.let_through.release(128)
    failed = setup.event()
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.error.at) == ("invalid_constraint", ("tools", 1))
    assert "tool_1 " in failed.error.message
    assert trials.begun.qsize() == 0


def test_tools_that_time_is_short_for_are_loosened_unless_they_are_strict(
    setup: Setup, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constrain, "_TOOLS_SECONDS", 0.5)
    setup.generate_with_tools(1, 128, strict=False)
    trials.begun.get(timeout=30)
    time.sleep(0.6)
    trials.let_through.release(128)
    assert isinstance(setup.event(), Accepted)
    assert trials.begun.qsize() == 0


def test_the_tools_of_a_cancelled_request_are_not_tried_out_to_the_end(
    setup: Setup, trials: Trials
) -> None:
    setup.generate_with_tools(1, 128)
    trials.begun.get(timeout=30)
    setup.preparer.cancel(1)
    trials.let_through.release(128)
    setup.generate(2)
    assert setup.event().id == 2
    assert trials.begun.qsize() == 0
    assert setup.engine.tasks.get(timeout=30).id == 2
