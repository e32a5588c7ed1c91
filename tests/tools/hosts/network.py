"""A switch with a subnet of its own, to which hosts are plugged."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence

_NETWORKS = [(second, third) for second in (18, 19) for third in range(256)]  # 198.18.0.0/15 is for tests (RFC 2544)
_PREFIX = 24


class Network:
    """``address`` is that of this machine: what listens there is reached from all hosts.

    The switch is a bridge in a network namespace of a process that ends with this one, so all of it goes even if this
    process is killed. Here there is one interface. Its ``name`` comes from the subnet, so the kernel gives a subnet to
    one run only, however many begin at once.
    """

    def __init__(self) -> None:
        self._switch = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # a Ctrl-C is for the program that has the hosts
        )
        assert self._switch.stdout is not None
        assert self._switch.stdout.readline() == b"ready\n", "there is no network namespace"
        for second, third in random.sample(_NETWORKS, len(_NETWORKS)):
            self.name, self._subnet = f"aiq{second}-{third}", f"198.{second}.{third}"
            uplink = ("type", "veth", "peer", "name", "uplink", "netns", str(self._switch.pid))
            if _ip("link", "add", self.name, *uplink, check=False):
                break
        else:
            raise RuntimeError("all subnets of 198.18.0.0/15 are in use: look for interfaces named aiq…")
        self.address = self.address_of(1)
        _ip("addr", "add", f"{self.address}/{_PREFIX}", "dev", self.name)
        _ip("link", "set", self.name, "up")
        self._in_switch("link", "add", "bridge", "type", "bridge")
        self._in_switch("link", "set", "bridge", "up")
        self._in_switch("link", "set", "uplink", "master", "bridge", "up")

    def address_of(self, number: int) -> str:
        """Return an address of this network."""
        return f"{self._subnet}.{number}"

    def plug(self, number: int, process: int) -> None:
        """Give the network namespace of ``process`` an interface with the address of that number."""
        port = _port(number)
        self._in_switch("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(process))
        self._in_switch("link", "set", port, "master", "bridge", "up")
        inside = (
            "link set lo up",
            f"addr add {self.address_of(number)}/{_PREFIX} dev eth0",
            "link set eth0 up",
            f"route add default via {self.address}",  # leads nowhere, but Ray asks which address it would send from
        )
        for line in inside:
            _ip(*line.split(), inside=process)

    def cut(self, number: int) -> None:
        """Pull the plug, if there is one: packets are lost in both directions, and nobody is told."""
        self._in_switch("link", "set", _port(number), "down", check=False)

    def join(self, number: int) -> None:
        """Put it back."""
        self._in_switch("link", "set", _port(number), "up")

    def unplug(self, number: int) -> None:
        """Remove the interface, if it is there. The kernel does so too after the host's end, but not at once."""
        self._in_switch("link", "delete", _port(number), check=False)

    def remove(self) -> None:
        """Remove it all."""
        _ip("link", "delete", self.name, check=False)
        self._switch.communicate()

    def _in_switch(self, *words: str, check: bool = True) -> None:
        _ip(*words, inside=self._switch.pid, check=check)


def _port(number: int) -> str:
    return f"port{number}"


def _ip(*words: str, inside: int = 0, check: bool = True) -> bool:
    """Run ``ip``, in the network of a process if one is given; tell whether it did as it was told.

    Raises RuntimeError with its reason if ``check``.
    """
    enter: Sequence[str] = ("nsenter", f"--target={inside}", "--net") if inside else ()
    done = subprocess.run([*enter, "ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return not done.returncode
