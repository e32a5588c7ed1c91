"""Dead letters: look at them, submit them again, forget them. ``adapter.dead_letters`` of both adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from numbers import Real
from typing import Any, Protocol, TypeVar

import msgspec

from aiqueue.client import given, paging
from aiqueue.client.headers import DEFAULT_SCOPE
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import DeadLetterNotFound, FieldError, IdempotencyConflict, RecordUnreadable, ValidationError
from aiqueue.ids import new_id, new_job_ids
from aiqueue.protocol import BatchSpec, DeadLettersCall, JobView, Submission, SubmitGroup
from aiqueue.validation import CheckedPayload, validate_options
from aiqueue.views import JobInfo, readable_info

_AT_ONCE = 50  # redriven together: their payloads are in memory at the same time
_LOOKUP = 1_000  # jobs per call
_MOST = 1_000  # of one page
SLOWEST, FASTEST = 0.01, 10_000  #: jobs per second, of a redrive with a rate

_T = TypeVar("_T")
Submit = Callable[[SubmitGroup], Awaitable[str | None]]
Check = Callable[[Mapping[str, Any]], CheckedPayload]


class DeadLetterClient:
    """The dead letters of the system that the adapter has joined."""

    def __init__(self, transport: QueueTransport, submit: Submit, check: Check, owner: str) -> None:
        self._transport, self._submit, self._check, self._owner = transport, submit, check, owner

    async def find(
        self,
        *,
        reason: str = "",
        model: str = "",
        tag: str = "",
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[JobInfo]:
        """Return dead letters, the newest first. ``reason`` is an error's kind (``timeout``, ``poison_job`` …)."""
        found: list[JobInfo] = []
        cursor: int | None = None
        limit = given.number("limit", limit)
        while len(found) < limit:
            page, cursor = await self.page(
                reason=reason, model=model, tag=tag, since=since, limit=limit - len(found), cursor=cursor
            )
            found += page
            if cursor is None:
                break
        return found

    async def page(
        self,
        *,
        reason: str = "",
        model: str = "",
        tag: str = "",
        since: datetime | None = None,
        limit: int = 100,
        cursor: int | None = None,
    ) -> tuple[list[JobInfo], int | None]:
        """Return at most ``limit`` (1,000) dead letters behind ``cursor``, and the cursor of the next page.

        A page may be short where a filter is rare; only without a cursor there are no more.
        """
        call = DeadLettersCall(kind=given.text("reason", reason), model=given.text("model", model))
        call.tag, call.since = given.text("tag", tag), 0.0 if since is None else given.moment("since", since)
        call.limit = min(_MOST, given.number("limit", limit, least=1))
        if cursor is not None:
            call.before_seq = given.number("cursor", cursor)
        reply = await self._transport.list_dead_letters(call)
        return [readable_info(view) for view in reply.jobs], reply.before_seq or None

    async def inspect(self, job_id: str) -> tuple[JobInfo, bytes]:
        """Return a dead letter with all its attempts, and its payload: JSON, ``null`` if its row is damaged.

        Raises DeadLetterNotFound.
        """
        view = (await self._views([given.job_id(job_id)], with_payload=True))[0]
        return readable_info(view), view.payload if _is_json(view.payload) else b"null"

    async def redrive(
        self,
        job_ids: Sequence[str],
        *,
        model: str | None = None,
        max_retries: int | None = None,
        per_second: float | None = None,
    ) -> list[str]:
        """Submit dead letters again, with a patch; return the new jobs' ids in order.

        A redrive is a new job with ``redriven_from``. With ``per_second`` (0.01 to 10,000) all are accepted at once,
        and the queue starts them no faster than that. The same dead letter and patch twice gives the same new job (for
        24 hours): a call that got no answer can be repeated.

        Raises, before anything is submitted, DeadLetterNotFound if one is no dead letter, and RecordUnreadable if the
        journal can't read one; ValidationError for a patch that does not fit; IdempotencyConflict for one that was
        redriven with another patch. Raises DeadLetterNotFound, too, if one is deleted, or retried with its batch, while
        this runs. Others may have been submitted by then: it is safe to repeat the call without that one.
        """
        max_retries = validate_options({"max_retries": max_retries}).max_retries  # a plain number
        if per_second is not None:
            if not _is_pace(per_second):
                raise ValidationError([FieldError("per_second", f"must be {SLOWEST:g} to {FASTEST:,}")])
            per_second = float(per_second)
        job_ids = given.job_ids(job_ids)
        for at in range(0, len(job_ids), _LOOKUP):
            _check_readable(await self._views(job_ids[at : at + _LOOKUP], with_payload=False))
        started: list[str] = []
        for at in range(0, len(job_ids), _AT_ONCE):
            views = await self._views(job_ids[at : at + _AT_ONCE], with_payload=True)
            _check_readable(views)
            groups = [self._again(view, model, max_retries) for view in views]
            if per_second is not None:
                for place, group in enumerate(groups, at):
                    group.jobs[0].header.delay_ms = round(place * 1_000 / per_second)
            accepted = await asyncio.gather(*map(self._submit_again, groups))
            started += [earlier or group.jobs[0].id for earlier, group in zip(accepted, groups, strict=True)]
        return started

    async def delete(self, job_ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there.

        One whose redrive waits, runs or has completed is no dead letter any more but reads ``failed``, so that its id
        and idempotency key go on standing for that work.
        """
        return await paging.delete_dead_letters(self._transport, given.job_ids(job_ids))

    async def _views(self, job_ids: Sequence[str], *, with_payload: bool) -> list[JobView]:
        views = await paging.get_jobs(self._transport, job_ids, with_payload=with_payload)
        dead = [view for view in views if view is not None and view.status == "dead_letter"]
        if len(dead) < len(job_ids):
            known = {view.id for view in dead}
            raise DeadLetterNotFound(next(job_id for job_id in job_ids if job_id not in known))
        return dead

    def _again(self, view: JobView, model: str | None, max_retries: int | None) -> SubmitGroup:
        """Return the new job that repeats a dead letter."""
        header, payload = view.header, view.payload
        if model is not None:
            checked = self._check({**_fields_of(view), "model": model})
            payload, header.model = checked.body, checked.model
        if max_retries is not None:
            header.max_retries = max_retries
        header.owner, header.redriven_from, header.batch_id, header.index = self._owner, view.id, "", 0
        header.run_at, header.delay_ms, header.expires_at, header.expires_in_ms = 0.0, 0, 0.0, 0
        header.idempotency_key = f"{DEFAULT_SCOPE}:redrive:{view.id}"
        batch = None
        if header.needs:  # a step of a chain: its payload is filled from what it waited for, which a batch gives it
            header.batch_id = new_id("fan-in")
            batch = BatchSpec(header.batch_id, kind="fan_in")
        return SubmitGroup([Submission(new_job_ids(1)[0], header, payload)], batch=batch)

    async def _submit_again(self, group: SubmitGroup) -> str | None:
        try:
            return await self._submit(group)
        except IdempotencyConflict as error:
            raise IdempotencyConflict(error.key, group.jobs[0].header.redriven_from) from None


def _is_pace(per_second: object) -> bool:
    if isinstance(per_second, bool) or not isinstance(per_second, Real):
        return False
    pace: Any = per_second  # numpy's numbers are Real, but no int or float
    return bool(SLOWEST <= pace <= FASTEST)


def _check_readable(views: Sequence[JobView]) -> None:
    """Raise RecordUnreadable for a job that can't be read: what is shown of it is no job to submit."""
    for view in views:
        if view.failure is not None and view.failure.kind == RecordUnreadable.kind:
            raise RecordUnreadable(view.failure.message)


def _is_json(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)  # looks it through and makes nothing of it: it may be megabytes
        payload.decode()
    except (ValueError, RecursionError):
        return False
    return True


def _fields_of(view: JobView) -> dict[str, Any]:
    """Return a job's payload. Raises RecordUnreadable."""
    try:
        return msgspec.json.decode(view.payload, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise RecordUnreadable(f"The payload of job {view.id} can't be read: {error}") from None


class Runner(Protocol):
    """Runs a coroutine on the adapter's loop and returns what it returns."""

    def __call__(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Block until ``call`` has ended."""
        ...


class SyncDeadLetterClient:
    """As DeadLetterClient; each call blocks until its answer is there."""

    def __init__(self, run: Runner, client: DeadLetterClient) -> None:
        self._run, self._client = run, client

    def find(self, **filters: Any) -> list[JobInfo]:
        """Return dead letters, the newest first; filters as in DeadLetterClient.find."""
        return self._run(self._client.find(**filters))

    def page(self, **filters: Any) -> tuple[list[JobInfo], int | None]:
        """Return a page of dead letters and the next one's cursor, as DeadLetterClient.page."""
        return self._run(self._client.page(**filters))

    def inspect(self, job_id: str) -> tuple[JobInfo, bytes]:
        """Return a dead letter with all its attempts, and its payload, as DeadLetterClient.inspect."""
        return self._run(self._client.inspect(job_id))

    def redrive(self, job_ids: Sequence[str], **patch: Any) -> list[str]:
        """Submit dead letters again; patch and rate as in DeadLetterClient.redrive."""
        self._run(self._client.redrive([], **patch))  # a wrong patch is refused before an iterator of ids is used up
        return self._run(self._client.redrive(given.read_here(job_ids), **patch))

    def delete(self, job_ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there."""
        return self._run(self._client.delete(given.read_here(job_ids)))
