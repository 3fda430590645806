"""Keeps this machine in its cluster: ``python -m server.cluster.joined HEAD LOG COMMAND...``.

It runs ``COMMAND``, Ray's node agent, which writes to ``LOG``. Ray's head gives up a machine that
it cannot reach for some seconds, and the agent of that machine ends when it hears of it. Ray has no
way back. So another agent is started as soon as the head answers: otherwise, a switch that is
started again would take all machines out of the cluster for good.

The process lives as long as the machine is a member, so it imports nothing but Python's own.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

AGENT_RUNS = "Ray runtime started"
"""In the log of an agent that has joined: Ray's own words, which stay as its version does."""

_CONNECT_SECONDS = 3.0
# An attempt takes seconds of a core. A choice; each that fails doubles it, since a head that was
# made anew has another token.
_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 5.0, 60.0
_PR_SET_PDEATHSIG = 1


def listens(host: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def member_command(head: str, log: Path, agent: Sequence[str]) -> list[str]:
    """The command that keeps this machine in the cluster of ``head``.

    Args:
        head: Address and port of the head.
        log: Where the command writes, and the agents with it.
        agent: Runs a node agent.
    """
    return [sys.executable, "-P", "-m", __name__, head, str(log), *agent]


class Joined:
    """One node agent after another, until this process is told to end.

    Args:
        head: Address and port of the head.
        log: Where the agents write.
        command: Runs an agent.
    """

    def __init__(self, head: str, log: Path, command: Sequence[str]) -> None:
        host, _, port = head.rpartition(":")
        self._head = (host, int(port))
        self._log = log
        self._command = command
        self._agent: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._resting = False

    def keep(self) -> int:
        """Run agents; returns the exit code of one that could not join, or was told to end."""
        signal.signal(signal.SIGTERM, self._end)
        pause: float | None = None
        while True:
            begun = self._log.stat().st_size
            self._agent = subprocess.Popen(self._command, preexec_fn=_dies_with_its_parent)  # noqa: PLW1509, S603 no threads here
            if self._ending:  # it was told so while the agent was being started
                self._agent.terminate()
            code = self._agent.wait()
            if AGENT_RUNS.encode() in self._logged_since(begun):
                pause = _PAUSE_SECONDS
            elif pause is not None:
                pause = min(2 * pause, _MOST_PAUSE_SECONDS)
            if self._ending or pause is None:
                return code
            host, port = self._head
            sys.stdout.write(f"Ended with code {code}; joins again once {host}:{port} answers.\n")
            sys.stdout.flush()
            self._resting = True
            time.sleep(pause)
            while not listens(host, port):
                time.sleep(_PAUSE_SECONDS)
            self._resting = False

    def _logged_since(self, place: int) -> bytes:
        with self._log.open("rb") as log:
            log.seek(place)
            return log.read()

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True
        if self._resting:
            sys.exit()
        if self._agent is not None:
            self._agent.terminate()


def _dies_with_its_parent() -> None:
    """Have the system end this process with its parent, which may be ended by force."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Run the agents that the arguments describe."""
    head, log, *command = sys.argv[1:]
    sys.exit(Joined(head, Path(log), command).keep())


if __name__ == "__main__":
    main()
