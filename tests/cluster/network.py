"""Machines with networks of their own: namespaces that reach each other and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NETWORK, _CLIENTS = "10.213.77", "10.214"
_DEVICE, _OUTSIDE, _BEYOND, _NOWHERE = "cluster", "dragoman", "beyond", "nowhere"


def can_make_networks() -> bool:
    """Whether namespaces can be made here."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


class Network:
    """Machines by number; the first has a link to each other one, and one to this machine.

    What they would send to any other address goes into a device that leads nowhere, and is counted.

    Attributes:
        machines: How many there are.
        outside: The first one's address for clients on this machine, once it is made.
    """

    def __init__(self, machines: int) -> None:
        self.machines = machines
        self.outside = ""
        self._to_clients = ""

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

    def sent_beyond(self, machine: int) -> int:
        """How many packets a machine has sent, or asked the way for, to addresses outside."""
        shown = _ip("-n", self.name(machine), "-s", "-j", "link", "show", _BEYOND)
        packets: int = json.loads(shown)[0]["stats64"]["tx"]["packets"]
        return packets

    def make(self) -> None:
        """Make the namespaces and their links."""
        first = self.name(0)
        for machine in range(self.machines):
            _ip("netns", "add", self.name(machine))
            _ip("-n", self.name(machine), "link", "set", "lo", "up")
            self._lead_beyond(machine)
        _ip("-n", first, "link", "add", _DEVICE, "type", "bridge")
        self._begin(first, _DEVICE, self.address(0))
        for machine in range(1, self.machines):
            name, port = self.name(machine), f"to{machine}"
            ends = ["netns", name, "type", "veth", "peer", port, "netns", first]
            _ip("link", "add", _DEVICE, *ends)
            _ip("-n", first, "link", "set", port, "master", _DEVICE, "up")
            self._begin(name, _DEVICE, self.address(machine))
        number = self._link_to_clients()
        self.outside, clients = f"{_CLIENTS}.{number}.1", f"{_CLIENTS}.{number}.2"
        self._begin(first, "clients", self.outside)
        _ip("addr", "add", f"{clients}/24", "dev", self._to_clients)
        _ip("link", "set", self._to_clients, "up")

    def remove(self) -> None:
        """Remove all of it."""
        # First, as it goes with its namespace, and then another run may have a link of its name.
        if self._to_clients:
            _ip("link", "del", self._to_clients, check=False)
        for machine in range(self.machines):
            _ip("netns", "del", self.name(machine), check=False)

    def _lead_beyond(self, machine: int) -> None:
        """Make the device for all other addresses."""
        name = self.name(machine)
        _ip("-n", name, "link", "add", _BEYOND, "type", "veth", "peer", "name", _NOWHERE)
        for device in (_BEYOND, _NOWHERE):
            # The kernel looks for IPv6 routers by itself.
            _ip("netns", "exec", name, "sysctl", "-w", f"net.ipv6.conf.{device}.disable_ipv6=1")
            _ip("-n", name, "link", "set", device, "up")
        _ip("-n", name, "route", "add", "default", "dev", _BEYOND)

    def _link_to_clients(self) -> int:
        """Link the first one with this machine, and return the number of the link."""
        for number in range(256):
            device = f"{_OUTSIDE}{number}"
            peer = ["type", "veth", "peer", "clients", "netns", self.name(0)]
            # Another run's link may have that name.
            with suppress(subprocess.CalledProcessError):
                _ip("link", "add", device, *peer)
                self._to_clients = device
                return number
        raise OSError("all numbers for links are taken")

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


def _ip(*arguments: str, check: bool = True) -> str:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True).stdout
