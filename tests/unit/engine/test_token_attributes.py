"""The attributes of all tokens, read by our kernels' library or one by one."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from server.engine.llama import LlamaModel, token_attributes
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process


@pytest.mark.parametrize("with_kernels", [True, False])
def test_each_token_has_the_attributes_that_llama_cpp_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_kernels: bool
) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", "full attention", markers=["<|end|>"])
    model = LlamaModel(str(path), vocabulary_only=True)
    pointer, size = llama_cpp.llama_model_get_vocab(model.pointer), model.vocabulary.size
    if not with_kernels:
        monkeypatch.setattr(token_attributes, "_each", None)
    found = token_attributes.token_attributes(pointer, size)
    expected = [llama_cpp.llama_vocab_get_attr(pointer, token) for token in range(size)]
    assert found.tolist() == expected
    assert len(np.unique(found)) > 1
    model.close()
