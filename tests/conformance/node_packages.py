"""The packages of npm that tests use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

NODE = Path(__file__).parent / "node"


def run_node(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of the scripts for Node."""
    return subprocess.run(
        command, cwd=NODE, capture_output=True, text=True, timeout=200, check=False
    )


def missing_packages() -> str | None:
    """Install the packages of package.json unless they are there; the reason why they are not."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not installed"
    packages = json.loads((NODE / "package.json").read_text())["dependencies"]
    # Files of tests run beside each other.
    with FileLock(Path(tempfile.gettempdir(), f"dragoman-npm-{os.getuid()}.lock")):
        if not all((NODE / "node_modules" / package).exists() for package in packages):
            installed = run_node("npm", "install")
            if installed.returncode != 0:
                return f"npm cannot install them: {installed.stderr[-300:]}"
    return None
