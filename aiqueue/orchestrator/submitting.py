"""Submitting batches: part by part, and visible only as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import pydantic

from aiqueue.batch_protocol import BatchCall
from aiqueue.client.adapter import AnyPayload, Session
from aiqueue.client.headers import batch_spec, header_fields
from aiqueue.errors import AIQueueError, FieldError, ValidationError
from aiqueue.ids import ids_from, new_job_ids
from aiqueue.models import BatchOptions, GraphOptions
from aiqueue.orchestrator.rows import shifted
from aiqueue.protocol import BatchSpec, JobHeader, Need, Submission, SubmitGroup
from aiqueue.validation import CheckedPayload, field_errors
from aiqueue.waiting import in_parts

_TOUCH_S = 60.0  # between two signs of life while a part takes long: the queue drops an open batch after ten minutes
_UNDER_WAY = 3  # parts that are sent and not yet answered
_PART_BYTES = 8 * 2**20  # of payloads in one part: a call may not carry gigabytes

Options = TypeVar("Options", BatchOptions, GraphOptions)


def options_of(model: type[Options], given: Mapping[str, Any] | Options | None, more: Mapping[str, Any]) -> Options:
    """Return the options of a batch, from a dict (camelCase or snake_case) and keywords. Raises ValidationError."""
    if isinstance(given, model) and not more:
        return given
    if isinstance(given, pydantic.BaseModel):
        given = given.model_dump(exclude_unset=True)
    if given is not None and not isinstance(given, Mapping):
        raise ValidationError(
            [FieldError("options", f"must be a dict or {model.__name__}, not {type(given).__name__}")]
        )
    try:
        return model.model_validate({**(given or {}), **more})
    except pydantic.ValidationError as error:
        raise ValidationError(field_errors(error, prefix="options")) from None


class PartSender:
    """Sends an open batch in parts, a few at once; ``seal`` makes it visible, ``drop`` leaves no trace of it."""

    def __init__(self, session: Session, batch_id: str, options: BatchOptions, *, run: str = "") -> None:
        self._session = session
        self.spec: BatchSpec = batch_spec(batch_id, options, session.checker.metadata_of(options), is_open=True)
        self.spec.run = run
        self._shared = header_fields(
            options, owner=session.owner, default_retries=session.default_retries, batch_id=batch_id
        )
        self._parts: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self.count = 0
        self._may_run = False  #: the queue may have been told that it is whole

    async def send(self, payloads: Sequence[AnyPayload], ids: Sequence[str] | None = None) -> list[str]:
        """Validate some payloads and send them; return their ids, perhaps before they are answered."""
        try:
            checked = await in_parts(self._session.checker.check_in_parts(payloads))
        except ValidationError as error:
            raise shifted(error, self.count) from None
        ids = list(ids or new_job_ids(len(checked)))
        jobs = jobs_of(checked, ids, self._shared, first_index=self.count)
        for part in _by_size(jobs):
            first = self.count == 0
            self.count += len(part)
            group = SubmitGroup(part, batch=self.spec) if first else SubmitGroup(part, part_of=self.spec.id)
            group.metadata = self.spec.metadata
            group.maybe_known = bool(self.spec.run)  # another program may have run the same rows since they were sought
            self._parts.add(asyncio.ensure_future(self._session.submit(group)))
            await self._answered(0 if first else _UNDER_WAY)  # the batch must be there before its further parts are
            self._keeper = self._keeper or asyncio.create_task(self._keep_open())
        return ids

    async def seal(self) -> None:
        """Let the batch run, all of it. Raises ValidationError for an empty one."""
        await self._answered(0)
        if not self.count:
            raise ValidationError([FieldError("jobs", "is empty: a batch has at least one job")])
        await self._stop_keeping()
        self._may_run = True
        await self._session.transport.batch(BatchCall(self.spec.id, "seal", self.count))

    async def drop(self) -> None:
        """Forget what was sent, as far as the queue can be reached; else it forgets it by itself.

        A batch that was sealed while its submitter gave up can't be forgotten any more, and is cancelled.
        """
        for part in self._parts:
            part.cancel()
        await asyncio.gather(*self._parts, return_exceptions=True)
        await self._stop_keeping()
        if self.count:
            with suppress(AIQueueError):
                await self._session.transport.batch(BatchCall(self.spec.id, "drop"))
                if self._may_run:
                    await self._session.transport.batch(BatchCall(self.spec.id, "cancel"))

    async def _keep_open(self) -> None:
        """Tell the queue once a minute that more is to come: rows may be slow, as those of a batch that still runs."""
        while True:
            await asyncio.sleep(_TOUCH_S)
            with suppress(AIQueueError):  # whatever it is, the next part meets it too
                await self._session.transport.batch(BatchCall(self.spec.id, "touch"))

    async def _stop_keeping(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    async def _answered(self, most: int) -> None:
        """Wait until at most ``most`` parts are under way. Raises what refused one."""
        while len(self._parts) > most:
            done, self._parts = await asyncio.wait(self._parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()


def jobs_of(
    payloads: Sequence[CheckedPayload], ids: Sequence[str], shared: tuple[Any, ...], *, first_index: int = 0
) -> list[Submission]:
    """Return what is sent of jobs that share their options."""
    jobs = []
    for index, (job_id, (kind, provider, model, body)) in enumerate(zip(ids, payloads, strict=True), start=first_index):
        header = JobHeader(kind, provider, model, *shared)
        header.index = index
        jobs.append(Submission(job_id, header, body))
    return jobs


class Linked(NamedTuple):
    """Jobs that wait for others: each for those in its place of ``needs``. The ids are those of ``ids_from``."""

    kind: str
    ids: list[str]
    payloads: Sequence[AnyPayload]
    needs: Sequence[tuple[Need, ...]]
    on_error: Sequence[str]
    names: tuple[str, ...] = ()


async def submit_linked(session: Session, linked: Linked, options: GraphOptions, key: str) -> tuple[str, list[str]]:
    """Submit jobs in one group; return the ids of the group and of the jobs: the first ones, of a key used before.

    The queue keeps the first job's id with the key; all other ids follow from it.
    """
    prefix, ids = linked.kind.replace("_", "-"), linked.ids
    batch_id = f"{prefix}-{ids[0]}"
    shared = header_fields(options, owner=session.owner, default_retries=session.default_retries, batch_id=batch_id)
    jobs = jobs_of(await in_parts(session.checker.check_in_parts(linked.payloads)), ids, shared)
    for job, needs, policy in zip(jobs, linked.needs, linked.on_error, strict=True):
        job.header.needs, job.header.on_error = needs, policy if needs else ""
    jobs[0].header.idempotency_key = key
    spec = batch_spec(batch_id, options, session.checker.metadata_of(options), kind=linked.kind)
    spec.names = linked.names
    if earlier := await session.submit(SubmitGroup(jobs, batch=spec, metadata=spec.metadata)):
        return f"{prefix}-{earlier}", ids_from(earlier, len(ids))
    return batch_id, ids


def _by_size(jobs: Sequence[Submission]) -> Iterator[list[Submission]]:
    """Yield the jobs in parts of bounded size."""
    part: list[Submission] = []
    size = 0
    for job in jobs:
        if part and size + len(job.payload) > _PART_BYTES:
            yield part
            part, size = [], 0
        part.append(job)
        size += len(job.payload)
    if part:
        yield part
