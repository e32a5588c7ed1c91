"""The program that Serve starts as HAProxy: it changes the configuration, leaves a guard behind and becomes HAProxy.

Serve takes six seconds and more to notice that HAProxy or its manager has died and to start another one. The guard
notices at once. It runs a HAProxy of its own until Serve's next one serves, and ends HAProxy when Ray's node process
ends, which leaves it behind otherwise. Only the standard library is imported: Serve waits for this at every reload.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from serve import haproxy_config

_STOPPING = "stopping"  # a file in the system's folder: HAProxy is about to be ended on purpose
PROGRAM = "haproxy"  #: of the system's folder
_SECRET = "secret"
_ENTERED = "AIQUEUE_HAPROXY"  # a variable that this program's children inherit
_SCRIPT = """#!/bin/sh
# Started by Ray Serve as HAProxy.
exec '{python}' -I -S -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); \
from serve.haproxy_program import main; main()' '{root}' '{folder}' '{haproxy}' "$@"
"""
_LOOK_S = 0.1
_MAX_STARTS = 20  # of a HAProxy that keeps ending
_BRIDGE_S = 60.0  # Serve needs some 8 s; after a minute there is no Serve any more


def install(folder: Path, secret: str, haproxy: str) -> Path:
    """Write the program and what it needs into a system's private folder on this node; return its path."""
    _write(folder / _SECRET, secret.encode(), 0o600)
    program = folder / PROGRAM
    root = Path(__file__).resolve().parent.parent
    _write(program, _SCRIPT.format(python=sys.executable, root=root, folder=folder, haproxy=haproxy).encode(), 0o700)
    return program


def read_secret(folder: Path) -> str:
    """Return the secret of the system whose private folder this is."""
    return (folder / _SECRET).read_text()


def leave_unguarded(folder: Path) -> None:
    """Let HAProxy, whose end is meant, be ended: nothing on this node starts it again."""
    if folder.exists():
        (folder / _STOPPING).touch()


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that no one ever sees half of it: Serve may start the program at any time."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)


def main() -> None:
    """Become HAProxy: ``main FOLDER HAPROXY ARGUMENT…`` with the arguments that Serve gives."""
    if _ENTERED in os.environ:
        sys.exit(f"{sys.argv[2]} is to be HAProxy, and is this program again")
    os.environ[_ENTERED] = "1"
    folder, haproxy, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    # Without -dR the port may be shared: with who holds it for us, and with the guard's HAProxy.
    arguments = [argument for argument in arguments if argument != "-dR"]
    if "-f" in arguments:
        config_path = Path(arguments[arguments.index("-f") + 1])
        here = config_path.parent
        for name, answer in haproxy_config.error_files().items():
            _write(here / name, answer, 0o600)
        config = haproxy_config.changed(config_path.read_text(), secret=read_secret(folder), folder=here)
        _write(config_path, config.encode(), 0o600)
        _leave_guard(Guard(folder, here, haproxy, config))
    os.execv(haproxy, [haproxy, *arguments])


def _leave_guard(guard: Guard) -> None:
    """Run a guard of this process in another one, which is no child of HAProxy's and not in its process group."""
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            try:
                guard.run()
            finally:
                os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)


class Guard:
    """Watches one HAProxy, the process that makes this object, from another process."""

    def __init__(self, folder: Path, here: Path, haproxy: str, config: str) -> None:
        self._folder, self._here, self._haproxy, self._config = folder, here, haproxy, config
        self._socket = Path(next(line.split()[2] for line in config.splitlines() if "stats socket" in line))
        manager = os.getppid()
        self._proxy = _open(os.getpid())
        self._proxy_pid = os.getpid()
        self._manager = _open(manager)
        self._node = _open(_parent(manager))
        self._starts = 0
        self._bridge: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Watch until another HAProxy has taken over, the system stops or Ray's node process ends."""
        watched = {self._proxy, self._manager, self._node}
        _ended(watched, None)
        until = time.monotonic() + _BRIDGE_S
        while time.monotonic() < until:
            if self._is_stopping() or _ended({self._node}, 0.0):
                break
            if self._has_successor(ready=self._bridge is not None or not _ended({self._proxy}, 0.0)):
                self._stop_softly()
                return
            self._keep_serving()
            _ended({self._node}, _LOOK_S)
        self._kill()

    def _keep_serving(self) -> None:
        """Start a HAProxy if none of this guard's runs."""
        if self._bridge is None and not _ended({self._proxy}, 0.0):
            return
        if (self._bridge is not None and self._bridge.poll() is None) or self._starts == _MAX_STARTS:
            return
        self._starts += 1
        path = self._here / "b.cfg"
        _write(path, haproxy_config.substitute(self._config, self._here / "b").encode(), 0o600)
        self._bridge = subprocess.Popen([self._haproxy, "-db", "-f", str(path)], stdin=subprocess.DEVNULL)

    def _has_successor(self, *, ready: bool) -> bool:
        """Tell whether Serve has another HAProxy; if ``ready``, one that knows what to serve.

        At a reload it is there before this one ends, and has a guard of its own.
        """
        answer = ask(self._socket, "show info;show stat")
        pids = [line.split(":", 1)[1].strip() for line in answer.splitlines() if line.startswith("Pid:")]
        knows = any(line.startswith("http-") and ",BACKEND," in line for line in answer.splitlines())
        return (knows or not ready) and bool(pids) and pids[0] != str(self._proxy_pid)

    def _is_stopping(self) -> bool:
        return not self._here.exists() or (self._folder / _STOPPING).exists()

    def _stop_softly(self) -> None:
        self._signal(signal.SIGUSR1)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._proxy, number)
        if self._bridge is not None:
            self._bridge.send_signal(number)


def _open(pid: int) -> int:
    return os.pidfd_open(pid)


def _parent(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rsplit(")", 1)[1].split()[1])


def _ended(watched: set[int], timeout_s: float | None) -> bool:
    """Wait for one of several processes to end; tell whether one has."""
    return bool(select.select(list(watched), [], [], timeout_s)[0])


def ask(path: Path, command: str) -> str:
    """Return what HAProxy answers on its administration socket; empty if it does not."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2.0)
        try:
            connection.connect(str(path))
            connection.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65_536), b"")).decode(errors="replace")
        except OSError:
            return ""
