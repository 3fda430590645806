#!/usr/bin/env bash
# llama-cpp-python 0.3.36 (libmtmd of llama.cpp b11434): a bitmap without pixels, which mtmd.h has for
# counting the tokens of an image, does not tell whether the image can be used. Of a strip
# (10,000 x 10 pixels) the preprocessor of Idefics3 and SmolVLM makes a height of 0; without pixels
# nothing is resized, and mtmd_tokenize_from_parts counts the overview alone. With pixels the same
# size is refused. A server that counts first and encodes later has then accepted the request.
#
# Seen: status 0 and one image of 4 tokens without pixels, status 2 with them.
#
# The package compiles llama.cpp: allow some minutes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llama-cpp-python==0.3.36 gguf==0.19.0 numpy==2.4.0

"$folder/venv/bin/python" - "$folder/mmproj.gguf" <<'PYTHON'
import ctypes
import sys

import gguf
import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp as mtmd

WIDTH, FEED_FORWARD, SIDE, PATCH, MERGE = 64, 80, 32, 8, 2
path = sys.argv[1]


def write_projector() -> None:
    """An encoder of Idefics3's kind with one layer and random weights."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "idefics3")
    numbers = {
        "embedding_length": WIDTH,
        "attention.head_count": 4,
        "feed_forward_length": FEED_FORWARD,
        "block_count": 1,
        "projection_dim": WIDTH,
        "image_size": SIDE,
        "patch_size": PATCH,
        "projector.scale_factor": MERGE,
        "preproc_image_size": 2 * SIDE,
    }
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    sizes = {f"v.blk.0.{name}.weight": (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v")}
    sizes |= {
        "v.patch_embd.weight": (WIDTH, 3, PATCH, PATCH),
        "v.position_embd.weight": ((SIDE // PATCH) ** 2, WIDTH),
        "v.blk.0.attn_out.weight": (WIDTH, WIDTH),
        "v.blk.0.ffn_up.weight": (FEED_FORWARD, WIDTH),
        "v.blk.0.ffn_down.weight": (WIDTH, FEED_FORWARD),
        "mm.model.fc.weight": (WIDTH, WIDTH * MERGE**2),
    }
    for norm in ("v.post_ln", "v.blk.0.ln1", "v.blk.0.ln2"):
        sizes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for name, size in sizes.items():
        writer.add_tensor(name, random.normal(0, 0.1, size).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


write_projector()
quiet = llama_cpp.llama_log_callback(lambda *_: None)
mtmd.mtmd_helper_log_set(quiet, ctypes.c_void_p(0))
parameters = mtmd.mtmd_context_params_default()
parameters.use_gpu = parameters.warmup = False
eyes = mtmd.mtmd_init_from_file(path.encode(), None, parameters)


def tokenize(pixels: np.ndarray | None) -> tuple[int, list[int]]:
    """The status, and the tokens of each image chunk."""
    data = None if pixels is None else pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    bitmap = mtmd.mtmd_bitmap_init(10_000, 10, data)
    chunks = mtmd.mtmd_input_chunks_init()
    parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(
        ctypes.pointer(mtmd.mtmd_input_part(None, bitmap))
    )
    status = mtmd.mtmd_tokenize_from_parts(eyes, chunks, parts, 1, False)
    size = mtmd.mtmd_input_chunks_size(chunks)
    found = [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(size)]
    images = [chunk for chunk in found if mtmd.mtmd_input_chunk_get_type(chunk) == 1]
    return status, [mtmd.mtmd_input_chunk_get_n_tokens(image) for image in images]


counted = tokenize(None)
read = tokenize(np.zeros((10, 10_000, 3), dtype=np.uint8))
print("without pixels:", counted, "with pixels:", read)
assert (counted, read) == ((0, [4]), (2, [])), "the behaviour has changed"
PYTHON
