"""Several hosts on one machine: each has its own network, processes, temporary folders and disk.

They are namespaces of the kernel on a bridge, so a host can lose its power (`power_off`), come back with its disk
(`power_on`) or without it (`replace`), and be cut off (`cut`, `join`). Needs root on Linux, ``ip`` and ``unshare``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.tools.hosts.host import Host
from tests.tools.hosts.network import Network

__all__ = ["Host", "Network", "hosts", "why_no_hosts"]

_PROGRAMS = ("ip", "unshare", "nsenter")


@contextmanager
def hosts(number: int) -> Iterator[tuple[list[Host], Network]]:
    """Make hosts h0, h1, … that are on, and their network. Afterwards nothing is left of them, whatever happened."""
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="aiqh", dir="/tmp")))
        network = Network()
        undo.callback(network.remove)
        made = [Host(each, network, folder) for each in range(number)]
        lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in made)]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        for host in made:
            undo.callback(host.power_off)
            host.power_on()
        yield made, network


def why_no_hosts() -> str:
    """Return in a sentence why hosts can't be made here; empty if they can."""
    if sys.platform != "linux":
        return "hosts are namespaces of the Linux kernel"
    if os.geteuid():
        return "only root can make hosts (namespaces with a network of their own)"
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"making hosts needs {', '.join(missing)} (Debian, Ubuntu: apt install iproute2 util-linux)"
    tried = subprocess.run(
        ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces can be made here: {tried.stderr.strip()}" if tried.returncode else ""
