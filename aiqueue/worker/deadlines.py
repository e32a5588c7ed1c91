"""When running jobs must have ended.

As ``asyncio.timeout``, but with one timer for all jobs of a worker: a timer for each takes a fifth of the time that a
worker spends on a job.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class DeadlinePassed(Exception):
    """Ends a job that has not ended in time."""


class Deadline:
    """The end of one job's time. ``with`` it around the job; raises DeadlinePassed there, once what it stopped ends."""

    __slots__ = ("_cancelling", "_owner", "_task", "due", "name", "passed")

    def __init__(self, owner: Deadlines, name: str, due: float) -> None:
        self._owner = owner
        self.name, self.due = name, due
        self.passed = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._owner.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.remove(self)
        # Where somebody else has cancelled the job as well, it stays cancelled.
        if self.passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise DeadlinePassed from error

    def stop(self) -> None:
        """Cancel the job."""
        self.passed = True
        self._task.cancel()


class Deadlines:
    """Those of one worker's jobs."""

    def __init__(self) -> None:
        self._open: dict[Deadline, None] = {}  # in order, so that they pass in the order they were opened
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0  # kept here since a timer of uvloop's that is due at once has no `when`

    def within(self, seconds: float, name: str) -> Deadline:
        """Return the deadline of the job called ``name`` that begins now."""
        return Deadline(self, name, asyncio.get_running_loop().time() + seconds)

    def longest_overrun(self, *, now: float) -> tuple[float, str]:
        """Return by how many seconds a job has outlived its time and still runs, and which; 0.0 and "" where none has.

        ``now``: by the loop's clock.
        """
        first = min(self._open, key=_due, default=None)
        return (now - first.due, first.name) if first and first.due < now else (0.0, "")

    def add(self, deadline: Deadline) -> None:
        """Watch it."""
        self._open[deadline] = None
        if self._timer is None or deadline.due < self._rings_at:
            self._arm(deadline.due)

    def remove(self, deadline: Deadline) -> None:
        """Watch it no longer. Its timer stays: most jobs end in time, and the next one needs it too."""
        self._open.pop(deadline, None)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = asyncio.get_running_loop().call_at(due, self._look, due), due

    def _look(self, due: float) -> None:
        self._timer = None
        for deadline in self._open:
            if not deadline.passed and deadline.due <= due:
                deadline.stop()
        later = min((deadline.due for deadline in self._open if not deadline.passed), default=None)
        if later is not None:
            self._arm(later)


def _due(deadline: Deadline) -> float:
    return deadline.due
