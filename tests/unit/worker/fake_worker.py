"""A worker that speaks the protocol and does as the "model" tells it.

The model is a text file whose first word says how loading goes; the first word of a prompt says how
the request goes. No engine, no weights, but a real process that really dies.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

from server.core.embeddings import Embeddings
from server.core.errors import ContextLengthExceeded, ConversationError, InvalidRequest
from server.core.events import Accepted, Delta, Event, Failed, Finished, Usage
from server.core.model_info import EngineStats, ModelInfo
from server.core.native_prompt import RenderedPrompt
from server.core.request import GenerationRequest, TextPrompt
from server.core.sampling import Sampling
from server.worker.protocol import (
    Cancel,
    Embed,
    Embedded,
    FrameBuffer,
    FromWorker,
    Generate,
    Heartbeat,
    Load,
    LoadFailed,
    Progress,
    Ready,
    Render,
    Rendered,
    Shutdown,
    StepEvents,
    ToWorker,
    frame,
    to_worker_decoder,
)

BEAT_SECONDS = 0.02
STEP_SECONDS = 0.002
SLOW_STEP_SECONDS = 0.05


def die(by: signal.Signals) -> None:
    os.kill(os.getpid(), by)
    time.sleep(10)


class FakeWorker:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.buffer = FrameBuffer()
        self.active: dict[int, tuple[GenerationRequest, int]] = {}
        self.embedding: set[int] = set()
        self.cancelled = 0
        self.step_seconds = 0.0
        self.next_beat = 0.0
        self.step_time = STEP_SECONDS
        self.lives = 0

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self.connection, selectors.EVENT_READ)
        while True:
            for message in self.received() if selector.select(self.step_time) else ():
                self.handle(message)
            if time.monotonic() >= self.next_beat:
                self.beat()
            if self.active:
                self.step()

    def received(self) -> list[ToWorker]:
        data = self.connection.recv(65536)
        if not data:
            sys.exit(0)
        return [to_worker_decoder.decode(payload) for payload in self.buffer.feed(data)]

    def send(self, message: FromWorker) -> None:
        self.connection.sendall(frame(message))

    def beat(self) -> None:
        self.next_beat = time.monotonic() + BEAT_SECONDS
        stats = EngineStats(active=len(self.active), waiting=self.cancelled)
        self.send(Heartbeat(step_seconds=self.step_seconds, stats=stats))

    def handle(self, message: ToWorker) -> None:
        match message:
            case Load():
                self.load(message)
            case Generate():
                self.start(message)
            case Cancel():
                known = self.active.pop(message.id, None) or message.id in self.embedding
                self.cancelled += bool(known)
            case Render():
                self.render(message)
            case Embed():
                self.embed(message)
            case Shutdown():
                sys.exit(0)

    def load(self, load: Load) -> None:
        path = Path(load.path)
        with path.with_suffix(".loads").open("a") as loads:
            loads.write(f"{os.getpid()} safe_mode={load.settings.safe_mode}\n")
        print(f"loading {path.name}", file=sys.stderr, flush=True)
        self.lives = len(path.with_suffix(".loads").read_text().splitlines())
        self.send(Progress(stage="weights", fraction=0.5))
        try:
            behaviour, *words = path.read_text().split()
        except OSError as error:
            self.refuse(str(error))
        match behaviour:
            case "refuse":
                self.refuse(" ".join(words))
            case "crash" if words[0] == "always" or not load.settings.safe_mode:
                die(signal.Signals[words[-1]])
            case "exit":
                sys.exit(int(words[0]))
            case "slow":
                self.step_time = SLOW_STEP_SECONDS
                time.sleep(0.15)
            case "silent":
                time.sleep(60)
            case "babble":
                self.connection.sendall(b"\x03\x00\x00\x00abc")
        used = int(words[0]) if behaviour == "uses" else None
        self.send(Ready(info=model_info(load, used)))
        if behaviour == "short-lived":
            die(signal.SIGKILL)

    def refuse(self, why: str) -> None:
        self.send(LoadFailed(message=why))
        sys.exit(1)

    def start(self, message: Generate) -> None:
        id_, request = message.id, message.request
        match first_word(request.prompt):
            case "reject":
                error = InvalidRequest("rejected", at=("prompt",)).info
                self.send(StepEvents(events=[Failed(id=id_, error=error)]))
                return
            case "hang":
                time.sleep(60)
            case "stick":
                self.step_seconds = 1e9
        self.send(StepEvents(events=[Accepted(id=id_, prompt_tokens=3)]))
        if first_word(request.prompt) == "flood":
            self.send(StepEvents(events=[delta(id_, 0, "x")] * 20_000))
        self.active[id_] = (request, 0)

    def step(self) -> None:
        events: list[Event] = []
        for id_, (request, done) in list(self.active.items()):
            if done == (request.max_tokens or 1_000_000):
                del self.active[id_]
                usage = Usage(prompt_tokens=3, completion_tokens=done)
                events += [
                    Finished(id=id_, index=index, reason="length", usage=usage)
                    for index in range(request.n)
                ]
            else:
                self.active[id_] = (request, done + 1)
                events += [delta(id_, index, f"{done} ") for index in range(request.n)]
            if first_word(request.prompt) == "crash" and done == 2:
                die(signal.SIGSEGV)
        self.send(StepEvents(events=events))

    def render(self, render: Render) -> None:
        match first_word(render.prompt):
            case "unrenderable":
                error = ConversationError("roles must alternate").info
                self.send(Rendered(id=render.id, error=error))
            case "unanswered":
                pass
            case "patient" if self.lives == 1:
                pass
            case _:
                rendered = RenderedPrompt(prompt="rendered", tokens=[1, 2], segments=[])
                self.send(Rendered(id=render.id, prompt=rendered))

    def embed(self, request: Embed) -> None:
        match request.inputs[0]:
            case "refused":
                error = ContextLengthExceeded("too long", at=("input", 0)).info
                self.send(Embedded(id=request.id, error=error))
            case "unanswered":
                self.embedding.add(request.id)
            case "patient" if self.lives == 1:
                pass
            case _:
                vectors = b"\0" * 4 * len(request.inputs) * (request.dimensions or 1)
                embeddings = Embeddings(vectors=vectors, prompt_tokens=2)
                self.send(Embedded(id=request.id, embeddings=embeddings))


def first_word(prompt: object) -> str:
    return prompt.text[:20].split()[0] if isinstance(prompt, TextPrompt) else ""


def delta(id_: int, index: int, text: str) -> Delta:
    return Delta(id=id_, index=index, text=text, tokens=1)


def model_info(load: Load, memory_bytes: int | None) -> ModelInfo:
    return ModelInfo(
        model_id=load.model_id,
        path=load.path,
        architecture="fake",
        parameters=1,
        quantization="F16",
        file_bytes=1,
        vocabulary=10,
        kind="base",
        kind_reasons=[],
        context=128,
        context_source="fake",
        context_train=128,
        kv_cells=128,
        parallel=1,
        threads=1,
        gpu_layers=0,
        family=None,
        template_source="none",
        template_sha256="",
        capabilities={},
        reply_format=None,
        sampling=Sampling(),
        guard=True,
        safe_mode=load.settings.safe_mode,
        fingerprint="fake",
        memory_bytes=memory_bytes,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    FakeWorker(socket.socket(fileno=parser.parse_args().fd)).run()
