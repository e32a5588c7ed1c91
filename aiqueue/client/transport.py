"""The queue, as a client sees it. `ray_transport` reaches it through Ray, `aiqueue.testing` in the same process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiqueue.protocol import CancelReply, EventsCall, EventsReply, JobView, Refusal, SubmitGroup, Welcome
from aiqueue.views import Stats


class QueueTransport(Protocol):
    """All calls raise QueueUnavailable when there was no answer; a mutation may then have happened or not."""

    async def hello(self) -> Welcome:
        """Return what a client must know to begin."""
        ...

    async def submit(self, groups: Sequence[SubmitGroup]) -> list[Refusal | None]:
        """Accept groups, each whole or not at all; the answer means they are on disk."""
        ...

    async def events(self, call: EventsCall) -> EventsReply:
        """Long poll on the event log."""
        ...

    async def get_jobs(self, ids: Sequence[str]) -> list[JobView | None]:
        """Return jobs in the order of ``ids``."""
        ...

    async def cancel(self, ids: Sequence[str]) -> list[CancelReply]:
        """Stop jobs."""
        ...

    async def stats(self) -> Stats:
        """Return the queue's statistics."""
        ...
