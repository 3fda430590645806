"""Random-weight models that see, one for each way in which images enter a prompt.

===========  =============================================================================
``causal``   LLaVA's: one run of embeddings, read like text
``whole``    Gemma 3's: between markers; an image's cells attend to each other
``tiles``    Idefics3's and SmolVLM's: an overview and tiles, each between markers
``plane``    Qwen2-VL's: positions in two dimensions (M-RoPE), as many cells as the image needs
===========  =============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.tiny_models import EMBEDDING, write_tiny_model

_MERGE = 2


class Shape(NamedTuple):
    """Sizes of an encoder: of pictures and patches, in pixels, of its layers and of its results."""

    side: int = 32
    patch: int = 8
    width: int = 64
    feed_forward: int = 80
    layers: int = 2
    heads: int = 4
    results: int = EMBEDDING

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2


TINY = Shape()


class _Projector:
    """Writes a CLIP file: metadata and random float32 tensors."""

    def __init__(self, path: Path, kind: str, shape: Shape, seed: int = 5) -> None:
        self.shape = shape
        self.gguf = gguf.GGUFWriter(path, "clip")
        self._random = np.random.default_rng(seed)
        writer = self.gguf
        writer.add_bool("clip.has_vision_encoder", True)
        writer.add_string("clip.projector_type", kind)
        writer.add_bool("clip.use_gelu", True)
        numbers = {
            "embedding_length": shape.width,
            "attention.head_count": shape.heads,
            "feed_forward_length": shape.feed_forward,
            "block_count": shape.layers,
            "projection_dim": shape.results,
            "image_size": shape.side,
            "patch_size": shape.patch,
        }
        for name, number in numbers.items():
            writer.add_uint32(f"clip.vision.{name}", number)
        writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
        writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def number(self, name: str, value: int) -> None:
        self.gguf.add_uint32(f"clip.vision.{name}", value)

    def tensor(self, name: str, *shape: int, scale: float = 1.0) -> None:
        """Random numbers; a matrix has shape (outputs, inputs)."""
        scale *= float(np.prod(shape[1:])) ** -0.5 if len(shape) > 1 else 0.1
        self._add(name, self._random.normal(scale=scale, size=shape))

    def norm(self, name: str) -> None:
        size = self.shape.width
        self._add(f"{name}.weight", 1 + 0.1 * self._random.normal(size=size))
        self.tensor(f"{name}.bias", size)

    def encoder(self, *, positions: int, frames: int = 1) -> None:
        """The vision transformer; with two ``frames``, a second filter for the next one."""
        shape = self.shape
        for suffix in ("", ".1")[:frames]:
            self.tensor(f"v.patch_embd.weight{suffix}", shape.width, 3, shape.patch, shape.patch)
        if positions:
            self.tensor("v.position_embd.weight", positions, shape.width)
        self.norm("v.post_ln")
        for layer in range(shape.layers):
            block = f"v.blk.{layer}"
            self.norm(f"{block}.ln1")
            self.norm(f"{block}.ln2")
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                self.tensor(f"{block}.{name}.weight", shape.width, shape.width)
                self.tensor(f"{block}.{name}.bias", shape.width)
            self.tensor(f"{block}.ffn_up.weight", shape.feed_forward, shape.width)
            self.tensor(f"{block}.ffn_down.weight", shape.width, shape.feed_forward)

    def _add(self, name: str, values: NDArray[np.float64]) -> None:
        self.gguf.add_tensor(name, values.astype(np.float32))

    def close(self) -> None:
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_tensors_to_file()
        self.gguf.close()


def _causal(path: Path, shape: Shape) -> None:
    writer = _Projector(path, "mlp", shape)
    writer.encoder(positions=shape.patches + 1)
    writer.tensor("v.class_embd", shape.width)
    writer.norm("v.pre_ln")
    for layer, inputs in ((0, shape.width), (2, shape.results)):
        writer.tensor(f"mm.{layer}.weight", shape.results, inputs)
        writer.tensor(f"mm.{layer}.bias", shape.results)
    writer.close()


def _whole(path: Path, shape: Shape) -> None:
    writer = _Projector(path, "gemma3", shape)
    writer.number("projector.scale_factor", _MERGE)
    writer.encoder(positions=shape.patches)
    writer.tensor("v.patch_embd.bias", shape.width)
    writer.tensor("mm.input_projection.weight", shape.width, shape.results)
    writer.tensor("mm.soft_emb_norm.weight", shape.width, scale=10)
    writer.close()


def _tiles(path: Path, shape: Shape) -> None:
    writer = _Projector(path, "idefics3", shape)
    writer.number("projector.scale_factor", _MERGE)
    writer.number("preproc_image_size", 2 * shape.side)
    writer.encoder(positions=shape.patches)
    writer.tensor("v.patch_embd.bias", shape.width)
    writer.tensor("mm.model.fc.weight", shape.results, shape.width * _MERGE**2)
    writer.close()


def _plane(path: Path, shape: Shape) -> None:
    writer = _Projector(path, "qwen2vl_merger", shape)
    writer.number("spatial_merge_size", _MERGE)
    writer.encoder(positions=0, frames=2)
    wide = shape.width * _MERGE**2
    writer.tensor("mm.0.weight", wide, wide)
    writer.tensor("mm.0.bias", wide)
    writer.tensor("mm.2.weight", shape.results, wide)
    writer.tensor("mm.2.bias", shape.results)
    writer.close()


class _Kind(NamedTuple):
    """The projector's type, the text model's memory type and markers, and what writes the file."""

    name: str
    memory_type: str
    markers: tuple[str, ...]
    projector: Callable[[Path, Shape], None]


_TILE_MARKERS = (
    "\n\n",
    "\n",
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
)

KINDS = {
    "causal": _Kind("mlp", "full attention", (), _causal),
    "whole": _Kind("gemma3", "sliding window", ("<start_of_image>", "<end_of_image>"), _whole),
    "tiles": _Kind("idefics3", "full attention", _TILE_MARKERS, _tiles),
    "plane": _Kind("qwen2vl_merger", "sections", ("<|vision_start|>", "<|vision_end|>"), _plane),
}
"""By name, as in the table above."""


def write_vision_model(
    folder: Path,
    kind: str,
    *,
    name: str = "model",
    chat_template: str | None = None,
    memory_type: str | None = None,
) -> tuple[Path, Path]:
    """Write ``name``.gguf and its projector into ``folder``; returns both.

    The text model has another ``memory_type`` than usual for ``kind`` if one is given.
    """
    _, usual, markers, _ = KINDS[kind]
    model = folder / f"{name}.gguf"
    write_tiny_model(model, memory_type or usual, markers=markers, chat_template=chat_template)
    return model, write_projector(folder / f"mmproj-{name}.gguf", kind)


def write_projector(path: Path, kind: str, shape: Shape = TINY) -> Path:
    """Write the projector of that kind to ``path``."""
    path.parent.mkdir(exist_ok=True)
    KINDS[kind].projector(path, shape)
    return path
