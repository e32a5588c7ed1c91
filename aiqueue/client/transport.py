"""The queue, as a client sees it. `ray_transport` reaches it through Ray, `aiqueue.testing` in the same process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from aiqueue.batch_protocol import BatchCall, BatchView, ResultsCall, ResultsReply
from aiqueue.engine.schedule_records import SchedulesCall, SchedulesReply
from aiqueue.protocol import (
    CancelReply,
    DeadLettersCall,
    DeadLettersReply,
    EventsCall,
    EventsReply,
    JobView,
    SubmitGroup,
    SubmitReply,
    Welcome,
)
from aiqueue.views import Stats


class QueueTransport(Protocol):
    """All calls raise QueueUnavailable when there was no answer; a mutation may then have happened or not."""

    on_welcome: Callable[[Welcome], None]  #: gets each answer to hello, also to one that the transport says by itself

    async def hello(self) -> Welcome:
        """Return what a client must know to begin."""
        ...

    async def submit(self, groups: Sequence[SubmitGroup], *, linger_s: float = 0.0) -> SubmitReply:
        """Accept groups, each whole or not at all; the answer means they are on disk.

        It may come up to ``linger_s`` later, and then brings the ends of jobs that ended in that time.
        """
        ...

    async def events(self, call: EventsCall) -> EventsReply:
        """Long poll on the event log."""
        ...

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        """Return jobs in the order of ``ids``; of many large ones only the first, see ``paging``."""
        ...

    async def cancel(self, ids: Sequence[str]) -> list[CancelReply]:
        """Stop jobs."""
        ...

    async def list_dead_letters(self, call: DeadLettersCall) -> DeadLettersReply:
        """Return dead letters, the newest first."""
        ...

    async def delete_dead_letters(self, ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there."""
        ...

    async def schedules(self, call: SchedulesCall) -> SchedulesReply:
        """Add, list, pause, resume, remove or run schedules. Asked twice, it happens once."""
        ...

    async def get_states(self, ids: Sequence[str]) -> list[str]:
        """Return the states of jobs, in the order of ``ids``; empty for those unknown."""
        ...

    async def batch(self, call: BatchCall) -> BatchView:
        """Do to a batch what the call says and return it. Raises BatchNotFound, ValidationError."""
        ...

    async def batch_results(self, call: ResultsCall) -> ResultsReply:
        """Return a page of a batch's results. Raises BatchNotFound."""
        ...

    async def stats(self) -> Stats:
        """Return the queue's statistics."""
        ...
