"""Times as users see them: by the machine's clock, also after somebody has set it.

The queue's own clock never jumps, so a queue that started under a wrong clock would show wrong times for ever. What is
shown is moved by what separates the two clocks now: once the machine's clock is right, so is all that is shown, what
happened before included. Between two settings of the clock a time is always shown the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from aiqueue.batch_protocol import BatchView
from aiqueue.engine.due import delayed_until, runs_at
from aiqueue.engine.records import decode_attempt, encode_attempt
from aiqueue.engine.states import JobState
from aiqueue.protocol import Event, JobView


def show_job(view: JobView, ahead_s: float) -> JobView:
    """Bring the times of a job just read from the journal to the machine's clock; return the job."""
    header = view.header
    if view.status == JobState.SCHEDULED and not view.attempt:
        view.run_at = max(runs_at(header), _moved(delayed_until(header), ahead_s))
    elif ahead_s:
        view.run_at = _moved(view.run_at, ahead_s)
    if ahead_s:
        header.created_at = _moved(header.created_at, ahead_s)
        view.started_at, view.finished_at = _moved(view.started_at, ahead_s), _moved(view.finished_at, ahead_s)
        view.attempts = [_show_attempt(body, ahead_s) for body in view.attempts]
    return view


def show_batch(view: BatchView, ahead_s: float) -> BatchView:
    """As ``show_job``, for a batch."""
    view.created_at, view.ended_at = _moved(view.created_at, ahead_s), _moved(view.ended_at, ahead_s)
    return view


def show_events(events: Iterable[Event], ahead_s: float) -> None:
    """As ``show_job``, for events that are about to be published."""
    if ahead_s:
        for event in events:
            event.at = _moved(event.at, ahead_s)
            event.created_at, event.since = _moved(event.created_at, ahead_s), _moved(event.since, ahead_s)
            event.started_at, event.until = _moved(event.started_at, ahead_s), _moved(event.until, ahead_s)


def _show_attempt(body: bytes, ahead_s: float) -> bytes:
    record = decode_attempt(body)
    started_at, ended_at = _moved(record.started_at, ahead_s), _moved(record.ended_at, ahead_s)
    return encode_attempt(replace(record, started_at=started_at, ended_at=ended_at))


def _moved(at: float, ahead_s: float) -> float:
    """Return a time moved; 0, which stands for "not yet", is none."""
    return at + ahead_s if at else 0.0
