"""The facts of a GGUF header, by the names the field uses for them."""

from __future__ import annotations

from collections import Counter

import msgspec

from server.library.quantization import FILE_TYPES

# Far above any model (llama.cpp stops at 512 layers): a hostile count must not become a list.
_MAX_LAYERS = 4096


class SkippedArray(msgspec.Struct, frozen=True):
    """An array too long to keep: its element type, its length, and where in the file it lies."""

    element: str
    length: int
    offset: int
    bytes: int


Value = str | float | bool | list[str] | list[float] | SkippedArray


class StoredTensor(msgspec.Struct, frozen=True):
    """A tensor in a file: its ggml_type, its shape (the length of a row first), and its data.

    ``bytes`` of data begin at ``offset`` in the file.
    """

    type: int
    shape: list[int]
    elements: int
    bytes: int
    offset: int


class Block(msgspec.Struct, frozen=True):
    """A layer: its number, and its tensors by their names in it."""

    number: int
    tensors: list[str]

    def later(self, other: Block) -> Block:
        """The later one; of a block in two parts of a split model, the whole."""
        if self.number == other.number:
            return Block(self.number, self.tensors + other.tensors)
        return max(self, other, key=lambda block: block.number)


_NO_BLOCK = Block(-1, [])


class TensorSummary(msgspec.Struct, frozen=True, kw_only=True):
    """All tensors of one file: ``data_bytes`` on disk, weights per tensor type.

    ``classifies`` says whether a classifier is among them, the head of models made to rank.
    """

    count: int
    parameters: int
    data_bytes: int
    elements_by_type: dict[str, int]
    classifies: bool = False
    last_block: Block = _NO_BLOCK

    def __add__(self, other: TensorSummary) -> TensorSummary:
        """The tensors of two parts of a split model."""
        kinds = Counter(self.elements_by_type)
        kinds.update(other.elements_by_type)
        return TensorSummary(
            count=self.count + other.count,
            parameters=self.parameters + other.parameters,
            data_bytes=self.data_bytes + other.data_bytes,
            elements_by_type=dict(kinds),
            classifies=self.classifies or other.classifies,
            last_block=self.last_block.later(other.last_block),
        )


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The key-values of a GGUF file, and a summary of its tensors.

    ``metadata`` holds every key-value as it stands in the file, not checked against the others.
    ``eos_text`` is the text of the end-of-sequence token, where the file names one. A
    property is None (or empty) where the key is absent or of the wrong type.
    """

    version: int
    file_bytes: int
    metadata: dict[str, Value]
    tensors: TensorSummary
    eos_text: str | None = None

    def text(self, key: str) -> str | None:
        """The string under ``key``, None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def texts(self, key: str) -> list[str]:
        """The strings under ``key``, which may be a list or one string."""
        value = self.metadata.get(key)
        if isinstance(value, str):
            return [value]
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def integer(self, key: str) -> int | None:
        """The integer under ``key``, None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def size(self, name: str) -> int | None:
        """The hyperparameter ``<architecture>.<name>`` when it is one non-negative integer."""
        value = self.integer(f"{self.architecture}.{name}")
        return value if value is not None and value >= 0 else None

    def layer_sizes(self, name: str) -> list[int] | None:
        """The hyperparameter ``<architecture>.<name>`` for each layer.

        A file gives it once for all layers, or as an array with one entry each.
        """
        value = self.metadata.get(f"{self.architecture}.{name}")
        if isinstance(value, list):
            return [int(item) for item in value if isinstance(item, int)]
        size = self.size(name)
        return None if size is None else [size] * min(self.block_count or 0, _MAX_LAYERS)

    @property
    def architecture(self) -> str:
        """The name of the architecture; empty in the later parts of a split model."""
        return self.text("general.architecture") or ""

    @property
    def type(self) -> str:
        """The kind of the file: a ``model``, an ``adapter``, an ``mmproj`` or something else."""
        return self.text("general.type") or "model"

    @property
    def name(self) -> str | None:
        """The model's name as its author wrote it."""
        return self.text("general.name")

    @property
    def finetune(self) -> str | None:
        """The purpose the model was tuned for, in its author's words."""
        return self.text("general.finetune")

    @property
    def licence(self) -> str | None:
        """Licence as an SPDX expression or a name."""
        return self.text("general.license")

    @property
    def tags(self) -> list[str]:
        """Free tags, as the author chose them."""
        return self.texts("general.tags")

    @property
    def base_models(self) -> list[str]:
        """Names of the models this one was made from."""
        count = min(self.integer("general.base_model.count") or 0, len(self.metadata))
        names = (self.text(f"general.base_model.{index}.name") for index in range(count))
        return [name for name in names if name]

    @property
    def quantization(self) -> str:
        """The file's quantisation (``Q4_K_M``), or else its most frequent tensor type."""
        number = self.integer("general.file_type")
        if number in FILE_TYPES:
            return FILE_TYPES[number]
        weights = self.tensors.elements_by_type
        return max(weights, key=lambda kind: weights[kind]) if weights else "unknown"

    @property
    def context_length(self) -> int | None:
        """Tokens of context it was trained for."""
        return self.size("context_length")

    @property
    def block_count(self) -> int | None:
        """Number of layers."""
        return self.size("block_count")

    @property
    def embedding_length(self) -> int | None:
        """Width of the hidden state."""
        return self.size("embedding_length")

    @property
    def sliding_window(self) -> int | None:
        """Tokens that layers with sliding-window attention look back."""
        return self.size("attention.sliding_window")

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, SkippedArray):
            return tokens.length
        return len(tokens) if isinstance(tokens, list) else self.size("vocab_size")

    @property
    def chat_template(self) -> str | None:
        """The default chat template."""
        return self.text("tokenizer.chat_template")

    @property
    def split_count(self) -> int:
        """How many files the model is split into; 1 when it is whole."""
        return self.integer("split.count") or 1
