"""The binding to llama.cpp: the only package that imports llama_cpp.

It is deliberately thin: it owns pointers, checks what llama.cpp would assert on, and hands out
numpy views. llama.h documents each call.
"""

import server.engine.llama.bare_binding  # noqa: F401 - before anything imports llama_cpp
from server.engine.llama.context import LlamaContext
from server.engine.llama.context_settings import ContextSettings
from server.engine.llama.embedder import LlamaEmbedder
from server.engine.llama.library import (
    LoadError,
    build_description,
    build_files,
    gpu_available,
)
from server.engine.llama.model import LlamaModel
from server.engine.llama.reranker import Head, LlamaReranker

__all__ = [
    "ContextSettings",
    "Head",
    "LlamaContext",
    "LlamaEmbedder",
    "LlamaModel",
    "LlamaReranker",
    "LoadError",
    "build_description",
    "build_files",
    "gpu_available",
]
