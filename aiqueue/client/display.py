"""Progress bars and tables, for notebooks and terminals. Nothing here needs Ray."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Protocol

from rich.table import Table
from rich.text import Text

from aiqueue.batch_views import BatchInfo
from aiqueue.levels import LEVELS
from aiqueue.views import JobInfo, QueueStats

_CELL = 160  # characters of a prompt or an answer in a table


class Waits(Protocol):
    """What ``progress`` needs of an adapter."""

    def wait_all(self, job_ids: Sequence[str], on_end: Callable[[JobInfo], None] | None = None) -> list[JobInfo]:
        """Wait until all jobs have ended; ``on_end`` is called as each one ends."""
        ...


class Watches(Protocol):
    """What ``batch_progress`` needs of an orchestrator."""

    def get_batch_job_status(self, batch_id: str) -> BatchInfo:
        """Return how a batch stands."""
        ...


def progress(adapter: Waits, job_ids: Sequence[str], *, label: str = "jobs") -> list[JobInfo]:
    """Wait for all jobs under a progress bar and return them in order.

    A widget in Jupyter where ipywidgets is installed, else a bar of text. Raises what ``wait_all`` raises.
    """
    failed = 0
    with _bar(label, len(job_ids)) as bar:

        def ended(info: JobInfo) -> None:
            nonlocal failed
            if info.status != "completed":
                failed += 1
                bar.set_postfix_str(f"{failed} not completed", refresh=False)
            bar.update()

        return adapter.wait_all(job_ids, ended)


def batch_progress(orchestrator: Watches, batch_id: str, *, look_s: float = 0.2) -> BatchInfo:
    """Wait for the end of a batch, a chain or a graph under a progress bar and return how it stands then.

    Rows, rate, time left, failures, whoever submitted it. Looks every ``look_s`` seconds. Raises BatchNotFound.
    """
    info = orchestrator.get_batch_job_status(batch_id)
    with _bar(info.name or info.kind, info.total) as bar:
        while True:
            bar.set_postfix_str(f"{info.failed} failed" if info.failed else "", refresh=False)
            bar.update(info.completed + info.failed + info.cancelled - bar.n)
            if info.has_ended:
                return info
            time.sleep(look_s)
            info = orchestrator.get_batch_job_status(batch_id)


def answers_table(infos: Sequence[JobInfo], prompts: Mapping[str, str] | None = None) -> Table:
    """Return the jobs and their answers, in the order given; ``prompts`` has the prompt of each id."""
    table = Table("level", show_lines=True)
    if prompts is not None:
        table.add_column("prompt", ratio=2)
    table.add_column("answer", ratio=3)
    for name in ("tokens", "latency"):
        table.add_column(name, justify="right", no_wrap=True)
    for info in infos:
        prompt = [] if prompts is None else [_short(prompts.get(info.job_id, ""))]
        tokens = str(info.result.tokens) if info.result else ""
        table.add_row(info.priority, *prompt, _outcome(info), tokens, duration(_latency(info)))
    return table


def sla_table(infos: Sequence[JobInfo]) -> Table:
    """Return by level: how many jobs, what the level promises, how long they took, and how many kept the promise.

    A job that did not complete has no time and did not keep it.
    """
    table = Table("level", title="SLA: from accepted to result on disk")
    for name in ("jobs", "target", "p50", "max", "met"):
        table.add_column(name, justify="right")
    for level in LEVELS:
        jobs = [info for info in infos if info.priority == level]
        times = [time for info in jobs if (time := _latency(info)) is not None]
        if jobs:
            target = next((info.sla_compliance.target_ms for info in jobs if info.sla_compliance), None)
            met = sum(info.sla_compliance is not None and info.sla_compliance.met for info in jobs)
            table.add_row(
                level.value,
                str(len(jobs)),
                duration(target),
                duration(median(times) if times else None),
                duration(max(times, default=None)),
                f"{met / len(jobs):.0%}",
            )
    return table


def stats_table(stats: QueueStats) -> Table:
    """Return the queue's levels as a table."""
    table = Table("level", title="levels")
    for name in ("queued", "processing", "completed", "SLA", "p50", "p99", "met"):
        table.add_column(name, justify="right")
    for level in stats.levels:
        counts = (level.queued, level.processing, level.completed)
        times = (level.sla_ms, level.latency_p50_ms, level.latency_p99_ms)
        met = f"{level.sla_compliance:.0%}" if level.completed else "–"
        table.add_row(level.level, *(str(count) for count in counts), *(duration(time) for time in times), met)
    return table


def duration(milliseconds: float | None) -> str:
    """Return a duration for people.

    >>> duration(41.7), duration(1_234.0), duration(None)
    ('42 ms', '1.23 s', '–')
    """
    if milliseconds is None:
        return "–"
    return f"{milliseconds:.0f} ms" if milliseconds < 1_000 else f"{milliseconds / 1e3:,.2f} s"


def _bar(label: str, total: int) -> Any:
    """Return tqdm's bar for wherever this runs; on stdout, since it is no error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a notebook without ipywidgets gets a bar of text is fine
        from tqdm.auto import tqdm
    return tqdm(total=total, desc=label, unit="job", file=sys.stdout)


def _outcome(info: JobInfo) -> Text:
    """Return the answer, or what went wrong. A Text and not a str: rich would take ``[/b]`` in it for markup."""
    if info.result:
        return _short(info.result.text)
    return Text(f"{info.status}: {info.error.message if info.error else 'no reason given'}", style="red")


def _short(text: str) -> Text:
    line = " ".join(text.split())
    return Text(line if len(line) <= _CELL else f"{line[: _CELL - 1]}…")


def _latency(info: JobInfo) -> float | None:
    return info.sla_compliance.actual_ms if info.sla_compliance else None
