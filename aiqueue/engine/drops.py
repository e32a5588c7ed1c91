"""Dropping open batches: all that was sent of one is forgotten, some jobs in each turn, as if it had never been sent.

The first turn marks the batch in its journal row, and each turn notes there how far it came, so a queue that dies in
between goes on when it starts again. From the first turn on no call sees the batch. Its parts say which jobs there
were, so that the rows of ended ones go too.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice
from operator import attrgetter

from aiqueue.engine.core import Core
from aiqueue.engine.group import Group
from aiqueue.engine.publishing import Turn
from aiqueue.engine.states import TERMINAL

_START = attrgetter("start")
_AT_ONCE = 16  # seqs: each may be of a job that needs thousands of others


def forget_damaged_parts(core: Core) -> None:
    """Forget the parts of each batch of which a job is in no part: a part's row is damaged. Called when all is loaded.

    Without parts a drop forgets the batch's live jobs alone. With damaged ones it would forget jobs of others.
    """
    for group in core.groups.live.values():
        if group.parts and not all(is_of(group, job.seq) for job in group.members()):
            group.parts.clear()


def is_of(group: Group, seq: int) -> bool:
    """Return True if an open batch has, or had, the job with this seq. There may be a thousand parts, in order."""
    at = bisect_right(group.parts, seq, key=_START) - 1
    return at >= 0 and seq in group.parts[at]


def begin(core: Core, group: Group) -> None:
    """Mark a batch as being dropped. ``batches.advance`` does the rest."""
    group.stored.dropped = True
    core.groups.opened.pop(group.spec.id, None)
    core.groups.stopping[group.spec.id] = group
    core.groups.dirty[group.spec.id] = group


def forget_some(core: Core, turn: Turn, group: Group) -> bool:
    """Forget as many jobs of a dropped batch as this turn may. Return True if the batch is gone."""
    if group.doomed is None:  # its first turn, or the first after a restart
        group.doom_all()
    while turn.left > 0:
        part = list(islice(group.leaving, min(turn.left, _AT_ONCE)))
        if not part:
            _forget_batch(core, turn, group)
            return True
        _forget_part(core, turn, group, part)
    return False


def _forget_part(core: Core, turn: Turn, group: Group, part: list[int]) -> None:
    """Forget the jobs with these seqs."""
    turn.left -= len(part)
    turn.rows.deletes += part
    turn.counted = True
    group.stored.forgotten = part[-1]
    core.groups.dirty[group.spec.id] = group
    while group.doomed and group.doomed[-1].seq <= part[-1]:
        job = group.doomed.pop()
        if job.state not in TERMINAL:
            turn.left -= core.links.work_to_drop(job.id)
            core.forget(job)
            group.left()


def _forget_batch(core: Core, turn: Turn, group: Group) -> None:
    turn.rows.dropped.append(group.no)
    turn.counted = True
    counters = core.counters
    counters.batches -= 1
    for state, count in group.stored.ended.items():
        counters.accepted -= count
        counters.ended[state] -= count
        if not counters.ended[state]:
            del counters.ended[state]
    core.groups.dirty.pop(group.spec.id, None)
    core.groups.remove(group)
    core.groups.dropped.append(group)
