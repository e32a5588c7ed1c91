"""The wait of a submit ends, in whatever order the job is accepted, ends, is deleted and is looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiqueue.client import event_feed
from aiqueue.client.event_feed import EventFeed
from aiqueue.errors import JobNotFound
from aiqueue.protocol import Event, EventsCall, EventsReply, JobView
from aiqueue.testing.jobs import header
from tests.tools.turns import turns

UNKNOWN, QUEUED, FAILED, DELETED = range(4)
STEPS = [
    *[[name] for name in ("move", "gap", "read", "answer", "accepted", "told")],
    ["move"] * 3,
    ["gap", "read", "answer"],
]


class StepByStep:
    """A queue with one job, whose log has nothing but gaps. A look-up reads the job at one time and answers later."""

    def __init__(self) -> None:
        self.state = UNKNOWN
        self._gaps = asyncio.Queue[None]()
        self._sent: list[asyncio.Future[list[JobView | None]]] = []
        self._read: list[tuple[asyncio.Future[list[JobView | None]], list[JobView | None]]] = []

    def gap(self) -> None:
        self._gaps.put_nowait(None)

    def read(self) -> None:
        """Let the look-ups under way see the job as it is."""
        status = {QUEUED: "queued", FAILED: "failed"}.get(self.state)
        view = JobView("a", header(), status, 0, attempt=2) if status else None
        self._read += [(sent, [view]) for sent in self._sent]
        self._sent.clear()

    def answer(self) -> None:
        """Let what was read arrive."""
        for sent, views in self._read:
            sent.set_result(views)
        self._read.clear()

    async def get_jobs(self, ids: Sequence[str], *, with_payload: bool = False) -> list[JobView | None]:
        sent: asyncio.Future[list[JobView | None]] = asyncio.get_running_loop().create_future()
        self._sent.append(sent)
        return await sent

    async def events(self, call: EventsCall) -> EventsReply:
        await self._gaps.get()
        return EventsReply([], call.after + 5, gap=True)


def end_told() -> Event:
    """Return the end as it comes with the answer to a submit: it does not tell of the first attempt."""
    return Event(9, "job:failed", 1.0, "a", "", "failed", "chat", "sim", "m", 1, 2, 1.0, 1.0, 0)


class Run:
    """A client that waits for the job it is about to submit."""

    def __init__(self) -> None:
        self.queue = StepByStep()
        self.feed = EventFeed(self.queue, "client-a", after=0)  # type: ignore[arg-type]
        self.ended = self.feed.expect("a")
        self.accepted = self.told = False
        self.missed = False  # something happened since the last gap

    async def step(self, name: str) -> None:
        """Let one thing happen, where it can."""
        if name == "move":
            self.queue.state = min(self.queue.state + 1, DELETED)
            self.missed = True
        elif name == "accepted":
            self._answer_submit(told=False)
        elif name == "told":
            self._answer_submit(told=True)
        else:
            getattr(self.queue, name)()
            self.missed = self.missed and name != "gap"
        await turns()

    def _answer_submit(self, *, told: bool) -> None:
        if self.accepted or self.queue.state < (FAILED if told else QUEUED):
            return
        # A look-up may have seen the job and then seen that it is gone: a wait that has ended is told nothing.
        self.accepted, self.told = True, told and not self.ended.done()
        if told:
            self.feed.resolve([end_told()])
        self.feed.accepted("a")

    async def to_the_end(self) -> None:
        """Let the submit be answered, the client hear of what it missed, and each look-up be answered."""
        if self.queue.state == UNKNOWN:
            await self.step("move")
        for name in ["accepted", *["gap"] * self.missed, *["read", "answer"] * 5]:  # a look-up may call for another one
            await self.step(name)


@example([["move"], ["gap", "read", "answer"], ["move"] * 3, ["gap", "read", "answer"], ["told"]])
@given(steps=st.lists(st.sampled_from(STEPS), max_size=12))
def test_a_wait_ends_whatever_its_client_missed(steps: list[list[str]]) -> None:
    async def check() -> None:
        run = Run()
        await turns()
        for name in chain(*steps):
            await run.step(name)
        await run.to_the_end()
        if run.queue.state == QUEUED:
            assert not run.ended.done()
        elif not run.told and run.queue.state == DELETED and isinstance(run.ended.exception(), JobNotFound):
            pass
        else:
            assert run.ended.result().status == "failed"
        await run.feed.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_feed, "_PAUSE_S", 0.0)
        asyncio.run(check())
