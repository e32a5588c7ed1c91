"""``aiqueue up`` as a user runs it: a process with a Ray of its own, that a test may end in any way."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tools.autoscaled_ray import processes_of

_START_S, _END_S = 120.0, 60.0
_URL = re.compile(r"HTTP +(http://[^ ]+)")
_TOO_BUSY = "Ray's processes were not up within 30 s"


class RunningUp:
    """One ``aiqueue up``. ``url`` is where it serves."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._log, self._options = folder, folder / "up.log", options
        self._process = self._begun()
        while (url := self._served_at()) is None:
            self.kill_everything()
            self._process = self._begun()
        self.url = url

    def _begun(self) -> subprocess.Popen[bytes]:
        with self._log.open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-u", "-m", "aiqueue", "up", "--port=0", *self._options],
                env={**os.environ, "RAY_TMPDIR": str(self._folder), "COLUMNS": "200"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def folder(self) -> str:
        """The folder of its Ray, which all of its processes have in their environment."""
        return str(self._folder)

    def terminate(self) -> int:
        """Send SIGTERM to it alone, as a supervisor does; return its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {_END_S:g} s of SIGTERM: {self._log.read_text()}") from None

    def kill_everything(self) -> int:
        """Send SIGKILL to it, its Ray and all actors, as a power cut would; return how many processes that were."""
        killed = set[int]()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        while pids := self.processes():  # Ray's own processes start others, until they are gone
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(pids)
            self._process.poll()
            time.sleep(0.05)
        self._process.wait(_END_S)
        return len(killed)

    def processes(self) -> list[int]:
        """Return the processes that belong to it."""
        return processes_of(str(self._folder))

    def _served_at(self) -> str | None:
        """Return its address; None if the machine was too busy for Ray, and it said so."""
        give_up_at = time.monotonic() + _START_S
        while not (found := _URL.search(self._log.read_text())):
            has_ended = self._process.poll() is not None
            said = self._log.read_text()
            if has_ended and _TOO_BUSY in said:
                return None
            assert not has_ended, said
            assert time.monotonic() < give_up_at, said
            time.sleep(0.1)
        return found[1]


@contextmanager
def running_up(*options: str) -> Iterator[RunningUp]:
    """Run ``aiqueue up`` with these options while the block lasts; whatever is left of it then is killed."""
    folder = Path(tempfile.mkdtemp(prefix="aiqu"))  # short: sockets lie below it
    up = None
    try:
        up = RunningUp(folder, *options)
        yield up
    finally:
        if up is not None:
            up.kill_everything()
        else:
            for pid in processes_of(str(folder)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
