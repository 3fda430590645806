"""The worker's own modules come from where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.core.errors import ModelUnavailable
from server.core.worker_settings import WorkerSettings
from server.worker.protocol import Load
from server.worker.supervise.safe_mode import SafeModeRecord
from server.worker.supervise.supervisor import Supervisor

pytestmark = pytest.mark.process


async def test_what_lies_in_the_working_directory_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    for name in ("server/__init__.py", "msgspec.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the working directory')\n")
    model = tmp_path / "model.gguf"
    model.write_text("nothing a model would be")
    monkeypatch.chdir(tmp_path)
    load = Load(model_id="model", path=str(model), settings=WorkerSettings())
    supervisor = Supervisor(load, record=SafeModeRecord(None))
    with pytest.raises(ModelUnavailable, match="GGUF"):
        await supervisor.ready()
    await supervisor.stop()
