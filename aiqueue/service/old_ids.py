"""Which submits may have been made before, though they don't say so.

A client marks a submit that it sends again. Its first call can still arrive after that, even when the job has ended and
the queue has been restarted, and must not run the job again. The ids that clients make grow. So a submit is looked up
in the journal if its id is not beyond those that were there when this process began, or not beyond those that the same
client has sent again. A client whose clock was put back pays for that with look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiqueue.ids import is_made_in_order
from aiqueue.protocol import SubmitGroup

_REMEMBERED = 10_000  # clients, and ids that callers chose


class OldIds:
    """``newest``: the highest id made in order that the journal had when this process began.

    ``chosen``: other ids that it has.
    """

    def __init__(self, newest: str, chosen: Iterable[str] = ()) -> None:
        self._newest = newest
        self._sent_again: dict[str, str] = {}  # by client: the highest id
        self._chosen = dict.fromkeys(chosen)  # ids that do not grow: the last ones that were sent again

    def may_hold(self, group: SubmitGroup) -> bool:
        """Return True if this may be a first call that was overtaken by its repeat. Its first id stands for all."""
        job = group.jobs[0]
        if not is_made_in_order(job.id):
            return job.id in self._chosen
        return job.id <= self._newest or job.id <= self._sent_again.get(job.header.owner, "")

    def note(self, group: SubmitGroup) -> None:
        """Take note of a group that was sent again."""
        job = group.jobs[0]
        if not is_made_in_order(job.id):
            self._chosen[job.id] = None
            if len(self._chosen) > _REMEMBERED:
                del self._chosen[next(iter(self._chosen))]
            return
        known = self._sent_again.pop(job.header.owner, "")
        self._sent_again[job.header.owner] = max(known, job.id)
        if len(self._sent_again) > _REMEMBERED:
            self._newest = max(self._newest, self._sent_again.pop(next(iter(self._sent_again))))
