"""Values that no job can have: a flipped bit may leave a row that can be decoded.

Such a row must not be loaded. A level that does not exist ends the process, a time that is no number breaks the order
of a heap for all jobs in it, and a count beyond the database's integers fails the commit that it is part of.
"""

from __future__ import annotations

from aiqueue.engine.counters import Counters
from aiqueue.engine.records import Progress, StoredRow, decode_progress
from aiqueue.engine.states import MOVES, TERMINAL, JobState
from aiqueue.protocol import BatchSpec, JobHeader, decode_header

_MOST_S = 1e13  #: seconds: far beyond any date or duration that can be said
_MOST_MS = 2**53
_MOST = 2**31  #: attempts, retries, places in a batch
NEEDS_A_BATCH = "needs other jobs, which only jobs of a batch can"  #: why a job is refused
_ON_ERROR = frozenset({"", "fail", "skip", "include"})
_STATES = frozenset(
    state.value for state in MOVES.keys() - TERMINAL - {JobState.BLOCKED}
)  #: that rows of live jobs have


def is_time(seconds: float) -> bool:
    """Return True for a number of seconds that a clock can show; False for NaN."""
    return -_MOST_S < seconds < _MOST_S


def end_in(progress: bytes, otherwise: float) -> float:
    """Return when a job ended by its Progress; ``otherwise`` if that can't be decoded or holds no valid time.

    A NaN can't be written, and with an end of 0 or less a job would be kept for ever.
    """
    try:
        ended_at = decode_progress(progress).finished_at
    except ValueError:
        return otherwise
    return ended_at if is_time(ended_at) and ended_at > 0 else otherwise


def check_counters(counters: Counters) -> None:
    """Raise ValueError for counters with which no job can be accepted or ended."""
    totals = (counters.next_seq, counters.next_event, counters.next_batch, *counters.ended.values())
    if min(totals) < 0 or max(totals) >= _MOST_MS:
        raise ValueError(f"its totals are {totals}")
    if len(counters.completed) != len(Counters().completed) or len(counters.sla_met) != len(counters.completed):
        raise ValueError(f"its totals by level are {counters.completed} and {counters.sla_met}")
    for _, state in counters.cascades:
        JobState(state)


def check_level(job_id: str, level: int, levels: int) -> None:
    """Raise ValueError for a level that does not exist; ``levels``: the number of levels."""
    if not 0 <= level < levels:
        raise ValueError(f"job {job_id}: its level is {level}, and must be 0 to {levels - 1}")


def is_usual(header: JobHeader) -> bool:
    """Return True for a header without times or needs whose numbers are sound: most are, and this is quick.

    ``fault_in_header`` knows of the others. The ``|`` of numbers is as large as the largest, or negative if one is.
    """
    numbers = header.timeout_ms | header.max_retries | header.index | header.delay_ms | header.expires_in_ms
    return 0 <= numbers < _MOST and not (header.run_at or header.expires_at or header.needs)


def fault_in_header(header: JobHeader, levels: int) -> str:
    """Return which level, time or number is impossible, empty if none is; ``levels``: the number of levels."""
    if not 0 <= header.level < levels:
        return f"its level is {header.level}, and must be 0 to {levels - 1}"
    for at in (header.created_at, header.run_at, header.expires_at):
        if not is_time(at):
            return f"its header has the time {at}"
    if not 0 <= header.max_retries < _MOST or not 0 <= header.index < _MOST:
        return f"its header has {header.max_retries} retries and index {header.index}"
    if not (
        0 <= header.timeout_ms < _MOST_MS and 0 <= header.delay_ms < _MOST_MS and 0 <= header.expires_in_ms < _MOST_MS
    ):
        return (
            f"its header has a timeout of {header.timeout_ms} ms, a delay of {header.delay_ms} ms and expires in "
            f"{header.expires_in_ms} ms"
        )
    return ""


def fault_in_spec(spec: BatchSpec) -> str:
    """Return which limit of a batch is impossible, empty if none is: with it no job, or each, would stop the batch."""
    if not 0 <= spec.max_concurrency < _MOST:
        return f"max_concurrency is {spec.max_concurrency}, and must be 0 (no limit) or more"
    if not 0 <= spec.max_failed_ratio <= 1:
        return f"max_failed_ratio is {spec.max_failed_ratio}, and must be 0 to 1"
    return ""


def check_header(job_id: str, header: JobHeader, levels: int) -> None:
    """Raise ValueError for a header that no accepted job can have; ``levels``: the number of levels."""
    if fault := fault_in_header(header, levels):
        raise ValueError(f"job {job_id}: {fault}")
    if header.needs and (header.on_error not in _ON_ERROR or any(need.job_id == job_id for need in header.needs)):
        raise ValueError(f"job {job_id}: it needs itself, or its on_error is {header.on_error!r}")


def check_progress(job_id: str, state: str, progress: Progress) -> None:
    """Raise ValueError for a state or a value that no live job can have."""
    if state not in _STATES:
        raise ValueError(f"job {job_id}: its state is {state!r}, which no live job has")
    for at in (progress.started_at, progress.run_at):
        if not is_time(at):
            raise ValueError(f"job {job_id}: its row has the time {at}")
    if progress.finished_at:
        raise ValueError(f"job {job_id}: its state is {state!r}, but it ended at {progress.finished_at}")
    counts = (progress.attempt, progress.retries, progress.crashes, progress.refusals, progress.blamed)
    if min(counts) < 0 or max(counts) >= _MOST or not 0 <= progress.company < _MOST:
        raise ValueError(f"job {job_id}: its row has the counts {counts} and company {progress.company}")


def check_bare_state(job_id: str, state: str) -> None:
    """Raise ValueError for a state other than QUEUED: the row has no Progress."""
    if state != JobState.QUEUED:
        raise ValueError(f"job {job_id}: its state is {state!r}, but its row says nothing else")


def check_id(job_id: str) -> None:
    """Raise ValueError for an id that is no text."""
    if not job_id.isascii():
        job_id.encode()


def printable(text: str) -> str:
    """Return a text that was read from damaged bytes, in a form that can be shown and sent."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def fault_in(row: StoredRow, levels: int) -> str:
    """Return why the row of a live job can't be decoded or must not be loaded; empty if it may be."""
    _, job_id, header, state, progress = row
    try:
        check_id(job_id)
        check_header(job_id, decode_header(header), levels)
        if progress:
            check_progress(job_id, state, decode_progress(progress))
        else:
            check_bare_state(job_id, state)
    except ValueError as error:
        return printable(str(error)) or type(error).__name__
    return ""
