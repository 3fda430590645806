"""A small random model that sees, behind an engine, and the same by llama.cpp's own helper."""

from __future__ import annotations

import ctypes
import io
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp as mtmd
from PIL import Image

from server.core.pieces import TokenRun
from server.core.request import ImagePart
from server.engine.llama.model import LlamaModel
from server.engine.llama.projector import Projector
from server.engine.spans import ImageSpan, Span, Spans, TokenSpan
from server.engine.vision.encodable import EncodableImage
from server.engine.vision.encodings import Encode
from server.engine.vision.picture_source import picture_of
from server.engine.vision.reader import PictureReader
from tests.unit.engine.model_rig import Answer, Model

Prompt = Sequence[list[int] | ImagePart]


def image(seed: int, width: int = 40, height: int = 30) -> ImagePart:
    """An image of random pixels, as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return ImagePart(buffer.getvalue())


class Eyes:
    """A projector's calls, counted. ``encoded`` has the number of each piece that was encoded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.encoded: list[int] = []
        self.projector: Projector

    def open(self, model: LlamaModel) -> Encode:
        self.projector = Projector(str(self._path), model, threads=1, on_gpu=False)
        return self._encode

    def _encode(self, picture: Any, wanted: Any) -> Any:
        for index, embeddings in self.projector.encode(picture, wanted):
            self.encoded.append(index)
            yield index, embeddings


class VisionModel(Model):
    """A model and its projector; images are encoded on a thread."""

    def __init__(self, path: Path, eyes: Eyes, **options: Any) -> None:
        defaults = {"kv_cells": 1024, "flash_attention": False}
        super().__init__(path, encode=eyes.open, **defaults | options)
        self.eyes = eyes
        self.reader = PictureReader(eyes.projector, most_together=64)
        assert self.engine.encodings is not None
        threading.Thread(target=self.engine.encodings.run, daemon=True).start()

    def spans(self, prompt: Prompt) -> list[Span]:
        found: list[Span] = []
        for part in prompt:
            for piece in [TokenRun(tuple(part))] if isinstance(part, list) else self.reader(part):
                if isinstance(piece, EncodableImage):
                    found.append(ImageSpan(piece))
                elif isinstance(piece, TokenRun):
                    found.append(TokenSpan(piece.ids))
        return found

    def encode(self, prompt: Prompt) -> None:
        """Wait until the images of ``prompt`` are encoded; nothing of it is computed."""
        assert self.engine.encodings is not None
        images = [span.image for span in Spans(self.spans(prompt)).images_from(0)]
        self.engine.encodings.want(-1, images)
        while any(self.engine.encodings.get(image) is None for image in images):
            time.sleep(0.01)

    def see(self, *prompts: Prompt, **more: Any) -> list[Answer]:
        """The greedy answers to prompts that arrive together."""
        return self.answers_to([self.spans(prompt) for prompt in prompts], **more)

    def by_helper(self, prompt: Prompt, tokens: int) -> Answer:
        """The greedy answer when llama.cpp's own helper puts images into the context."""
        context = self.context
        context.clear()
        position = 0
        for part in prompt:
            if isinstance(part, list):
                self._read(part, position)
                position += len(part)
            else:
                position = self._show(part, position)
        answer: list[int] = []
        logprobs = []
        for _ in range(tokens):
            logits = llama_cpp.llama_get_logits_ith(context._pointer, -1)
            row = np.ctypeslib.as_array(logits, (context.vocabulary_size,)).astype(np.float64)
            row -= row.max()
            logprobs.append(row - np.log(np.exp(row).sum()))
            answer.append(3 + int(row[3:].argmax()))
            self._read(answer[-1:], position)
            position += 1
        context.clear()
        return Answer(answer, np.array(logprobs))

    def _read(self, tokens: list[int], position: int) -> None:
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, position + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = index == len(tokens) - 1
        assert llama_cpp.llama_decode(self.context._pointer, batch) == 0
        llama_cpp.llama_batch_free(batch)

    def _show(self, part: ImagePart, position: int) -> int:
        picture = picture_of(part)
        pixels = np.ascontiguousarray(picture.pixels)
        data = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(picture.width, picture.height, data)
        chunks = mtmd.mtmd_input_chunks_init()
        eyes = self.eyes.projector._pointer
        whole = ctypes.pointer(mtmd.mtmd_input_part(None, bitmap))
        parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(whole)
        assert mtmd.mtmd_tokenize_from_parts(eyes, chunks, parts, 1, False) == 0
        after = llama_cpp.llama_pos()
        arguments = eyes, self.context._pointer, chunks, position, 0, 64, True, ctypes.byref(after)
        assert mtmd.mtmd_helper_eval_chunks(*arguments) == 0
        mtmd.mtmd_input_chunks_free(chunks)
        mtmd.mtmd_bitmap_free(bitmap)
        return int(after.value)
