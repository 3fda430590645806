"""The binding to llama.cpp: the only package that imports llama_cpp.

Thin on purpose: it owns pointers, checks what llama.cpp would assert on, and hands out numpy views.
See llama.h for the meaning of each call.
"""

from server.engine.llama.context import ContextSettings, KvType, LlamaContext
from server.engine.llama.embedder import LlamaEmbedder
from server.engine.llama.library import LoadError, build_description, gpu_available
from server.engine.llama.model import LlamaModel, Pooling
from server.engine.llama.vocabulary import LlamaVocabulary

__all__ = [
    "ContextSettings",
    "KvType",
    "LlamaContext",
    "LlamaEmbedder",
    "LlamaModel",
    "LlamaVocabulary",
    "LoadError",
    "Pooling",
    "build_description",
    "gpu_available",
]
