"""Many seeds, in several processes."""

from __future__ import annotations

import gc
import logging
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from aiqueue.testing.simulation.run import Report, simulate

_CHUNK = 100


def run_chunk(first: int, count: int, only: Collection[str] = ()) -> list[Report]:
    """Return the reports of the seeds that broke a promise."""
    with quiet():
        return [report for seed in range(first, first + count) if (report := simulate(seed, only)).violations]


def _collect_less() -> None:
    """Let the garbage collector look at what a run leaves, and not again and again at what was imported."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing: a storm makes warnings without end."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def failures(first: int, count: int, jobs: int, only: Collection[str] = ()) -> Iterator[Report]:
    """Run seeds in several processes; yield the reports of those that broke a promise."""
    chunks = [(at, min(_CHUNK, first + count - at)) for at in range(first, first + count, _CHUNK)]
    spawn = get_context("spawn")  # a test's process has threads
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_collect_less) as pool:
        for reports in pool.map(run_chunk, *zip(*((*chunk, only) for chunk in chunks), strict=True)):
            yield from reports
