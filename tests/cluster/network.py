"""Machines with networks of their own: namespaces that reach each other and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_NETWORK, _CLIENTS = "10.213.77", "10.214.77"
_DEVICE, _OUTSIDE = "cluster", "dragomanc"


def can_make_networks() -> bool:
    """Whether namespaces can be made here."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


class Network:
    """Machines by number; the first has a link to each other one, and one to this machine.

    Attributes:
        machines: How many there are.
        outside: The first one's address for clients on this machine.
    """

    def __init__(self, machines: int) -> None:
        self.machines = machines
        self.outside = f"{_CLIENTS}.1"

    def name(self, machine: int) -> str:
        """The name of a machine's namespace."""
        return f"dragoman-{os.getpid()}-{machine}"

    def address(self, machine: int) -> str:
        """A machine's address among the others."""
        return f"{_NETWORK}.{machine + 1}"

    def prefix(self, machine: int) -> list[str]:
        """What runs a command on a machine."""
        return ["ip", "netns", "exec", self.name(machine)]

    def cut(self, machine: int) -> None:
        """Take a machine's link down."""
        _ip("-n", self.name(machine), "link", "set", _DEVICE, "down")

    def mend(self, machine: int) -> None:
        """Bring its link up."""
        _ip("-n", self.name(machine), "link", "set", _DEVICE, "up")

    def make(self) -> None:
        """Make the namespaces and their links."""
        first = self.name(0)
        for machine in range(self.machines):
            _ip("netns", "add", self.name(machine))
            _ip("-n", self.name(machine), "link", "set", "lo", "up")
        _ip("-n", first, "link", "add", _DEVICE, "type", "bridge")
        self._begin(first, _DEVICE, self.address(0))
        for machine in range(1, self.machines):
            name, port = self.name(machine), f"to{machine}"
            ends = ["netns", name, "type", "veth", "peer", port, "netns", first]
            _ip("link", "add", _DEVICE, *ends)
            _ip("-n", first, "link", "set", port, "master", _DEVICE, "up")
            self._begin(name, _DEVICE, self.address(machine))
        _ip("link", "add", _OUTSIDE, "type", "veth", "peer", "clients", "netns", first)
        self._begin(first, "clients", self.outside)
        _ip("addr", "add", f"{_CLIENTS}.2/24", "dev", _OUTSIDE)
        _ip("link", "set", _OUTSIDE, "up")

    def remove(self) -> None:
        """Remove all of it."""
        for machine in range(self.machines):
            _ip("netns", "del", self.name(machine), check=False)
        _ip("link", "del", _OUTSIDE, check=False)

    def _begin(self, name: str, device: str, address: str) -> None:
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
        _ip("-n", name, "link", "set", device, "up")


@contextmanager
def network(machines: int) -> Iterator[Network]:
    """Machines that are there while the context is entered."""
    made = Network(machines)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)
