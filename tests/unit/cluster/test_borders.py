"""The server of one machine knows nothing of a cluster."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.process
def test_serving_imports_neither_the_cluster_nor_ray() -> None:
    code = (
        "import sys, server.cli.serve, server.app, server.http.transport\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'ray' or 'cluster' in m.split('.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
