"""Dead letters of a batch: redriven, tried again by ``map``, needed, deleted in any order; then the batch is retried.

What they are to say at last follows from what was done, in whatever order and groups.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import example, given, settings
from msgspec.structs import replace

from aiqueue.batch_protocol import BatchCall
from aiqueue.engine.records import decode_progress
from aiqueue.engine.successors import DELETED
from aiqueue.ids import id_of, next_try_of
from aiqueue.protocol import BatchSpec, SubmitGroup, decode_header
from aiqueue.testing.jobs import failed, header, submission
from aiqueue.testing.jobs import settings as queue_settings
from tests.tools.gates import never_closed
from tests.tools.service_harness import ServiceHarness

_ROWS = [id_of("run", f"row {at}") for at in range(3)]


class Rows:
    """The rows of one batch, all of them dead letters, and what is put in their places, which fails too."""

    def __init__(self) -> None:
        self.queue = ServiceHarness(never_closed(queue_settings()))
        self.ids: list[str] = []
        self._heirs: dict[str, str] = {}  # the last redrive of each
        self._deleted: set[str] = set()
        self._needed: set[str] = set()
        self.queue.service.dead_letters._is_needed = self._needed.__contains__

    async def _fail(self, sent: SubmitGroup) -> None:
        assert await self.queue.service.submit([sent]) == [None]
        await self.queue.exchange(*map(failed, await self.queue.claim(4)), slots=0)
        self.ids += [job.id for job in sent.jobs]

    async def submit(self, batch_id: str, *ids: str) -> None:
        """Let a batch fail."""
        one = header(max_retries=0, batch_id=batch_id)
        jobs = [submission(job_id, replace(one, index=at)) for at, job_id in enumerate(ids)]
        await self._fail(SubmitGroup(jobs, maybe_known=True, batch=BatchSpec(batch_id)))

    async def next_try(self, positions: Sequence[int]) -> None:
        """Let ``map`` try a job of its own again, once."""
        for at in positions:
            if at < len(self.ids) and (new := next_try_of(self.ids[at])) not in self.ids:
                await self.submit(f"batch {len(self.ids)}", new)

    async def redrive(self, positions: Sequence[int], *, is_step: bool = False) -> None:
        """Redrive what is a dead letter; the redrive of a step of a chain is in a batch of its own."""
        for at in positions:
            job_id = self.ids[at % len(self.ids)]
            if self.queue.journal.states([job_id]).get(job_id) == "dead_letter":
                new, batch_id = f"redrive {len(self.ids)}", f"fan-in {len(self.ids)}" if is_step else ""
                again = replace(header(max_retries=0), redriven_from=job_id, idempotency_key=new, batch_id=batch_id)
                batch = BatchSpec(batch_id, kind="fan_in") if is_step else None
                await self._fail(SubmitGroup([submission(new, again)], batch=batch))
                self._heirs[job_id] = new

    async def redrive_step(self, positions: Sequence[int]) -> None:
        """Redrive as a client redrives steps."""
        await self.redrive(positions, is_step=True)

    async def need(self, positions: Sequence[int]) -> None:
        """Let a live job begin, or cease, to need some."""
        self._needed ^= {self.ids[at] for at in positions if at < len(self.ids)}

    async def delete(self, positions: Sequence[int]) -> None:
        """Delete several at once."""
        ids = [self.ids[at] for at in positions if at < len(self.ids)]
        self._deleted.update(await self.queue.service.dead_letters.delete(ids))

    def _heir(self, job_id: str) -> str:
        """Return the redrive in a job's place; empty if that was deleted, and so were all behind it."""
        first = heir = self._heirs.get(job_id, "")
        while heir in self._deleted:
            heir = self._heirs.get(heir, "")
        return first if heir else ""

    def check_marks(self) -> None:
        """See that each dead letter names what is in its place, and that each that is none any more says so."""
        for job in self.queue.journal.jobs(self.ids).values():
            at, named = self.ids.index(job.id), decode_progress(job.progress).successor
            if job.id in self._deleted:
                assert job.state == "failed", f"{at} was deleted"
                assert named == (self._heir(job.id) or DELETED), f"{at} has the wrong mark"
            else:
                assert (job.state, named) == ("dead_letter", self._heir(job.id)), f"{at} is left"

    async def check_retry(self) -> None:
        """Retry the batch; see that it repeats the dead letters that nothing was put in the place of."""
        left = [job_id for job_id in _ROWS if job_id not in self._deleted and not self._heir(job_id)]
        wanted = {job_id for job_id in left if not self.queue.journal.states([next_try_of(job_id)])}
        await self.queue.service.batches.call(BatchCall("b", "retry_failed"))
        live = self.queue.journal.jobs(self.queue.service._engine.core.live)
        assert {decode_header(job.header).redriven_from for job in live.values()} == wanted


async def _check(acts: Sequence[tuple[str, list[int]]]) -> None:
    rows = Rows()
    await rows.submit("b", *_ROWS)
    for name, positions in acts:
        await getattr(rows, name)(positions)
        rows.check_marks()
    await rows.check_retry()
    await rows.queue.service.close()


_ACTS = st.tuples(
    st.sampled_from(["next_try", "redrive", "redrive_step", "need", "delete", "delete"]),
    st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True),
)


@settings(max_examples=100, deadline=None)
@given(acts=st.lists(_ACTS, max_size=8))
@example(acts=[("next_try", [0]), ("delete", [0, 3])])
@example(acts=[("next_try", [0]), ("delete", [3]), ("delete", [0])])
@example(acts=[("redrive", [0]), ("delete", [3])])
@example(acts=[("redrive", [0]), ("delete", [0]), ("delete", [3])])
@example(acts=[("redrive", [0]), ("redrive", [3]), ("delete", [3]), ("delete", [4])])
@example(acts=[("redrive", [0]), ("redrive", [3]), ("delete", [4]), ("delete", [3])])
@example(acts=[("redrive", [0]), ("redrive", [3]), ("delete", [3, 4])])
@example(acts=[("redrive", [0]), ("redrive", [3]), ("redrive", [4]), ("delete", [4]), ("delete", [3]), ("delete", [5])])
@example(acts=[("redrive_step", [0]), ("redrive_step", [3]), ("delete", [3]), ("delete", [4])])
@example(
    acts=[("redrive", [0]), ("redrive_step", [3]), ("redrive", [4]), ("delete", [4]), ("delete", [3]), ("delete", [5])]
)
@example(acts=[("next_try", [0]), ("redrive", [0]), ("delete", [0, 4])])
@example(acts=[("redrive", [0]), ("need", [0]), ("delete", [0]), ("delete", [3])])
def test_a_deleted_dead_letter_that_is_kept_is_marked_and_a_retry_repeats_all_that_are_left(
    acts: list[tuple[str, list[int]]],
) -> None:
    asyncio.run(asyncio.wait_for(_check(acts), 120))
