"""A worker that replays raw model text, so that agents can be led through whole sessions.

The "model file" is a script in JSON: the format in which the text is written, the context in
tokens (4 characters each), and turns. A request gets the first turn that no request got yet and
whose ``when`` occurs in its last message. What requests bring is written beside the script.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from server.core.errors import ContextLengthExceeded, DragomanError, QueueFull
from server.core.events import Accepted, Delta, Event, Finished, FinishReason, Usage
from server.core.model_info import EngineStats, ModelInfo
from server.core.native_prompt import RenderedPrompt
from server.core.request import ChatPrompt, GenerationRequest, Message, Prompt, TextPart
from server.core.sampling import Sampling
from server.reply.builtin_formats import builtin_format
from server.worker.protocol import (
    Generate,
    Heartbeat,
    Load,
    LoadFailed,
    Ready,
    Render,
    Rendered,
    StepEvents,
    refusal,
)
from server.worker.serve.connection import Connection

_CHARACTERS_PER_TOKEN = 4
_HEARTBEAT_SECONDS = 0.2


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One answer.

    Attributes:
        say: The raw text of the model.
        when: Occurs in the request's last message.
        tools: Whether the request offers tools; None where that does not matter.
        reason: Why the answer ends.
        prefix: What the prompt already opened of the reply.
        pause: Seconds before the first token.
        dies: The worker dies after the text.
        retry_after: The queue is full; seconds until it is not.
    """

    say: str = ""
    when: str = ""
    tools: bool | None = None
    reason: FinishReason = "stop"
    prefix: str = ""
    pause: float = 0.0
    dies: bool = False
    retry_after: float | None = None


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What a scripted model says."""

    turns: list[Turn]
    reply_format: str = "hermes"
    context: int = 100_000


def requests_file(script: Path) -> Path:
    """The file that keeps the requests, one in JSON a line."""
    return script.with_suffix(".requests")


class ScriptedWorker:
    def __init__(self, connection: Connection, load: Load) -> None:
        self._send = connection.send
        self._connection = connection
        self._path = Path(load.path)
        self._script = msgspec.json.decode(self._path.read_bytes(), type=Script)
        self._used = self._path.with_suffix(".used")
        self._load = load

    def run(self) -> None:
        self._send(Ready(info=self._info()))
        threading.Thread(target=self._beat, daemon=True).start()
        while message := self._connection.receive():
            match message:
                case Generate():
                    self._keep(message.request)
                    threading.Thread(target=self._generate, args=(message,), daemon=True).start()
                case Render(prompt=prompt):
                    tokens = list(range(_tokens(prompt)))
                    rendered = RenderedPrompt(prompt="scripted", tokens=tokens, segments=[])
                    self._send(Rendered(id=message.id, prompt=rendered))

    def _beat(self) -> None:
        while True:
            self._send(Heartbeat(step_seconds=0.0, stats=EngineStats()))
            time.sleep(_HEARTBEAT_SECONDS)

    def _keep(self, request: GenerationRequest) -> None:
        with requests_file(self._path).open("ab") as kept:
            kept.write(msgspec.json.encode(request) + b"\n")

    def _generate(self, message: Generate) -> None:
        try:
            self._answer(message)
        except DragomanError as error:
            self._send(refusal(message, error))

    def _answer(self, message: Generate) -> None:
        prompt = message.request.prompt
        size = _tokens(prompt)
        if size > self._script.context:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self._script.context} tokens, but the "
                f"prompt has {size} tokens.",
                at=("prompt",),
                numbers={"tokens": size, "most": self._script.context},
            )
        tools = isinstance(prompt, ChatPrompt) and bool(prompt.tools)
        turn = self._turn(_last_text(prompt), tools=tools)
        if turn.retry_after is not None:
            raise QueueFull("The model's queue is full.", retry_after=turn.retry_after)
        time.sleep(turn.pause)
        tools = tools and prompt.tool_choice.mode != "none"  # type: ignore[union-attr]
        self._tell(
            Accepted(
                id=message.id, prompt_tokens=size, reply_prefix=turn.prefix, tools_active=tools
            )
        )
        step = _CHARACTERS_PER_TOKEN
        pieces = [turn.say[at : at + step] for at in range(0, len(turn.say), step)]
        for piece in pieces:
            self._tell(Delta(id=message.id, index=0, text=piece, tokens=1))
        if turn.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        usage = Usage(prompt_tokens=size, completion_tokens=len(pieces))
        self._tell(Finished(id=message.id, index=0, reason=turn.reason, usage=usage))

    def _tell(self, event: Event) -> None:
        self._send(StepEvents(events=[event]))

    def _turn(self, text: str, *, tools: bool) -> Turn:
        used = self._used.read_text().split() if self._used.exists() else []
        for number, turn in enumerate(self._script.turns):
            fits = turn.when in text and turn.tools in {None, tools}
            if fits and str(number) not in used:
                with self._used.open("a") as marked:
                    marked.write(f"{number}\n")
                return turn
        raise DragomanError(f"The script has no turn for: {text[-300:]}")

    def _info(self) -> ModelInfo:
        context = self._script.context
        return ModelInfo(
            model_id=self._load.model_id,
            path=self._load.path,
            architecture="scripted",
            parameters=1,
            quantization="F16",
            file_bytes=1,
            vocabulary=context,
            kind="instruct",
            kind_reasons=[],
            context=context,
            context_source="script",
            context_train=context,
            kv_cells=context,
            parallel=4,
            threads=1,
            gpu_layers=0,
            family=None,
            template_source="gguf",
            template_sha256="",
            capabilities={"tools": True},
            reply_format=builtin_format(self._script.reply_format),
            sampling=Sampling(),
            guard=True,
            safe_mode=False,
            fingerprint="scripted",
            template_variables=["enable_thinking", "reasoning_effort"],
        )


def _tokens(prompt: Prompt) -> int:
    return len(msgspec.json.encode(prompt)) // _CHARACTERS_PER_TOKEN


def _last_text(prompt: Prompt) -> str:
    return _text(prompt.messages[-1]) if isinstance(prompt, ChatPrompt) else ""


def _text(message: Message) -> str:
    content = message.content or ""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(socket.socket(fileno=parser.parse_args().fd))
    load = connection.receive()
    if not isinstance(load, Load):
        return
    try:
        worker = ScriptedWorker(connection, load)
    except (OSError, msgspec.DecodeError) as error:
        connection.send(LoadFailed(message=str(error)))
        sys.exit(1)
    worker.run()
    os._exit(0)


if __name__ == "__main__":
    main()
