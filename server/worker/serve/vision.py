"""The vision encoder of a model that sees images."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from server.core.worker_settings import ProjectorFile, WorkerSettings
from server.engine.llama import LlamaModel, LoadError
from server.engine.llama.projector import Projector
from server.engine.vision.encodable import EncodingFailed
from server.engine.vision.pictures import Picture

# The side of the picture that is encoded for a trial, in pixels; any would do.
_TRIAL_SIDE = 64


def open_projector(
    file: ProjectorFile, model: LlamaModel, threads: int, *, on_gpu: bool
) -> Projector:
    """Load the encoder in ``file`` for ``model`` and encode something with it.

    A file with wrong types or sizes may pass loading; the process then dies here, and not in the
    first request.

    Raises:
        LoadError: it cannot be used; the message says why, and the way out.
    """
    name = Path(file.path).name
    way_out = f"without {name} in its folder, the model is served, but sees no images"
    try:
        projector = Projector(file.path, model, threads=threads, on_gpu=on_gpu)
        grey = np.full((_TRIAL_SIDE, _TRIAL_SIDE, 3), 128, dtype=np.uint8)
        for _ in projector.encode(Picture(grey), lambda index: index == 0):
            pass
    except (LoadError, EncodingFailed) as error:
        raise LoadError(f"the projector {name} cannot be used: {error}; {way_out}") from error
    return projector


def holding(settings: WorkerSettings, projector: Projector) -> WorkerSettings:
    """``settings`` with which an image fits one physical batch, where its cells see each other."""
    if projector.causal:
        return settings
    return msgspec.structs.replace(
        settings,
        batch_size=max(settings.batch_size, projector.most_cells),
        ubatch_size=max(settings.ubatch_size, projector.most_cells),
    )
