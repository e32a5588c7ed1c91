"""Ports: found free and held until their user has bound them, and who holds one that is taken."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from aiqueue.errors import StartError

_LISTENING = "0A"  # in /proc/net/tcp


class HeldPorts:
    """Ports that are bound and not listened on, so that nobody else is given them.

    HAProxy and Serve's proxies bind with SO_REUSEPORT, which lets them, and only processes of this user, in beside us.
    The ports stay held while a proxy is being replaced, until ``release``.
    """

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def hold(self, host: str, port: int = 0) -> int:
        """Hold a port, any free one for 0; return it. Raises StartError if it is in use."""
        if port in self._sockets:
            return port
        if port:
            check_free(host, port)
        opened = _socket(host)
        try:
            if port:  # a free one is chosen among those that nobody shares
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            opened.bind((host, port))
        except OSError as error:
            opened.close()
            raise _refused(host, port, error) from error
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port = int(opened.getsockname()[1])
        self._sockets[port] = opened
        return port

    def release(self) -> None:
        """Give the ports back."""
        while self._sockets:
            self._sockets.popitem()[1].close()


def check_free(host: str, port: int) -> None:
    """Raise StartError, which names the port and the program that holds it, if ``port`` can't be bound."""
    with _socket(host) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that were closed may linger
        try:
            opened.bind((host, port))
        except OSError as error:
            raise _refused(host, port, error) from error


def holder_of(port: int) -> str:
    """Return the program that listens on a port and its process id, if this user may know; else an empty text."""
    inodes = set(_listening(port))
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for link in (folder / "fd").iterdir():
                if os.readlink(link) in inodes:
                    return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
    return ""


def _listening(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENING and int(words[1].rsplit(":", 1)[1], 16) == port:
                    yield f"socket:[{words[9]}]"


def _refused(host: str, port: int, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        by = f" by {holder}" if holder else ""
        return StartError(f"port {port} on {host} is in use{by}: end that program, or set http.port to another port")
    return StartError(f"port {port} on {host} can't be used: {error.strerror}; set http.host and http.port")


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
