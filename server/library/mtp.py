"""Whether a model's own head (MTP, the "nextn" layers of its file) can draft for it."""

from __future__ import annotations

from collections.abc import Iterator

from server.core.worker_settings import WorkerSettings
from server.library.header import GgufHeader

_MIXTURE = {"ffn_gate_inp.weight", "ffn_down_exps.weight"}
_DENSE = {"ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"}
# Architectures whose head has a graph in llama.cpp b11434 (LLM_GRAPH_TYPE_DECODER_MTP), and with
# which it was tried; and tensors of the head without which llama.cpp aborts, one set or the other.
# It reports others that are missing when it loads the model.
_NEEDED: dict[str, tuple[set[str], ...]] = {
    "cohere2moe": (_MIXTURE,),
    "deepseek2": (_MIXTURE | {"attn_q_a.weight", "attn_k_b.weight"},),
    "glm4moe": (_MIXTURE,),
    "hy_v3": (_MIXTURE, _DENSE),
    "mimo2": (_DENSE | {"attn_qkv.weight"},),
    "step35": (_MIXTURE, _DENSE),
}
# It also aborts where their files have more than one such layer.
_ONE_LAYER = {"cohere2moe", "deepseek2", "glm4moe"}
# These have such a graph, but recurrent states, which are not cut back where a guess was wrong.
_RECURRENT = {
    "bailingmoe3",
    "deepseek4",
    "glm5-next",
    "nemotron_h_moe",
    "qwen35",
    "qwen35moe",
    "qwen3next",
}


def drafts_itself(header: GgufHeader, settings: WorkerSettings) -> bool:
    """Whether the model's own head drafts for it; another model that does goes first."""
    return settings.draft is None and has_head(header) and head_problem(header) is None


def has_head(header: GgufHeader) -> bool:
    """Whether the file says that it has one."""
    return bool(header.size("nextn_predict_layers"))


def head_problem(header: GgufHeader) -> str | None:
    """Why the head that the file says it has cannot draft, where the header tells; else None.

    Loading may find further reasons.
    """
    return next(_problems(header), None)


def _problems(header: GgufHeader) -> Iterator[str]:
    architecture, layers = header.architecture, header.size("nextn_predict_layers") or 0
    if architecture in _RECURRENT:
        yield f"states of {architecture} models are not cut back where a guess was wrong"
    if architecture not in _NEEDED:
        yield f"heads of {architecture} models are not used"
        return
    tensors = set(header.tensors.last_block.tensors)
    if "nextn.eh_proj.weight" not in tensors:
        yield "its tensors are not in the file"
    missing = [sorted(needed - tensors) for needed in _NEEDED[architecture]]
    if all(missing):
        yield f"llama.cpp does not compute it without {', '.join(missing[0])}"
    if layers > 1 and architecture in _ONE_LAYER:
        yield f"it has {layers} layers, and llama.cpp computes one"
    sections = header.metadata.get(f"{architecture}.rope.dimension_sections")
    if isinstance(sections, list) and any(sections):
        yield "llama.cpp does not compute it with positions in several dimensions"
