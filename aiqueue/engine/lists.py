"""Long lists of jobs that are accepted whole: made ready beforehand, and let run some at a time.

One step accepts all of a list and one commit holds it, like a large graph. A job is BLOCKED until its turn comes; then
it is announced and may be claimed. After a restart all of them may be claimed at once.
"""

from __future__ import annotations

from itertools import islice

from aiqueue.engine.cancellation import fail_where_closed
from aiqueue.engine.core import Core
from aiqueue.engine.prepared import Prepared
from aiqueue.engine.publishing import SUBMITTED, Turn
from aiqueue.engine.records import Listed
from aiqueue.engine.states import JobState

_READY_PER_CANCEL = 2  # jobs that become ready in the time it takes to cancel one


def accept(core: Core, turn: Turn, ready: Prepared) -> None:
    """Accept a list that may not be refused any more."""
    turn.rows.lists.append(ready.rows(core.counters.next_seq))
    core.record_all(ready.jobs, ready.levels, ready.batches)
    core.counters.batches += len(ready.batches)
    jobs = list(ready.jobs.values())
    in_order = (job for level in sorted(ready.levels) for job in jobs if job.level == level)
    core.lists.append(Listed(in_order, ready.timed))
    release(core, turn)


def release(core: Core, turn: Turn) -> None:
    """Announce some more jobs and let them run, those of the oldest list first."""
    left = _READY_PER_CANCEL * core.policy.most_at_once
    turn.counted = True  # events take numbers, even if no job gets a row
    while core.lists and left > 0:
        listed = core.lists[0]
        part = list(islice(listed.jobs, left))
        if len(part) < left:
            core.lists.popleft()
        left -= len(part)
        for job in part:
            if job.state is not JobState.BLOCKED:  # it has ended meanwhile
                continue
            header = listed.timed.get(job.id)
            if header is not None:
                core.note_times(job, header)
            core.unblock(turn, job)
            core.publish(turn, job, SUBMITTED)
            if job.id in core.fail_fast:
                fail_where_closed(core, turn, job)
