"""A host: to the programs on it a machine of its own, which may lose its power, its disk or its cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from tests.tools.hosts.network import Network

ROOT = Path(__file__).resolve().parents[3]
_KEPT = (ROOT, Path(sys.prefix), Path(sys.base_prefix))  #: folders that each host sees where they are
_INIT = Path(__file__).with_name("init.py")
_END_S = 20.0
# What a new machine would not have in its environment.
_OURS = ("RAY_", "AIQUEUE_", "OPENAI_", "ANTHROPIC_", "PYTEST_")


class Process:
    """A program on a host, which ends with the host. What it says is kept outside."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen, self._log = popen, log

    def said(self) -> str:
        """Return all it has written."""
        return self._log.read_text(errors="replace")

    def ended(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def wait_for(self, text: str, limit_s: float = 90.0) -> None:
        """Wait until it says ``text``. Fails if it ends before, or takes longer."""
        give_up_at = time.monotonic() + limit_s
        while text not in self.said():
            assert self.ended() is None, f"it ended ({self.ended()}) and had not said {text!r}: {self._last()}"
            assert time.monotonic() < give_up_at, f"it has not said {text!r} within {limit_s:g} s: {self._last()}"
            threading.Event().wait(0.05)

    def wait(self, limit_s: float) -> int:
        """Wait for its end and return its exit status. Fails if it takes longer."""
        try:
            return self._popen.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {limit_s:g} s: {self._last()}") from None

    def end(self, number: signal.Signals = signal.SIGTERM, limit_s: float = _END_S) -> int:
        """Send it a signal and return its exit status."""
        for program in self._programs():
            with suppress(psutil.NoSuchProcess):
                program.send_signal(number)
        return self.wait(limit_s)

    def _last(self) -> str:
        return self.said()[-3_000:]

    def _programs(self) -> list[psutil.Process]:
        """Return what nsenter has started, since that passes no signals on. Empty if it has ended."""
        while self.ended() is None:
            if found := psutil.Process(self._popen.pid).children():
                return found
            threading.Event().wait(0.01)  # it has yet to start it
        return []


class Host:
    """One host. ``disk`` is where its disk lies outside, ``place`` where programs on any host find their own one.

    Its ``/tmp``, ``/dev/shm`` and memory are new each time it is powered on; its disk is what it was. That is kinder
    than a power cut in one way: what was written and not yet synced is there too.
    """

    def __init__(self, number: int, network: Network, folder: Path) -> None:
        self.name, self.address = f"h{number}", network.address_of(10 + number)
        self.disk, self.place = folder / self.name, folder / "disk"
        self._number, self._network, self._folder = 10 + number, network, folder
        self._init: subprocess.Popen[str] | None = None
        self._pid = 0
        self._started: list[Process] = []
        self.disk.mkdir()

    def power_on(self) -> None:
        """Start it. Returns when it can be used; nothing runs there yet."""
        assert self._init is None, f"{self.name} is on"
        own = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
        paths = (self._folder / "hosts", self.disk, self.place, *{path for path in _KEPT if path.is_dir()})
        errors = self._folder / f"{self.name}.log"
        with errors.open("w") as written:
            self._init = subprocess.Popen(
                ["unshare", *own, sys.executable, "-I", str(_INIT), self.name, *map(str, paths)],
                stdin=subprocess.PIPE,  # its end ends the host, should this process be killed
                stdout=subprocess.PIPE,
                stderr=written,
                text=True,
                process_group=0,
            )
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == "ready\n", f"{self.name} did not start: {errors.read_text()}"
        (init,) = psutil.Process(self._init.pid).children()
        self._network.plug(self._number, init.pid)
        (self.disk / "home").mkdir(exist_ok=True)
        self._pid = init.pid

    def power_off(self) -> None:
        """Let it lose its power, if it is on: its peers hear nothing more, not even that a connection ends."""
        if self._init is None:
            return
        if self._pid:
            self._network.cut(self._number)
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        else:
            self._init.kill()  # it never came up, and ends with this
        self._init.wait(_END_S)
        for pipe in (self._init.stdin, self._init.stdout):
            if pipe is not None:
                pipe.close()
        for process in self._started:
            process.end(signal.SIGKILL)
        self._network.unplug(self._number)
        self._init, self._pid, self._started = None, 0, []

    def replace(self) -> None:
        """Put another machine in its place, with an empty disk and the same name and address. It is off."""
        self.power_off()
        shutil.rmtree(self.disk)
        self.disk.mkdir()

    def cut(self) -> None:
        """Pull its network cable."""
        self._network.cut(self._number)

    def join(self) -> None:
        """Put its network cable back."""
        self._network.join(self._number)

    def run(self, *command: str, env: Mapping[str, str] | None = None, limit_s: float = 60.0) -> str:
        """Run a program to its end and return what it said. Fails with that unless the status is 0."""
        process = self.start(*command, env=env)
        status = process.wait(limit_s)
        assert status == 0, f"{' '.join(command)} on {self.name}: status {status}: {process.said()}"
        return process.said()

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a program and let it run."""
        log = self._folder / f"{self.name}-{time.time_ns()}.log"
        with log.open("w") as out:
            popen = subprocess.Popen(
                self._inside(command),
                env=self._environment(env),
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self._started.append(Process(popen, log))
        return self._started[-1]

    def _inside(self, command: Iterable[str]) -> list[str]:
        assert self._pid, f"{self.name} is off"
        return [
            *("nsenter", f"--target={self._pid}", "--mount", "--uts", "--ipc", "--net", "--pid"),
            *(f"--wdns={self.place}", "--", *command),
        ]

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_OURS) and not name.lower().endswith("_proxy")
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        home = {"HOME": str(self.place / "home"), "TMPDIR": "/tmp", "HOSTNAME": self.name}
        return {**kept, **home, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(more or {})}
