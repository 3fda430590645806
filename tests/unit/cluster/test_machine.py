"""What a machine of a cluster runs, and what is said of it."""

from __future__ import annotations

from pathlib import Path

from server.cluster.machine import MachineFolder

LOG = """\
Starting.
Traceback (most recent call last):
  File "scripts.py", line 1074, in start
    node = Node(
           ^^^^^
ValueError: the port 16379 is used
 by others

Choose another one.
"""


def test_what_a_process_said_at_last_has_no_frames_of_tracebacks(tmp_path: Path) -> None:
    (tmp_path / "ray.log").write_text(LOG)
    said = MachineFolder(tmp_path).last_words("ray")
    assert said == "Starting.\nValueError: the port 16379 is used\nChoose another one."


def test_a_process_without_a_log_said_nothing(tmp_path: Path) -> None:
    assert MachineFolder(tmp_path).last_words("ray") == ""
