"""The tries of one row of ``map``, over all runs: which job to look at next, and which one to show or submit."""

from __future__ import annotations

from aiqueue.client.look_ups import is_unread
from aiqueue.ids import id_of, next_try_of
from aiqueue.protocol import END_STATES, JobView

_MOST = 100  # of one row
_MOST_SUCCESSORS = 100  # of one try, each one a redrive or retry; a damaged row might lead in a circle


class RowTries:
    """Where the search for a row's job stands. ``job_id`` is the one to look at; after ``see`` was true, the row's.

    Each try's id follows from the id of the one before, so the queue finds it too, and keeps a failed try as long as
    the next one. A redrive or retry of a try is found through the try's row. So if a try is missing, none of those
    after it has completed.
    """

    __slots__ = ("_shown", "_successors", "_tries", "_try", "is_new", "job_id")

    def __init__(self, run_id: str, key: str) -> None:
        self.job_id = self._try = id_of(run_id, key, "0")
        self.is_new = False  #: the row has no job yet that ran or runs: submit one under ``job_id``
        self._tries = 1
        self._successors = 0
        self._shown = self.job_id  # the last one that is there

    def see(self, view: JobView | Exception | None) -> bool:
        """Take what the job to look at is; return whether the search has ended.

        A job that can't be read may have completed, so the row is not tried again. Raises the error of a look-up.
        """
        if isinstance(view, Exception):
            raise view
        if view is None:
            if self.job_id == self._try:
                self.is_new = True
                return True
            return self._turn_to_next_try()
        self._shown = self.job_id
        if is_unread(view) or view.status == "completed" or view.status not in END_STATES:
            return True
        if view.successor and self._successors < _MOST_SUCCESSORS:  # a retry or a redrive has tried it again
            self.job_id = view.successor
            self._successors += 1
            return False
        return self._turn_to_next_try()

    def _turn_to_next_try(self) -> bool:
        """Go on with the next try; return True if the row has had all that it may have, and failed."""
        if self._tries == _MOST:
            self.job_id = self._shown
            return True
        self.job_id = self._try = next_try_of(self._try)
        self._tries += 1
        self._successors = 0
        return False
