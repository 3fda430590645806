"""The binding to llama.cpp: the only file that imports llama_cpp.

Thin on purpose: it owns pointers, checks what llama.cpp would assert on, and hands out numpy views.
See llama.h for the meaning of each call.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeVar

import llama_cpp
import msgspec
import numpy as np
from llguidance import LLTokenizer
from numpy.typing import NDArray

from server.engine.backend import Batch, DecodeFailed, NoCellsLeft
from server.vocabulary import SpecialToken, TokenType

KvType = Literal["f32", "f16", "q8_0", "q4_0"]
Pooling = Literal["mean", "cls", "last"]
T = TypeVar("T")

_GGML_TYPES = {
    "f32": llama_cpp.GGML_TYPE_F32,
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}
_SPECIAL_TYPES: dict[int, TokenType] = {
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL: "control",
    llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN: "unknown",
    llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED: "user_defined",
}
_SPECIAL_BITS = sum(_SPECIAL_TYPES)
_POOLINGS: dict[str, Pooling] = {
    str(llama_cpp.LLAMA_POOLING_TYPE_MEAN): "mean",
    str(llama_cpp.LLAMA_POOLING_TYPE_CLS): "cls",
    str(llama_cpp.LLAMA_POOLING_TYPE_LAST): "last",
}
# Texts that share a computation of embeddings. A recurrent model holds a state for each.
_TEXTS_TOGETHER = 16
# llama.cpp computes and keeps the logits of every token whose embedding is asked for, a whole
# vocabulary each; what can be read in parts is read in parts of this many tokens.
_EMBEDDED_TOKENS_PER_PART = 128
# Pre-tokenizers that fall back to std::regex recurse once per character: one megabyte of the same
# letter needs a stack far beyond a thread's default. The pages are only touched when needed.
_BIG_STACK_BYTES = 1 << 30
_BIG_STACK_FROM_CHARACTERS = 8_000
_WARNING = 3  # ggml_log_level
_CONTINUATION = 5


class LoadError(Exception):
    """A model or context that llama.cpp would not load; the message holds its last log lines."""


class _Log:
    """Collects llama.cpp's warnings for error messages and passes them to stderr."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._shown = False
        self._callback = llama_cpp.llama_log_callback(self._receive)
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: object) -> None:
        if level != _CONTINUATION:
            self._shown = level >= _WARNING
        if self._shown:
            line = text.decode("utf-8", "replace").rstrip()
            self.lines = [*self.lines[-4:], line]
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def take(self) -> str:
        """The lines since the last call, as one sentence."""
        lines, self.lines = self.lines, []
        return "; ".join(line for line in lines if line)


_log = _Log()
_stack_size_lock = threading.Lock()
llama_cpp.llama_backend_init()


def gpu_available() -> bool:
    """Whether this build of llama.cpp can offload layers to a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def build_description() -> str:
    """The llama.cpp build and what it uses of this CPU, as llama.cpp prints it."""
    system: bytes = llama_cpp.llama_print_system_info()
    return f"llama-cpp-python {llama_cpp.__version__}; {system.decode('utf-8', 'replace').strip()}"


def _with_big_stack(call: Callable[[], T]) -> T:
    """The result of ``call``, run on a thread whose stack regex recursion cannot exhaust."""
    result: list[T] = []
    with _stack_size_lock:
        previous = threading.stack_size(_BIG_STACK_BYTES)
        try:
            thread = threading.Thread(target=lambda: result.append(call()))
            thread.start()
        finally:
            threading.stack_size(previous)
    thread.join()
    return result[0]


class LlamaVocabulary:
    """A model's tokenizer (see `server.vocabulary.Vocabulary`)."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model  # keeps the pointer below alive
        self._pointer = llama_cpp.llama_model_get_vocab(model.pointer)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self._pointer))
        self.bos = self._token_or_none(llama_cpp.llama_vocab_bos)
        self.eos = self._token_or_none(llama_cpp.llama_vocab_eos)
        self.add_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._pointer))
        self.add_eos = bool(llama_cpp.llama_vocab_get_add_eos(self._pointer))
        is_spm = llama_cpp.llama_vocab_type(self._pointer) == llama_cpp.LLAMA_VOCAB_TYPE_SPM
        self.add_space_prefix = (
            model.metadata.get("tokenizer.ggml.add_space_prefix", str(is_spm).lower()) == "true"
        )
        self._pieces: dict[int, bytes] = {}

    @property
    def pointer(self) -> Any:
        """The llama_vocab pointer, valid while the model is loaded."""
        return self._pointer

    def _token_or_none(self, getter: Callable[[Any], int]) -> int | None:
        token = int(getter(self._pointer))
        return None if token == llama_cpp.LLAMA_TOKEN_NULL else token

    @cached_property
    def special_tokens(self) -> list[SpecialToken]:
        """All CONTROL, UNKNOWN and USER_DEFINED tokens, by id."""
        attributes = llama_cpp.llama_vocab_get_attr
        found = []
        for token in range(self.size):
            bits = attributes(self._pointer, token) & _SPECIAL_BITS
            if bits:
                kind = next(name for bit, name in _SPECIAL_TYPES.items() if bits & bit)
                found.append(SpecialToken(token, self.text(token), kind))
        return found

    @cached_property
    def end_of_generation_tokens(self) -> frozenset[int]:
        """Every token that ends an answer."""
        is_end = llama_cpp.llama_vocab_is_eog
        return frozenset(t for t in range(self.size) if is_end(self._pointer, t))

    @cached_property
    def fill_in_the_middle(self) -> tuple[int, int, int] | None:
        """The prefix, suffix and middle tokens, where the vocabulary has all three."""
        tokens = tuple(
            self._token_or_none(getter)
            for getter in (
                llama_cpp.llama_vocab_fim_pre,
                llama_cpp.llama_vocab_fim_suf,
                llama_cpp.llama_vocab_fim_mid,
            )
        )
        prefix, suffix, middle = tokens
        if prefix is None or suffix is None or middle is None:
            return None
        return prefix, suffix, middle

    def guidance_tokenizer(self) -> Any:
        """The tokenizer in llguidance's form; takes 0.2 s at 49k and 1.6 s at 262k tokens.

        Where a grammar may end, any end-of-generation token may come, not EOS alone. CONTROL and
        UNKNOWN tokens are no text (llguidance marks them by a byte that UTF-8 never has), but
        USER_DEFINED ones are: llguidance's own adapter would ban such as ``<b>`` from all strings.
        """
        ends = sorted(self.end_of_generation_tokens)
        no_text = {each.id for each in self.special_tokens if each.type != "user_defined"}
        return LLTokenizer.from_llamacpp(
            tokens=[
                b"\xff" * (token in no_text) + self._read_piece(token) for token in range(self.size)
            ],
            vocab_ptr=self._pointer,
            tokenize_fptr=ctypes.cast(
                llama_cpp.llama_cpp._lib.llama_tokenize,  # noqa: SLF001 - it asks for the address
                ctypes.c_void_p,
            ).value,
            eos_token=ends or llama_cpp.llama_vocab_eos(self._pointer),
            slices=None,
        )

    def text(self, token: int) -> str:
        """The token as the vocabulary writes it, such as ``<|im_end|>``."""
        raw: bytes | None = llama_cpp.llama_vocab_get_text(self._pointer, token)
        return (raw or b"").decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """The bytes the token stands for in text, control tokens included."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self._pointer, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def tokenize(self, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """Token ids of ``text``; with ``add_special`` between those that the vocabulary wants.

        Those are such as BOS and EOS, or [CLS] and [SEP].
        """
        if len(text) >= _BIG_STACK_FROM_CHARACTERS:
            return _with_big_stack(lambda: self._tokenize(text, parse_special, add_special))
        return self._tokenize(text, parse_special, add_special)

    def _tokenize(self, text: str, parse_special: bool, add_special: bool) -> list[int]:
        raw = text.encode("utf-8")
        room = len(raw) + 2
        while True:
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(
                self._pointer, raw, len(raw), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def is_end_of_generation(self, token: int) -> bool:
        """Whether generating the token ends an answer."""
        return bool(llama_cpp.llama_vocab_is_eog(self._pointer, token))

    def is_control(self, token: int) -> bool:
        """Whether the token is a control token."""
        return bool(llama_cpp.llama_vocab_is_control(self._pointer, token))


class LlamaModel:
    """A GGUF file's vocabulary, metadata and (unless ``vocabulary_only``) weights."""

    def __init__(
        self,
        path: str,
        *,
        vocabulary_only: bool = False,
        safe_mode: bool = False,
        gpu_layers: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Load ``path``; ``gpu_layers`` None means all, where the build has a GPU.

        Raises:
            LoadError: with llama.cpp's reason.
        """
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = vocabulary_only
        parameters.use_extra_bufts = not safe_mode
        parameters.n_gpu_layers = -1 if gpu_layers is None else gpu_layers

        def report(fraction: float, _: object) -> bool:
            if progress is not None:
                progress(fraction)
            return True

        callback = llama_cpp.llama_progress_callback(report)
        parameters.progress_callback = callback
        _log.take()
        self.pointer = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self.pointer:
            raise LoadError(_log.take() or "llama.cpp gave no reason")
        self.metadata = self._read_metadata()
        self.vocabulary = LlamaVocabulary(self)

    def _read_metadata(self) -> dict[str, str]:
        metadata = {}
        for index in range(llama_cpp.llama_model_meta_count(self.pointer)):
            key = self._string(llama_cpp.llama_model_meta_key_by_index, index)
            metadata[key] = self._string(llama_cpp.llama_model_meta_val_str_by_index, index)
        return metadata

    def _string(self, getter: Callable[..., int], *arguments: int) -> str:
        """A string that llama.cpp writes into a buffer, snprintf-like."""
        size = 1024
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = getter(self.pointer, *arguments, buffer, size)
            if length < size:
                return buffer.raw[: max(length, 0)].decode("utf-8", "replace")
            size = length + 1

    @property
    def context_train(self) -> int:
        """The context length the model was trained with, in tokens."""
        return int(llama_cpp.llama_model_n_ctx_train(self.pointer))

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return int(llama_cpp.llama_model_n_params(self.pointer))

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return int(llama_cpp.llama_model_n_layer(self.pointer))

    @property
    def partial_removal(self) -> bool:
        """Whether its memory can be cut back to an earlier token (not: recurrent, hybrid)."""
        return not (
            llama_cpp.llama_model_is_recurrent(self.pointer)
            or llama_cpp.llama_model_is_hybrid(self.pointer)
        )

    @property
    def is_supported(self) -> bool:
        """Whether it generates or embeds (no encoder-decoder, no diffusion, no reranker)."""
        return (
            bool(llama_cpp.llama_model_has_decoder(self.pointer))
            and not llama_cpp.llama_model_has_encoder(self.pointer)
            and not llama_cpp.llama_model_is_diffusion(self.pointer)
            and self._stated_pooling != str(llama_cpp.LLAMA_POOLING_TYPE_RANK)
        )

    @property
    def embedding_size(self) -> int:
        """Numbers in an embedding."""
        return int(llama_cpp.llama_model_n_embd_out(self.pointer))

    @property
    def pooling(self) -> Pooling | None:
        """How token embeddings become a text's; files of models made for that state it."""
        return _POOLINGS.get(self._stated_pooling)

    @property
    def _stated_pooling(self) -> str:
        architecture = self.metadata.get("general.architecture")
        return self.metadata.get(f"{architecture}.pooling_type", "")

    @cached_property
    def reads_in_parts(self) -> bool:
        """Whether no token attends to later ones, so that a text can be computed in parts.

        Otherwise it is an encoder such as BERT. Only a context knows. Raises LoadError.
        """
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 1
        pointer = _new_context(self, parameters)
        has_memory = bool(llama_cpp.llama_get_memory(pointer))
        is_causal = bool(llama_cpp.llama_get_causal_attn(pointer))
        llama_cpp.llama_free(pointer)
        return has_memory and is_causal

    @property
    def fully_attended(self) -> bool:
        """Whether every layer attends to the whole context (no sliding window)."""
        return int(llama_cpp.llama_model_n_swa(self.pointer)) == 0

    def close(self) -> None:
        """Free the weights; no context may use them any more."""
        llama_cpp.llama_model_free(self.pointer)


def _new_context(model: LlamaModel, parameters: Any) -> Any:
    """A llama_context pointer. Raises LoadError when there can be none (mostly: memory)."""
    _log.take()
    pointer = llama_cpp.llama_init_from_model(model.pointer, parameters)
    if not pointer:
        raise LoadError(_log.take() or "llama.cpp gave no reason")
    return pointer


def _bound(batch: Batch) -> tuple[Any, Any]:
    """A llama_batch whose pointers look into ``batch``'s arrays, and what to keep alive for it."""
    ids = batch.sequence_ids
    ids_type = ctypes.POINTER(llama_cpp.llama_seq_id)
    addresses = ids.ctypes.data + np.arange(batch.capacity, dtype=np.uintp) * ids.itemsize
    id_pointers = (ids_type * batch.capacity).from_buffer(addresses)
    one = np.ones(batch.capacity, dtype=np.int32)
    bound = llama_cpp.llama_batch()
    integers = ctypes.POINTER(ctypes.c_int32)
    bound.token = batch.tokens.ctypes.data_as(integers)
    bound.embd = None
    bound.pos = batch.positions.ctypes.data_as(integers)
    bound.n_seq_id = one.ctypes.data_as(integers)
    bound.seq_id = ctypes.cast(id_pointers, ctypes.POINTER(ids_type))
    bound.logits = batch.wants_logits.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
    return bound, (id_pointers, addresses, one)


class ContextSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to lay out a context; ``sequence_ids`` at most 256 (LLAMA_MAX_SEQ)."""

    kv_cells: int
    sequence_ids: int
    batch_size: int
    ubatch_size: int
    outputs_per_batch: int
    threads: int
    flash_attention: bool
    kv_type: KvType


class LlamaContext:
    """KV cells and compute buffers of one model (see `server.engine.backend.Backend`).

    The cells are unified: all sequences share one pool, so that prefixes can be shared between
    them. Sliding-window layers get full-size caches (``swa_full``), so that a prefix can be reused
    from any point.
    """

    def __init__(self, model: LlamaModel, settings: ContextSettings) -> None:
        """Raises LoadError when llama.cpp cannot create the context (mostly: memory)."""
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = settings.kv_cells
        parameters.n_batch = settings.batch_size
        parameters.n_ubatch = min(settings.ubatch_size, settings.batch_size)
        parameters.n_seq_max = settings.sequence_ids
        parameters.n_outputs_max = settings.outputs_per_batch
        parameters.n_threads = settings.threads
        parameters.n_threads_batch = settings.threads
        parameters.flash_attn_type = int(settings.flash_attention)
        parameters.type_k = parameters.type_v = _GGML_TYPES[settings.kv_type]
        parameters.kv_unified = True
        parameters.swa_full = True
        parameters.no_perf = True
        self._model = model
        self._pointer = _new_context(model, parameters)
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self.vocabulary_size = model.vocabulary.size
        self.kv_cells = int(llama_cpp.llama_n_ctx(self._pointer))
        self.sequence_ids = settings.sequence_ids
        self.batch_size = int(llama_cpp.llama_n_batch(self._pointer))
        self.outputs_per_batch = settings.outputs_per_batch
        self.partial_removal = model.partial_removal
        self.piece = model.vocabulary.piece
        self._ends = model.vocabulary.end_of_generation_tokens
        self.is_control = model.vocabulary.is_control
        self._bound: tuple[Batch, Any] | None = None

    def is_end_of_generation(self, token: int) -> bool:
        """Whether generating the token ends an answer."""
        return token in self._ends

    def _bind(self, batch: Batch) -> Any:
        """A llama_batch whose pointers look into ``batch``'s arrays, made once per batch."""
        if self._bound is None or self._bound[0] is not batch:
            self._bound = (batch, _bound(batch))
        return self._bound[1][0]

    def decode(self, batch: Batch) -> None:
        """Compute the batch. Raises NoCellsLeft or DecodeFailed."""
        if not 0 < batch.size <= self.batch_size:
            raise ValueError(f"batch of {batch.size} tokens, limit {self.batch_size}")
        if batch.outputs > self.outputs_per_batch:
            raise ValueError(f"{batch.outputs} logits rows, limit {self.outputs_per_batch}")
        bound = self._bind(batch)
        bound.n_tokens = batch.size
        status = llama_cpp.llama_decode(self._pointer, bound)
        if status == 1:
            raise NoCellsLeft
        if status != 0:
            raise DecodeFailed(f"llama_decode answered {status}: {_log.take()}")

    def logits(self, rows: int) -> NDArray[np.float32]:
        """The last decode's logits, shape (rows, vocabulary_size): a view, valid until the next."""
        pointer = llama_cpp.llama_get_logits(self._pointer)
        return np.ctypeslib.as_array(pointer, shape=(rows, self.vocabulary_size))

    def copy_sequence(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the cells of the first ``length`` tokens of ``source``."""
        end = length if self.partial_removal else -1
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def share_range(self, source: int, target: int, start: int, end: int) -> None:
        """Free ``target``'s own cells of tokens [start, end) and share ``source``'s instead."""
        llama_cpp.llama_memory_seq_rm(self._memory, target, start, end)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, start, end)

    def truncate_sequence(self, sequence_id: int, length: int) -> None:
        """Free the cells of ``sequence_id`` from token ``length`` on (0: all of them)."""
        start = length if length > 0 else -1
        if not llama_cpp.llama_memory_seq_rm(self._memory, sequence_id, start, -1):
            raise ValueError(f"sequence {sequence_id} cannot be cut back to {length} tokens")

    def clear(self) -> None:
        """Free all cells."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def set_threads(self, threads: int) -> None:
        """Use ``threads`` threads from the next decode on."""
        llama_cpp.llama_set_n_threads(self._pointer, threads, threads)

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_free(self._pointer)


class LlamaEmbedder:
    """Computes embeddings in a context of its own.

    Token embeddings are pooled here: llama.cpp would average only what one physical batch holds.
    ``most_tokens`` is how many tokens the texts of one call may have together, ``most_texts`` how
    many texts there may be.
    """

    most_texts = _TEXTS_TOGETHER

    def __init__(
        self,
        model: LlamaModel,
        *,
        most_tokens: int,
        threads: int,
        flash_attention: bool,
        kv_type: KvType,
    ) -> None:
        """Raises LoadError when llama.cpp cannot create the context (mostly: memory)."""
        at_once = _EMBEDDED_TOKENS_PER_PART if model.reads_in_parts else most_tokens
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = most_tokens
        parameters.n_batch = parameters.n_ubatch = min(at_once, most_tokens)
        parameters.n_seq_max = _TEXTS_TOGETHER
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = int(flash_attention)
        parameters.type_k = parameters.type_v = _GGML_TYPES[kv_type]
        parameters.kv_unified = True
        parameters.swa_full = True
        parameters.no_perf = True
        parameters.embeddings = True
        if model.pooling is not None:
            parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        self._pointer = _new_context(model, parameters)
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._model = model
        self._batch = Batch(int(parameters.n_batch))
        self._bound = _bound(self._batch)
        self.most_tokens = most_tokens

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embeddings of length 1, shape (texts, embedding size). Raises DecodeFailed."""
        lengths = [len(text) for text in texts]
        if not all(lengths) or len(texts) > self.most_texts or sum(lengths) > self.most_tokens:
            raise ValueError(f"texts of {lengths} tokens, limit {self.most_tokens} in all")
        tokens = np.concatenate([np.asarray(text, np.int32) for text in texts])
        positions = np.concatenate([np.arange(length) for length in lengths])
        owners = np.repeat(np.arange(len(texts)), lengths)
        weights = np.concatenate([self._weights(length) for length in lengths])
        pooled = np.zeros((len(texts), self._model.embedding_size))
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        for start in range(0, len(tokens), self._batch.capacity):
            part = slice(start, start + self._batch.capacity)
            rows = self._compute(tokens[part], positions[part], owners[part])
            np.add.at(pooled, owners[part], rows * weights[part, np.newaxis])
        norms: NDArray[np.float64] = np.linalg.norm(pooled, axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise DecodeFailed("the model computed an embedding without direction")
        return (pooled / norms).astype(np.float32)

    def _weights(self, length: int) -> NDArray[np.float64]:
        """How much each token of a text counts."""
        weights = np.zeros(length)
        match self._model.pooling:
            case "cls":
                weights[0] = 1
            case "last":
                weights[-1] = 1
            case _:
                weights[:] = 1 / length
        return weights

    def _compute(
        self, tokens: NDArray[Any], positions: NDArray[Any], sequence_ids: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Token embeddings, shape (tokens, embedding size): a view, valid until the next call."""
        count = len(tokens)
        batch, bound = self._batch, self._bound[0]
        batch.tokens[:count] = tokens
        batch.positions[:count] = positions
        batch.sequence_ids[:count] = sequence_ids
        batch.wants_logits[:count] = 1
        bound.n_tokens = count
        status = llama_cpp.llama_decode(self._pointer, bound)
        if status != 0:
            raise DecodeFailed(f"llama_decode answered {status}: {_log.take()}")
        pointer = llama_cpp.llama_get_embeddings(self._pointer)
        rows: NDArray[np.float32] = np.ctypeslib.as_array(
            pointer, shape=(count, self._model.embedding_size)
        )
        return rows

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_free(self._pointer)
