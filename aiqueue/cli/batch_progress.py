"""How far a batch is: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from aiqueue.batch_views import BatchInfo

_LOOK_S = 0.2
_LINE_S = 5.0  # between lines where there is no terminal


def follow(console: Console, ask: Callable[[], BatchInfo]) -> BatchInfo:
    """Show how far a batch is until it has ended; return it then. Ctrl-C comes through."""
    return _bar(console, ask) if console.is_terminal else _lines(console, ask)


def line_of(info: BatchInfo) -> str:
    """Return how a batch stands as one line: rows, rate, time left, failures."""
    ended = info.completed + info.failed + info.cancelled
    return f"{ended}/{info.total}  {info.percent:.1f}%  {_details(info)}"


def _details(info: BatchInfo) -> str:
    left = "" if info.eta_s is None else f"  {_clock(info.eta_s)} left"
    failed = f"  {info.failed} failed" if info.failed else ""
    return f"{info.rate:.1f}/s{left}{failed}"


def _bar(console: Console, ask: Callable[[], BatchInfo]) -> BatchInfo:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[details]}"),
    )
    with Progress(*columns, console=console) as bar:
        info = ask()
        task = bar.add_task(info.name or "batch", total=info.total, details="")
        while True:
            ended = info.completed + info.failed + info.cancelled
            bar.update(task, completed=ended, total=info.total, details=_details(info))
            if info.has_ended:
                return info
            time.sleep(_LOOK_S)
            info = ask()


def _lines(console: Console, ask: Callable[[], BatchInfo]) -> BatchInfo:
    printed_at = float("-inf")
    while not (info := ask()).has_ended:
        if time.monotonic() - printed_at >= _LINE_S:
            printed_at = time.monotonic()
            console.print(line_of(info), markup=False)
        time.sleep(_LOOK_S)
    console.print(line_of(info), markup=False)
    return info


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
