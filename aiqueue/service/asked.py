"""A group of submitted jobs that may be known already: what it is looked up by, and what was found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from aiqueue.journal.base import StoredKey
from aiqueue.protocol import Refusal, SubmitGroup
from aiqueue.service.commits import Committed
from aiqueue.service.digests import digest_of, has_digest, has_ids_of_first, key_of


class Answer(NamedTuple):
    """What became of a group."""

    refusal: Refusal | None
    known: str = ""  #: first job of the submit that used its key before
    committed: Committed | None = None  #: makes the answer true


@dataclass(slots=True, eq=False)
class Asked:
    """A group that waits to be looked up, and what was found out about it so far."""

    group: SubmitGroup
    answered: asyncio.Future[Answer]
    ids: Set[str]  #: of its jobs
    names: Set[str]  #: its keys and its batch, and the dead letters that it repeats
    needs: Set[str]  #: jobs of other groups
    weight: int  #: of its payloads, and what they are looked up by
    is_large: bool
    after: Committed | None = None  #: the commit that it waits for
    sure: set[str] = field(default_factory=set)  #: needs that were looked up again
    digest: bytes = b""  #: of what is asked for under a key
    is_same: bool = False  #: as what its key was used for before
    is_first: bool = False  #: its key was used for these very jobs
    same: dict[str, bool] = field(default_factory=dict)  #: for ids that are known: as the jobs that have them
    is_known: bool = False  #: it was accepted before, all of it

    def compare(self, keys: Mapping[str, StoredKey]) -> None:
        """Note what comes of its key, and of its ids. Takes a while for a large group: not in the event loop."""
        group = self.group
        self.is_known = not group.part_of and len(self.same) == len(group.jobs) > 0 and all(self.same.values())
        if key := key_of(group):
            self.digest = self.digest or digest_of(group)
            used = keys.get(key)
            self.is_same = used is not None and has_digest(group, used.digest, self.digest)
            self.is_first = used is not None and used.job_id == group.jobs[0].id and has_ids_of_first(group)

    def is_named_in(self, names: Set[str]) -> bool:
        """Return True if one of its ids, its key or its batch is among these names."""
        return bool(names) and (_share_one(self.ids, names) or _share_one(self.names, names))

    def is_behind(self, names: Set[str]) -> bool:
        """Return True if groups before it in line that have these names may still be about to accept what it names."""
        if not names:
            return False
        return self.is_named_in(names) or self.group.part_of in names or _share_one(self.needs, names)

    def answer(self, answer: Answer) -> None:
        """Answer its caller, who may have gone away."""
        if not self.answered.done():
            self.answered.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Let its caller's wait raise the error."""
        if not self.answered.done():
            self.answered.set_exception(error)
            self.answered.exception()  # seen: the caller may have failed with another group


def _share_one(one: Set[str], other: Set[str]) -> bool:
    """Return True if a name is in both. Goes through the smaller one: the other may be the ids of a large group.

    Those are a dict's view. A set that is asked about a view walks all of it; a view walks what is smaller.
    """
    return not (other.isdisjoint(one) if isinstance(one, set | frozenset) else one.isdisjoint(other))


def repeated_by(group: SubmitGroup) -> Set[str]:
    """Return the dead letters that a group's jobs repeat."""
    return {job.header.redriven_from for job in group.jobs} - {""}
