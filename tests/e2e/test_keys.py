"""Several API keys on one server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.server import running_server
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process


def test_what_one_key_asked_is_nobody_elses_cache(tmp_path: Path) -> None:
    """Otherwise the time to first token would tell one key's prompts to another."""
    write_tiny_model(tmp_path / "tiny.gguf", "full attention")
    keys = ("--api-key", "one", "--api-key", "two")
    with running_server(*keys, DRAGOMAN_MODELS_DIR=str(tmp_path)) as server:

        def cached(key: str) -> int:
            answer = server.client(api_key=key).completions.create(
                model="tiny", prompt="x" * 100, max_tokens=1
            )
            assert answer.usage is not None
            assert answer.usage.prompt_tokens_details is not None
            return answer.usage.prompt_tokens_details.cached_tokens or 0

        first, other, again, other_again = [cached(key) for key in ("one", "two", "one", "two")]
    assert (first, other) == (0, 0)
    assert again == other_again > 90
