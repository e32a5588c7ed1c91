"""How tests start, ask and end a queue process, and how they get at its system calls."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 30.0  # a limit, not a delay


class Refused(Exception):
    """The queue answered with an error."""


class QueueProcess:
    """A queue in a process of its own. Raises Refused if it does not start."""

    def __init__(self, journal: Path, *, heartbeat_s: float = 30.0, bug: str = "") -> None:
        command = [sys.executable, "-m", "tests.faults.queue_process", str(journal), str(heartbeat_s)]
        command += [bug] if bug else []
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {0: queue.Queue()}
        self._numbers = 0
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.pid = int(self.wait(0))

    def send(self, ask: str, **request: Any) -> int:
        """Ask for something; return the number that ``wait`` takes."""
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._answers[number] = queue.Queue()
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"number": number, "ask": ask, **request}).encode() + b"\n")
            self._process.stdin.flush()
        return number

    def wait(self, number: int, *, limit_s: float = WAIT_S) -> Any:
        """Return the answer. Raises Refused, or queue.Empty if there is none in time."""
        said = self._answers[number].get(timeout=limit_s)
        if "error" in said:
            raise Refused(said["error"])
        return said["answer"]

    def call(self, ask: str, **request: Any) -> Any:
        """Ask, and wait for the answer."""
        return self.wait(self.send(ask, **request))

    def submit(self, *ids: str, payload: int = 400) -> Any:
        """Submit jobs, all in one group; return when they are acknowledged."""
        return self.call("submit", ids=ids, payload=payload)

    def states(self, ids: list[str]) -> list[str | None]:
        """The states of jobs; None for those unknown."""
        return [found and found[0] for found in self.call("look", ids=ids)]

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._end()

    def stop(self) -> None:
        """Let it close its journal and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._end()
        assert self._process.returncode == 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._answers[said["number"]].put(said)
        complaint = self._process.stderr.read().decode().strip()
        for waiting in list(self._answers.values()):
            waiting.put({"error": f"the process ended: {complaint}"})

    def _end(self) -> None:
        self._process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


@contextmanager
def running(journal: Path, *, heartbeat_s: float = 30.0, bug: str = "") -> Iterator[QueueProcess]:
    """A queue process for the length of the block."""
    process = QueueProcess(journal, heartbeat_s=heartbeat_s, bug=bug)
    try:
        yield process
    finally:
        if process._process.poll() is None:
            process.signal(signal.SIGCONT)
            process.kill()


@contextmanager
def strace(pid: int, *options: str) -> Iterator[None]:
    """Trace all threads of a process for the length of the block. Skips the test where that is not possible."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("needs strace: apt install strace")
    command = [program, "-f", "-p", str(pid), *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace can't trace processes here: {said.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # it lets go of the process, which goes on
        tracer.communicate(timeout=WAIT_S)
