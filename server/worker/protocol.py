"""Messages between the API process and a worker, and their framing.

Each frame is a 4-byte little-endian length followed by one MessagePack value. The first frame to a
worker is `Load`; the worker answers with `Progress`, then `Ready` or `LoadFailed`. After that both
sides send freely; all events of one engine step travel in one `StepEvents`.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from server.chat.reply.format import ReplyFormat
from server.errors import ErrorInfo
from server.types import Event, GenerationRequest, ModelKind, Prompt, RenderedPrompt, Sampling

# Exit codes of a worker that gave up by itself.
EXIT_LOAD_FAILED = 3
EXIT_TEMPLATE_STUCK = 4

MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH = struct.Struct("<I")


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker is told about how to serve its model; None means: decide yourself.

    ``ctx_size`` is the most tokens of one request, ``kv_tokens`` the KV cells shared by all.
    ``template_dirs`` are searched in order for families. ``itl_budget_ms`` bounds the inter-token
    latency of running streams while a prompt is prefilled. ``memory_bytes`` is what the model may
    use in all (weights and KV cells).
    """

    ctx_size: int | None = None
    kv_tokens: int | None = None
    parallel: int = 16
    queue_size: int = 256
    threads: int | None = None
    gpu_layers: int | None = None
    batch_size: int = 512
    ubatch_size: int = 512
    flash_attention: Literal["auto", "on", "off"] = "auto"
    kv_type: Literal["f16", "q8_0", "q4_0", "f32"] = "f16"
    itl_budget_ms: int = 250
    prompt_lookup: bool = True
    guard: bool = True
    family: str | None = None
    kind: ModelKind | None = None
    sampling: Sampling = Sampling()
    template_dirs: list[str] = []
    memory_bytes: int | None = None
    safe_mode: bool = False


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Load the model at ``path``; ``settings.safe_mode`` avoids CPU-specific weight repacking.

    With ``vocabulary_only`` no weights are read: the worker then answers only `Render`.
    """

    model_id: str
    path: str
    settings: WorkerSettings
    vocabulary_only: bool = False


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Queue a request; its events come back under its id."""

    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Forget request ``id``, wherever it is; no more events follow for it."""

    id: int


class Render(msgspec.Struct, frozen=True, kw_only=True, tag="render"):
    """Render and tokenise a prompt without generating."""

    id: int
    prompt: Prompt


class Embed(msgspec.Struct, frozen=True, kw_only=True, tag="embed"):
    """Compute embeddings of ``inputs``, each a text or token ids as they are.

    With ``dimensions`` they are cut to so many numbers and have length 1 again.
    """

    id: int
    inputs: list[str | list[int]]
    dimensions: int | None = None


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag="shutdown"):
    """Exit now."""


ToWorker = Load | Generate | Cancel | Render | Embed | Shutdown


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Loading has come this far; ``fraction`` in 0..1."""

    stage: Literal["weights", "warmup", "template"]
    fraction: float


class EmbeddingInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model's embeddings: numbers in each, and the most tokens of a text.

    ``pooling`` says how the tokens' embeddings become the text's: their mean, or one of them.
    """

    dimensions: int
    pooling: Literal["mean", "cls", "last"]
    context: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker found out about its model.

    ``context_source`` says where ``context`` (most tokens of one request) came from;
    ``template_source`` is such as "gguf", "family chatml", "family transcript". ``capabilities``
    are the probe's verdicts by name; ``reply_format`` is None when replies are content only.
    ``memory_bytes`` is what weights, KV cells and buffers take together, where that is known.
    ``template_variables`` are those a request may set, None where that is not known. A model made
    for embeddings alone does not generate. ``embedding`` is None where weights were not loaded.
    """

    model_id: str
    path: str
    architecture: str
    parameters: int
    quantization: str
    file_bytes: int
    vocabulary: int
    kind: ModelKind
    kind_reasons: list[str]
    context: int
    context_source: str
    context_train: int
    kv_cells: int
    parallel: int
    threads: int
    gpu_layers: int
    family: str | None
    template_source: str
    template_sha256: str
    capabilities: dict[str, bool]
    reply_format: ReplyFormat | None
    sampling: Sampling
    guard: bool
    safe_mode: bool
    fingerprint: str
    memory_bytes: int | None = None
    template_variables: list[str] | None = None
    generates: bool = True
    embedding: EmbeddingInfo | None = None
    warnings: list[str] = []


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
    """Answer to `Embed`: the embeddings one after another, or why there are none.

    ``vectors`` are little-endian float32; ``prompt_tokens`` counts the tokens of all inputs.
    """

    id: int
    vectors: bytes = b""
    prompt_tokens: int = 0
    error: ErrorInfo | None = None


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters (``_total``, since the worker started) and gauges of the engine."""

    active: int = 0
    waiting: int = 0
    kv_cells: int = 0
    kv_cells_used: int = 0
    threads: int = 0
    steps_total: int = 0
    prompt_tokens_total: int = 0
    generated_tokens_total: int = 0
    cached_tokens_total: int = 0
    preemptions_total: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent about once a second; ``step_seconds`` is how long the current step has been running."""

    step_seconds: float
    stats: EngineStats


FromWorker = Progress | Ready | LoadFailed | StepEvents | Rendered | Embedded | Heartbeat

to_worker_decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_encoder = msgspec.msgpack.Encoder()


def frame(message: ToWorker | FromWorker) -> bytes:
    """``message`` as one frame, length included."""
    payload = _encoder.encode(message)
    return _LENGTH.pack(len(payload)) + payload


class FrameBuffer:
    """Collects received bytes and gives back whole payloads, in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads completed by ``data``. Raises ValueError on a frame over the limit."""
        self._buffer += data
        payloads = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {length} bytes exceeds {MAX_FRAME_BYTES}")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            payloads.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return payloads
