"""The first process of a host: it makes the host's own file systems and waits until its owner lets go of it.

Its end is the end of everything in the host's PID namespace. Run as a program, before anything of the project is there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

_BIND = 0x1000
_SCRATCH = "mode=1777,size=2g"


def main(name: str, names: str, disk: str, place: str, *kept: str) -> None:
    """Set the host up: ``disk`` is seen at ``place``, ``names`` as ``/etc/hosts``, ``kept`` folders where they are."""
    folders = {path: os.open(path, os.O_PATH) for path in kept}  # before the new /tmp hides what lies below the old one
    folders[place] = os.open(disk, os.O_PATH)
    socket.sethostname(name)
    _mount(names, "/etc/hosts", flags=_BIND)
    for scratch in ("/tmp", "/dev/shm"):
        _mount("tmpfs", scratch, "tmpfs", data=_SCRATCH)
    for path, folder in folders.items():
        os.makedirs(path, exist_ok=True)
        _mount(f"/proc/self/fd/{folder}", path, flags=_BIND)
        os.close(folder)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans end here, and the kernel then reaps them by itself
    print("ready", flush=True)
    sys.stdin.read()


def _mount(source: str, target: str, kind: str = "", *, flags: int = 0, data: str = "") -> None:
    # Not mount(8): it resolves /proc/self/fd/... to a path that is hidden by then.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {source} on {target}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
