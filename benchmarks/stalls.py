"""The longest standstill of the queue's event loop while something happens to very many jobs at once.

``python -m benchmarks stalls`` tries each case with 100,000 jobs; ``AIQUEUE_STALLS=1000000`` with a million, and
``AIQUEUE_STALLS_ONLY=seal,cancel`` only those cases. No Ray: the service and its SQLite journal in this process.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aiqueue.journal.sqlite import SqliteJournal
from benchmarks.harness import Figure
from benchmarks.stall_cases import CASES
from benchmarks.stall_stage import Case, Stage


class Meter:
    """Measures each step of the event loop: by the clock, and by this thread's share of the processor."""

    def __init__(self) -> None:
        self.longest_s = self.longest_cpu_s = 0.0
        self._run = asyncio.Handle._run  # type: ignore[attr-defined]

    def __enter__(self) -> Meter:
        def timed(handle: asyncio.Handle) -> None:
            begun, cpu = time.perf_counter(), time.thread_time()
            self._run(handle)
            self.longest_cpu_s = max(self.longest_cpu_s, time.thread_time() - cpu)
            self.longest_s = max(self.longest_s, time.perf_counter() - begun)

        asyncio.Handle._run = timed  # type: ignore[attr-defined]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run  # type: ignore[attr-defined]


def run() -> Iterator[Figure]:
    """Yield the figures: two for each case."""
    gc.set_threshold(50_000, 20, 100)  # as the queue actor does
    asked = int(os.environ.get("AIQUEUE_STALLS", "100000"))
    only = os.environ.get("AIQUEUE_STALLS_ONLY")
    for case in CASES:
        if only and case.name not in only.split(","):
            continue
        size = min(asked, case.most or asked)
        limit = "<= 200" if size >= 1_000_000 else "<= 50"
        longest_s, cpu_s, total_s = _measured(case, size)
        name = f"{case.name}, {size:,}"
        yield Figure(name=f"{name}: longest standstill", value=longest_s * 1e3, unit="ms")
        yield Figure(name=f"{name}: of the processor in it", value=cpu_s * 1e3, unit="ms", floor=limit)
        yield Figure(name=f"{name}: in all", value=total_s, unit="s")


def _measured(case: Case, size: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory(prefix="aiq", ignore_cleanup_errors=True) as folder:
        return asyncio.run(_measure(case, size, Path(folder) / "journal.db"))


async def _measure(case: Case, size: int, path: Path) -> tuple[float, float, float]:
    stage = Stage(SqliteJournal(path))
    try:
        steps = case.play(stage, size)
        await anext(steps)  # what must be there before
        gc.collect()
        with Meter() as meter:
            await asyncio.sleep(0)  # the step that is running was begun without the meter
            begun = time.perf_counter()
            await anext(steps, None)
            total = time.perf_counter() - begun
        await steps.aclose()
        return meter.longest_s, meter.longest_cpu_s, total
    finally:
        await stage.service.close()
