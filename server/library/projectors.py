"""Files with vision encoders (``mmproj*.gguf``), and the models that they belong to.

The name is llama.cpp's: multimodal projector. Such a file holds the encoder that turns images into
what one model reads, and is no model of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from server.core.worker_settings import ProjectorFile
from server.library.discovery import Candidate, displayable, is_projector, model_name
from server.library.footprint import projector_memory
from server.library.header import GgufHeader

# Which of several to take: Q8_0 is as good as exact, and encodes an image in two thirds of F16's
# time (8.5 s instead of 13.0 s for a tile of a base-size encoder, on a CPU with our kernels).
_PREFERRED = ("q8_0", "f16", "bf16", "f32")
# Of these, cells and positions of an image depend on what stands before it in the prompt, so no
# prefix could be shared: mtmd counts images (HunyuanVL), or pads to a multiple of four cells.
_BOUND_TO_PLACE = frozenset({"hunyuanvl", "deepseek4v"})
_QUANTIZATION = re.compile(r"[-_.](?:bf16|f16|f32|i?q\d[^-.]*)$", re.IGNORECASE)
_PROJECTOR = re.compile(r"[-_.]?mmproj[-_.]?", re.IGNORECASE)


class UnusableProjector(Exception):
    """A file beside a model encodes no images for it; the message says why."""


def projector_file(path: Path, header: GgufHeader) -> ProjectorFile:
    """What a worker is told about the projector at ``path``.

    Raises:
        UnusableProjector: it is of no use.
    """
    if header.architecture != "clip":
        kind = header.architecture or "unknown"
        raise UnusableProjector(f"{path.name} is no projector but a file of type {kind}")
    if header.metadata.get("clip.has_vision_encoder") is not True:
        raise UnusableProjector(f"{path.name} encodes no images; other media are not served")
    kind = header.text("clip.projector_type") or header.text("clip.vision.projector_type") or ""
    if kind in _BOUND_TO_PLACE:
        raise UnusableProjector(
            f"{path.name} is of the kind {kind}, whose images depend on their place in the prompt; "
            "the model is served without images"
        )
    return ProjectorFile(path=displayable(path), kind=kind, memory_bytes=projector_memory(header))


class ProjectorSearch:
    """Finds the projector beside a model; each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[list[Path], set[str]]] = {}

    def beside(self, model: Candidate) -> Path | None:
        """The projector in the folder of ``model`` that belongs to it.

        One with the model's whole name comes first. The only model of a folder owns all projectors
        there; among several, one belongs to the models whose name it has, quantisations aside.
        """
        projectors, models = self._folder(model.directory)
        own = [each for each in projectors if _without_mark(each).lower() == model.name.lower()]
        if own:
            projectors = own
        elif models != {model.name}:
            wanted = _bare(model.name)
            projectors = [each for each in projectors if _bare(_without_mark(each)) == wanted]
        return min(projectors, key=_preference, default=None)

    def _folder(self, directory: Path) -> tuple[list[Path], set[str]]:
        """The projectors in ``directory``, and the names of the models."""
        if directory not in self._folders:
            try:
                files = [file for file in directory.iterdir() if file.suffix.lower() == ".gguf"]
            except OSError:
                files = []
            projectors = sorted(file for file in files if is_projector(file))
            models = {model_name(file) for file in files if not is_projector(file)}
            self._folders[directory] = projectors, models
        return self._folders[directory]


def _preference(projector: Path) -> tuple[int, str]:
    name = projector.stem.lower()
    found = [place for place, kind in enumerate(_PREFERRED) if name.endswith(kind)]
    return min(found, default=len(_PREFERRED)), name


def _without_mark(projector: Path) -> str:
    return _PROJECTOR.sub("-", projector.stem).strip("-")


def _bare(name: str) -> str:
    """A name without its quantisation, for comparison."""
    return _QUANTIZATION.sub("", name).lower()
