"""How far the demo is: live bars by level in a terminal, a line for each job elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from aiqueue.cli.demo_prompts import DemoJob
from aiqueue.client.display import duration
from aiqueue.levels import LEVELS
from aiqueue.views import JobInfo


class DemoProgress(Protocol):
    """Told of every job that ends, from any thread."""

    def __enter__(self) -> DemoProgress:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show no more."""
        ...

    def ended(self, info: JobInfo) -> None:
        """Count a job that has ended."""
        ...


def demo_progress(console: Console, jobs: Iterable[DemoJob]) -> DemoProgress:
    """Return what suits ``console``."""
    totals = {level.value: 0 for level in LEVELS}
    for job in jobs:
        totals[job.priority] += 1
    return _Bars(console, totals) if console.is_terminal else _Lines(console, totals)


class _Bars:
    def __init__(self, console: Console, totals: dict[str, int]) -> None:
        columns = (TextColumn("{task.description:7}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console)
        self._tasks = {level: self._bars.add_task(level, total=total) for level, total in totals.items() if total}

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def ended(self, info: JobInfo) -> None:
        self._bars.advance(self._tasks[info.priority])


class _Lines:
    def __init__(self, console: Console, totals: dict[str, int]) -> None:
        self._console, self._total, self._count = console, sum(totals.values()), 0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ended(self, info: JobInfo) -> None:
        self._count += 1
        took = duration(info.sla_compliance.actual_ms if info.sla_compliance else None)
        self._console.print(f"[{self._count}/{self._total}] {info.priority:7} {info.status} {took}", markup=False)
        self._console.file.flush()  # into a pipe or a job's log as it happens
