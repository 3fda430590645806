"""A pool without models or processes: it answers with the events a test scripts."""

from __future__ import annotations

import asyncio
import math
import os
import struct
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

import msgspec

from server.core.embeddings import Embeddings, Reading
from server.core.errors import ContextLengthExceeded, ModelNotFound, ModelUnavailable
from server.core.events import Accepted, Delta, Event, Finished, FinishReason, TokenLogprob, Usage
from server.core.model_info import (
    AdapterFile,
    EmbeddingInfo,
    EngineStats,
    ModelEntry,
    ModelInfo,
    ModelOutline,
    ModelState,
    adapted_id,
)
from server.core.native_prompt import RenderedPrompt, Segment
from server.core.ranking import RankingRequest, Scores
from server.core.reply_format import ReplyFormat
from server.core.request import (
    NO_KEY,
    CacheScope,
    ChatPrompt,
    GenerationRequest,
    Prompt,
    images_of,
)
from server.core.sampling import Sampling
from server.core.tokens import TokenizeRequest, Tokens

VOCABULARY = 1000
CONTEXT = 2048
DIMENSIONS = 8

Script = Callable[[GenerationRequest], Iterable["Event | Exception | float"]]


OUTLINE = ModelOutline(
    architecture="llama",
    parameters=1,
    quantization="Q4_1",
    file_bytes=1,
    vocabulary=VOCABULARY,
    kind="instruct",
    kind_reasons=["it has a chat template"],
    context=CONTEXT,
    context_source="what the model was trained with; memory may bound it",
    context_train=CONTEXT,
    generates=True,
)
"""What the header of a small instruct model tells."""


def model_info(model_id: str, reply_format: ReplyFormat | None = None) -> ModelInfo:
    """What a small instruct model reports."""
    return ModelInfo(
        model_id=model_id,
        path=f"/models/{model_id}.gguf",
        architecture="llama",
        parameters=1,
        quantization="Q4_1",
        file_bytes=1,
        vocabulary=VOCABULARY,
        kind="instruct",
        kind_reasons=["it has a chat template"],
        context=CONTEXT,
        context_source="trained",
        context_train=CONTEXT,
        kv_cells=CONTEXT,
        parallel=4,
        threads=2,
        gpu_layers=0,
        family="chatml",
        template_source="gguf",
        template_sha256="0" * 64,
        capabilities={"tools": True},
        reply_format=reply_format,
        sampling=Sampling(),
        guard=True,
        safe_mode=False,
        fingerprint="fp_test",
        embedding=EmbeddingInfo(dimensions=DIMENSIONS, pooling="mean", context=CONTEXT),
    )


def usage(completion_tokens: int, **details: int) -> Usage:
    """Usage of one answer to a prompt of five tokens."""
    return Usage(prompt_tokens=5, completion_tokens=completion_tokens, **details)


def answer(
    request: GenerationRequest,
    *texts: str,
    reason: FinishReason = "stop",
    prefix: str = "",
    tools_active: bool = False,
    **details: int,
) -> Iterable[Event]:
    """Every answer consists of ``texts``, one token each."""
    yield Accepted(id=1, prompt_tokens=5, reply_prefix=prefix, tools_active=tools_active)
    for index in range(request.n):
        for text in texts:
            yield Delta(id=1, index=index, text=text, tokens=1, logprobs=logprobs(request, text))
        yield Finished(id=1, index=index, reason=reason, usage=usage(len(texts), **details))


def logprobs(request: GenerationRequest, text: str) -> list[TokenLogprob]:
    """One token for ``text``, with as many alternatives as the request wants."""
    if request.logprobs is None:
        return []
    piece = text.encode()
    top = [(index, piece + b"?" * index, -0.5 - index) for index in range(request.logprobs)]
    return [TokenLogprob(id=0, piece=piece, logprob=-0.5, top=top)]


def hello(request: GenerationRequest) -> Iterable[Event]:
    """The usual answer."""
    return answer(request, "Hel", "lo", "!")


def letters(prompt: Prompt) -> int:
    """The letters of a conversation: texts, thoughts and arguments of calls."""
    assert isinstance(prompt, ChatPrompt)
    texts = []
    for message in prompt.messages:
        content = message.content or ""
        parts = [content] if isinstance(content, str) else content
        texts += [part if isinstance(part, str) else getattr(part, "text", "") for part in parts]
        texts += [message.reasoning_content or "", *(c.arguments for c in message.tool_calls)]
    return sum(map(len, texts))


class FakeClient:
    """A model that follows a script; a number in it is a pause, an exception is raised."""

    def __init__(self, info: ModelInfo, script: Script) -> None:
        self.info = info
        self.script = script
        self.requests: list[GenerationRequest] = []
        self.scopes: list[CacheScope] = []
        self.rendered: list[Prompt] = []
        self.letters_are_tokens = False
        self.most_letters: int | None = None
        self.rendering_seconds = 0.0
        self.embedded: list[str | list[int]] = []
        self.embedding_error: Exception | None = None
        self.reading: Reading | None = None
        self.ranked: RankingRequest | None = None
        self.tokenized: TokenizeRequest | None = None
        self.running = 0
        self.cancelled = 0

    async def generate(
        self, request: GenerationRequest, scope: CacheScope
    ) -> AsyncGenerator[Event]:
        """Play the script."""
        self.requests.append(request)
        self.scopes.append(scope)
        self.running += 1
        complete = False
        try:
            for step in self.script(request):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, int | float):
                    await asyncio.sleep(step)
                else:
                    await asyncio.sleep(0)
                    yield step
            complete = True
        finally:
            self.running -= 1
            self.cancelled += not complete

    async def render(self, prompt: Prompt, *, scope: CacheScope = NO_KEY) -> RenderedPrompt:
        """A prompt of two segments, and one of seven tokens for each image."""
        self.rendered.append(prompt)
        self.scopes.append(scope)
        await asyncio.sleep(self.rendering_seconds)
        if self.most_letters is not None and letters(prompt) > self.most_letters:
            numbers = {"tokens": letters(prompt), "most": self.most_letters}
            raise ContextLengthExceeded("Too long.", at=("prompt",), numbers=numbers)
        if self.letters_are_tokens:
            return RenderedPrompt(prompt="", tokens=[0] * letters(prompt), segments=[])
        seen = images_of(prompt.messages) if isinstance(prompt, ChatPrompt) else ()
        image = Segment(text="<image>", ids=[-1] * 7, control=False, source="image")
        images = [image for _ in seen]
        return RenderedPrompt(
            prompt="<|user|>hi" + "<image>" * len(images),
            tokens=[1, 2, *[-1] * 7 * len(images)],
            segments=[
                Segment(
                    text="<|user|>", ids=[1], control=True, source="template", pieces=["<|user|>"]
                ),
                Segment(text="hi", ids=[2], control=False, source="user", pieces=["hi"]),
                *images,
            ],
        )

    async def embed(
        self,
        inputs: list[str | list[int]],
        *,
        dimensions: int | None = None,
        reading: Reading | None = None,
    ) -> Embeddings:
        """An input of length n has n tokens; its embedding is all ones but for a first n."""
        self.embedded = inputs
        self.reading = reading
        if self.embedding_error is not None:
            raise self.embedding_error
        vectors = []
        for given in inputs:
            numbers = [float(len(given)), *[1.0] * ((dimensions or DIMENSIONS) - 1)]
            vectors += [number / math.hypot(*numbers) for number in numbers]
        return Embeddings(
            vectors=struct.pack(f"<{len(vectors)}f", *vectors),
            prompt_tokens=sum(map(len, inputs)),
            cut=[
                place
                for place, given in enumerate(inputs)
                if reading and reading.truncate and len(given) > 10
            ],
        )

    async def rank(self, request: RankingRequest) -> Scores:
        """The logit of a document is its length; of one over 10 characters only those are read."""
        self.ranked = request
        cut = [place for place, document in enumerate(request.documents) if len(document) > 10]
        if cut and not request.truncate:
            raise ContextLengthExceeded("It is too long.", at=("documents", cut[0]))
        lengths = [min(10, len(document)) for document in request.documents]
        return Scores(logits=list(map(float, lengths)), prompt_tokens=sum(lengths), cut=cut)

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Each byte of a text is a token, and 999 is an added one; others spell themselves."""
        self.tokenized = request
        ids, pieces = [], []
        for part in request.parts:
            raw = part.encode() if isinstance(part, str) else f"<{part}>".encode()
            ids += list(raw) if isinstance(part, str) else [part]
            pieces += (
                [raw[at : at + 1] for at in range(len(raw))] if isinstance(part, str) else [raw]
            )
        if request.add_special:
            ids, pieces = [999, *ids], [b"<s>", *pieces]
        pieces = pieces if request.pieces else []
        return Tokens(ids=ids, pieces=pieces, added=int(request.add_special))


class FakePool:
    """One model called ``test``, and one that is broken."""

    def __init__(self, script: Script = hello, reply_format: ReplyFormat | None = None) -> None:
        self.client = FakeClient(model_info("test", reply_format), script)
        self.state: ModelState = "ready"
        self.opening_seconds = 0.0
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.opening_error: Exception | None = None
        self.closed_with: list[float] = []
        self.at_start: dict[str, ModelState] = {}
        self.adapters: list[AdapterFile] = []

    async def close(self, drain_seconds: float) -> None:
        """Remember the call."""
        self.closed_with.append(drain_seconds)

    def add_adapter(self, model_id: str, adapter: AdapterFile) -> str:
        """Remember the adapter."""
        self.adapters.append(adapter)
        return adapted_id(model_id, adapter.name)

    def drop_adapter(self, adapted_model_id: str) -> None:
        """Forget the adapter."""
        adapters = [a for a in self.adapters if adapted_id("test", a.name) != adapted_model_id]
        if len(adapters) == len(self.adapters):
            raise ModelNotFound("no such adapter", at=("model",))
        self.adapters = adapters

    def models(self) -> list[ModelEntry]:
        """Both models."""
        good = ModelEntry(
            id="test",
            path="/models/test.gguf",
            created=1_700_000_000,
            state=self.state,
            reason=None,
            info=self.client.info if self.state == "ready" else None,
            aliases=["alias"],
            outline=OUTLINE,
            adapters=self.adapters,
        )
        broken = msgspec.structs.replace(
            good,
            id="org/broken",
            path="/models/org/broken.gguf",
            state="failed",
            reason="the file is truncated",
            info=None,
            outline=None,
            aliases=[],
        )
        return [good, broken]

    def entry(self, model_id: str) -> ModelEntry:
        """By id or alias."""
        for entry in self.models():
            if model_id in {entry.id, *entry.aliases}:
                return entry
        raise ModelNotFound(f"The model {model_id[:100]!r} does not exist.", at=("model",))

    def see(self) -> None:
        """Let the good model see images from now on."""
        self.client.info = msgspec.structs.replace(self.client.info, projector="mlp")

    async def open(self, model_id: str) -> FakeClient:
        """The client of the good model."""
        if self.entry(model_id).state == "failed":
            raise ModelUnavailable("The model cannot be loaded: the file is truncated.")
        await asyncio.sleep(self.opening_seconds)
        await self.may_open.wait()
        if self.opening_error is not None:
            raise self.opening_error
        return self.client

    async def unload(self, model_id: str) -> None:
        """The good model is unloaded at once."""
        self.entry(model_id)
        self.state = "unloaded"

    def unready(self) -> Mapping[str, ModelState]:
        """Those that a test names."""
        return self.at_start

    def stats(self) -> Mapping[str, EngineStats]:
        """Figures of the good model."""
        return {"test": EngineStats(active=1, kv_cells=CONTEXT, cached_tokens_total=7)}

    def restarts(self) -> Mapping[str, int]:
        """One restart."""
        return {"test": 1}

    def worker_pids(self) -> Mapping[str, int]:
        """This process is the worker."""
        return {"test": os.getpid()}
