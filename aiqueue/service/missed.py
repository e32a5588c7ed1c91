"""What a read of the journal may have missed: commits that were not on disk when it began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain, islice

from aiqueue.engine.effects import Rows
from aiqueue.service.asked import Asked
from aiqueue.waiting import Pace, Parts


@dataclass(slots=True)
class Missed:
    """What commits under way have to do with groups that were looked up."""

    names: set[str] = field(default_factory=set)  #: of these groups, that the commits bring or change
    deletes: bool = False  #: they delete jobs

    def add(self, rows: Rows, sets: Sequence[Set[str]], repeated: Mapping[int, str]) -> int:
        """Note what one commit brings; return how many rows were gone through."""
        for names in sets:
            self.names.update([row[1] for row in rows.jobs if row[1] in names])
            for listed in rows.lists:
                self.names.update(names & listed.ids)
            self.names.update([row[0] for row in rows.keys if row[0] in names])
            self.names.update([row[1] for row in rows.batches if row[1] in names])
        self.deletes = self.deletes or bool(rows.deletes)
        if repeated:
            self.names.update([repeated[row[0]] for row in rows.states if row[0] in repeated])
            self.names.update([repeated[seq] for seq in rows.deletes if seq in repeated])
        return 1 + len(rows.jobs) + len(rows.keys) + len(rows.batches) + len(rows.states) + len(rows.deletes)


def missed(
    commits: Sequence[Rows], asked: Sequence[Asked], repeated: Mapping[str, tuple[int, str, bytes]]
) -> Parts[Missed]:
    """Return what the commits bring, those included that come before the end. Act on it before the next await.

    A name that is both an id and a key only lets its group wait for no reason. ``repeated``: dead letters, by id.
    """
    sets, seqs = _sets_of(asked), {seq: job_id for job_id, (seq, _, _) in repeated.items()}
    found, pace, done = Missed(), Pace(), 0
    for rows in islice(commits, len(commits)):
        done += 1
        if pace.is_full(found.add(rows, sets, seqs)):
            yield
    for rows in commits[done:]:  # few have come meanwhile: each took longer to make
        found.add(rows, sets, seqs)
    return found


def _sets_of(asked: Sequence[Asked]) -> list[Set[str]]:
    """Return the names of groups. Those of large groups are not put together with others: there may be 100,000."""
    small = frozenset(chain.from_iterable(one.ids for one in asked if not one.is_large))
    others = (*(one.names for one in asked), *(one.needs for one in asked if not one.is_large))
    sets: list[Set[str]] = [small.union(*others)]
    for one in asked:
        sets += (one.ids, one.needs) if one.is_large else ()
    return sets
