#!/usr/bin/env bash
# llama-cpp-python 0.3.36 (libmtmd of llama.cpp b11434): an encoding that the eval callback ends
# (mtmd_context_params.cb_eval answers false) counts as done. mtmd_encode_chunk returns 0, and
# mtmd_get_output_embd has whatever lay in the memory of the graph's last operation, which was never
# computed. A server that cancels encodings in this way has to remember by itself that it did;
# one that keeps results by image would show the model noise for good.
#
# Seen: status 0 both times; the embeddings of the encoding that was ended are not the image's.
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

WIDTH, FEED_FORWARD, SIDE, PATCH = 64, 80, 32, 8
PARTS = ("weight", "bias")
path = sys.argv[1]


def write_projector() -> None:
    """An encoder of LLaVA's kind with two layers and random weights."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    numbers = {
        "embedding_length": WIDTH,
        "attention.head_count": 4,
        "feed_forward_length": FEED_FORWARD,
        "block_count": 2,
        "projection_dim": WIDTH,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    square = (WIDTH, WIDTH)
    sizes = {
        "v.patch_embd.weight": (WIDTH, 3, PATCH, PATCH),
        "v.position_embd.weight": ((SIDE // PATCH) ** 2 + 1, WIDTH),
        "v.class_embd": (WIDTH,),
    }
    for layer in ("v.blk.0", "v.blk.1"):
        sizes |= {f"{layer}.attn_{name}.weight": square for name in ("q", "k", "v", "out")}
        sizes[f"{layer}.ffn_up.weight"] = (FEED_FORWARD, WIDTH)
        sizes[f"{layer}.ffn_down.weight"] = (WIDTH, FEED_FORWARD)
        sizes |= {f"{layer}.ln{norm}.{part}": (WIDTH,) for norm in (1, 2) for part in PARTS}
    sizes |= {f"{norm}.{part}": (WIDTH,) for norm in ("v.pre_ln", "v.post_ln") for part in PARTS}
    for layer in ("mm.0", "mm.2"):
        sizes |= {f"{layer}.weight": square, f"{layer}.bias": (WIDTH,)}
    for name, size in sizes.items():
        writer.add_tensor(name, random.normal(0, 0.1, size).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


write_projector()
quiet = llama_cpp.llama_log_callback(lambda *_: None)
mtmd.mtmd_helper_log_set(quiet, ctypes.c_void_p(0))
goes_on = True


@llama_cpp.ggml_backend_sched_eval_callback
def callback(_operation: int, is_ahead: bool, _data: int) -> bool:
    """Stop behind every operation, and go on or not."""
    return is_ahead or goes_on


parameters = mtmd.mtmd_context_params_default()
parameters.use_gpu = parameters.warmup = False
parameters.cb_eval = callback
eyes = mtmd.mtmd_init_from_file(path.encode(), None, parameters)


def encode() -> tuple[int, np.ndarray]:
    """The status, and the embeddings of a grey picture."""
    pixels = np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)
    data = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    bitmap = mtmd.mtmd_bitmap_init(SIDE, SIDE, data)
    chunks = mtmd.mtmd_input_chunks_init()
    parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(
        ctypes.pointer(mtmd.mtmd_input_part(None, bitmap))
    )
    assert mtmd.mtmd_tokenize_from_parts(eyes, chunks, parts, 1, False) == 0
    image = mtmd.mtmd_input_chunks_get(chunks, 0)
    status = mtmd.mtmd_encode_chunk(eyes, image)
    shape = mtmd.mtmd_input_chunk_get_n_tokens(image), WIDTH
    return status, np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(eyes), shape=shape).copy()


status, whole = encode()
goes_on = False
status_of_ended, ended = encode()
print("status of an encoding:", status)
print("status of one that was ended after one operation:", status_of_ended)
print("both have the same embeddings:", np.array_equal(whole, ended))
goes_on = True
print("a third, which was not ended, has:", np.array_equal(whole, encode()[1]))
PYTHON
