"""What a worker has ready once its model is loaded."""

from __future__ import annotations

from pathlib import Path

from server.worker.loading import load
from server.worker.protocol import Load, WorkerSettings
from tests.tiny_models import write_tiny_model


def test_the_compiler_of_constraints_is_being_built_when_loading_ends(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", "full attention")
    settings = WorkerSettings(safe_mode=True, parallel=2)
    loaded = load(Load(model_id="tiny", path=str(path), settings=settings), lambda _: None)
    assert loaded.compiler is not None
    compiler = loaded.compiler.result(5)
    constraint = compiler.compile('{"grammars": [{"lark_grammar": "start: \\"a\\""}]}')
    assert not constraint.is_complete
    compiler.close()
