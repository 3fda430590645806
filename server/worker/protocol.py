"""Messages between the API process and a worker, and their framing.

Each frame is a 4-byte little-endian length followed by one MessagePack value. The first frame to a
worker is `Load`; the worker answers with `Progress`, then `Ready` or `LoadFailed`. After that both
sides send freely; all events of one engine step travel in one `StepEvents`.
"""

from __future__ import annotations

import struct
import sys
from typing import Any, Literal

import msgspec

from server.core.embeddings import Embeddings, Reading
from server.core.errors import DragomanError, ErrorInfo, InvalidRequest
from server.core.events import Event, Failed
from server.core.model_info import EngineStats, ModelInfo
from server.core.native_prompt import RenderedPrompt
from server.core.ranking import RankingRequest, Scores
from server.core.request import NO_KEY, CacheScope, GenerationRequest, Prompt
from server.core.tokens import TokenizeRequest, Tokens
from server.core.worker_settings import WorkerSettings

# Exit codes of a worker that gave up by itself.
EXIT_LOAD_FAILED = 3
EXIT_TEMPLATE_STUCK = 4

# A choice, above the largest messages there are: 2,048 embeddings of 16,384 numbers take 128 MiB.
MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH = struct.Struct("<I")
LENGTH_BYTES = _LENGTH.size


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Load the model at ``path``; ``settings.safe_mode`` avoids CPU-specific weight repacking.

    With ``vocabulary_only`` no weights are read: the worker then answers `Render` alone.
    """

    model_id: str
    path: str
    settings: WorkerSettings
    vocabulary_only: bool = False


class AppliedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """The adapter in the file at ``path``, and how much of it is applied."""

    name: str
    path: str
    scale: float


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Queue a request; its events come back under ``id``.

    It shares cached prefixes with the requests of the same ``scope`` and ``adapters``, which are
    those that the request names. One that ``gives_way`` stands behind all others. Images whose
    files the worker holds come without their bytes: ``held`` has the number of each, in order.
    """

    id: int
    scope: CacheScope
    request: GenerationRequest
    gives_way: bool = False
    adapters: list[AppliedAdapter] = []
    held: list[int] = []


class HoldFile(msgspec.Struct, frozen=True, kw_only=True, tag="hold_file"):
    """Hold the file of an image under ``number``, for requests to come."""

    number: int
    data: bytes


class DropFiles(msgspec.Struct, frozen=True, kw_only=True, tag="drop_files"):
    """Hold the files of these numbers no longer."""

    numbers: list[int]


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Forget request ``id``, wherever it is. Nothing more is sent for it."""

    id: int


class Render(msgspec.Struct, frozen=True, kw_only=True, tag="render"):
    """Render and tokenise a prompt without generating; the ``adapters`` are loaded.

    What is known of its images is shared with the requests of the same ``scope``.
    """

    id: int
    prompt: Prompt
    scope: CacheScope = NO_KEY
    adapters: list[AppliedAdapter] = []


class Embed(msgspec.Struct, frozen=True, kw_only=True, tag="embed"):
    """Compute embeddings of ``inputs``, each a text or token ids that are taken as they are.

    With ``dimensions`` each is cut to that many numbers and scaled to length 1 again. One that
    ``gives_way`` waits for all others.
    """

    id: int
    inputs: list[str | list[int]]
    dimensions: int | None = None
    reading: Reading = Reading()
    gives_way: bool = False


class Rank(msgspec.Struct, frozen=True, kw_only=True, tag="rank"):
    """Score documents for a query; one that ``gives_way`` waits for all others."""

    id: int
    request: RankingRequest
    gives_way: bool = False


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """Find the tokens of texts, or the text of tokens."""

    id: int
    request: TokenizeRequest


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag="shutdown"):
    """Exit now."""


Request = Generate | Cancel | Render | Embed | Rank | Tokenize
ToWorker = Load | Request | HoldFile | DropFiles | Shutdown


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """How far loading has come; ``fraction`` of the stage in 0..1."""

    stage: Literal["weights", "warmup", "template"]
    fraction: float


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded, warmed up and serving."""

    info: ModelInfo


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True, tag="load_failed"):
    """The model cannot be loaded; the worker exits after this."""

    message: str


class StepEvents(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """All events of one engine step, for all requests."""

    events: list[Event]


class Rendered(msgspec.Struct, frozen=True, kw_only=True, tag="rendered"):
    """Answer to `Render`: the prompt, or why there is none."""

    id: int
    prompt: RenderedPrompt | None = None
    error: ErrorInfo | None = None


class Embedded(msgspec.Struct, frozen=True, kw_only=True, tag="embedded"):
    """Answer to `Embed`: the embeddings, or why there are none."""

    id: int
    embeddings: Embeddings | None = None
    error: ErrorInfo | None = None


class Ranked(msgspec.Struct, frozen=True, kw_only=True, tag="ranked"):
    """Answer to `Rank`: the scores, or why there are none."""

    id: int
    scores: Scores | None = None
    error: ErrorInfo | None = None


class Tokenized(msgspec.Struct, frozen=True, kw_only=True, tag="tokenized"):
    """Answer to `Tokenize`: the tokens, or why there are none."""

    id: int
    tokens: Tokens | None = None
    error: ErrorInfo | None = None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent about once a second; ``step_seconds`` is how long the current step has been running.

    A worker that is ``preparing`` something may then be silent for as long as one that loads.
    """

    step_seconds: float
    stats: EngineStats
    preparing: bool = False


class AdapterTried(msgspec.Struct, frozen=True, kw_only=True, tag="adapter_tried"):
    """A request has named the adapter at ``path``; ``error`` says why it cannot be loaded.

    Sent where it cannot, and where one that could not be loaded before now can.
    """

    path: str
    error: str | None


Answer = Rendered | Embedded | Ranked | Tokenized
"""The one message that answers a request which does not generate."""

AboutRequests = StepEvents | Answer | AdapterTried
"""What a worker says of requests."""

FromWorker = Progress | Ready | LoadFailed | Heartbeat | AboutRequests


def refusal(
    request: Generate | Render | Embed | Rank | Tokenize, error: DragomanError
) -> StepEvents | Answer:
    """The answer to ``request`` that reports ``error``; the last one for it."""
    match request:
        case Generate(id=id_):
            return StepEvents(events=[Failed(id=id_, error=error.info)])
        case Render(id=id_):
            return Rendered(id=id_, error=error.info)
        case Embed(id=id_):
            return Embedded(id=id_, error=error.info)
        case Rank(id=id_):
            return Ranked(id=id_, error=error.info)
        case Tokenize(id=id_):
            return Tokenized(id=id_, error=error.info)


to_worker_decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_encoder = msgspec.msgpack.Encoder()


def frame(message: ToWorker | FromWorker) -> bytearray:
    """``message`` as one frame, length included.

    MessagePack has no room for integers of more than 64 bits, which only schemas and variables of
    templates may have: they are the nearest doubles, which is what most readers of JSON make of
    them. Raises InvalidRequest where one is nested too deeply for that.
    """
    whole = bytearray(LENGTH_BYTES)
    try:
        _encoder.encode_into(message, whole, LENGTH_BYTES)
    except OverflowError:
        try:
            within = _within_64_bits(msgspec.to_builtins(message, **_AS_BYTES))
        except RecursionError as error:
            raise InvalidRequest("The request is nested too deeply.") from error
        _encoder.encode_into(within, whole, LENGTH_BYTES)
    _LENGTH.pack_into(whole, 0, len(whole) - LENGTH_BYTES)
    return whole


def request_frame(message: ToWorker) -> bytearray:
    """`frame`, which the worker takes; raises InvalidRequest for one over the limit.

    Only what is stored makes a request so long: a body has its own limit.
    """
    whole = frame(message)
    if len(whole) - LENGTH_BYTES > MAX_FRAME_BYTES:
        raise InvalidRequest(
            "The request, with all that it goes on from, has more than "
            f"{MAX_FRAME_BYTES >> 20} MiB."
        )
    return whole


def answer_frame(message: FromWorker) -> bytearray:
    """`frame`, which the API process takes: a refusal in place of an answer over the limit."""
    whole = frame(message)
    if len(whole) - LENGTH_BYTES > MAX_FRAME_BYTES and isinstance(message, Answer):
        error = InvalidRequest(f"The answer has more than {MAX_FRAME_BYTES >> 20} MiB.")
        whole = frame(type(message)(id=message.id, error=error.info))
    return whole


_AS_BYTES: dict[str, Any] = {"builtin_types": (bytes, bytearray, memoryview)}


def _within_64_bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _within_64_bits(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_within_64_bits(each) for each in value]
    if not isinstance(value, int) or -(2**63) <= value < 2**64:
        return value
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -sys.float_info.max


def payload_bytes(data: bytearray | memoryview, start: int = 0) -> int:
    """How long the payload is whose frame begins at ``start``; raises ValueError over the limit."""
    (length,) = _LENGTH.unpack_from(data, start)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"frame of {length} bytes exceeds {MAX_FRAME_BYTES}")
    return int(length)


class FrameBuffer:
    """Collects received bytes and returns whole payloads, in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[memoryview]:
        """The payloads completed by ``data``. Raises ValueError on a frame over the limit."""
        self._buffer += data
        received = memoryview(self._buffer)
        payloads = []
        start = 0
        while len(received) - start >= LENGTH_BYTES:
            end = start + LENGTH_BYTES + payload_bytes(received, start)
            if len(received) < end:
                break
            payloads.append(received[start + LENGTH_BYTES : end])
            start = end
        if payloads:  # they are views of this buffer, since embeddings make megabytes
            self._buffer = bytearray(received[start:])
        return payloads
