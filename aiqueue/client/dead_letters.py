"""Dead letters: look at them, submit them again, forget them. ``adapter.dead_letters`` of both adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec

from aiqueue.client.headers import DEFAULT_SCOPE
from aiqueue.client.transport import QueueTransport
from aiqueue.errors import JobNotFound
from aiqueue.ids import new_job_ids
from aiqueue.protocol import DeadLettersCall, JobView, Submission, SubmitGroup
from aiqueue.views import JobInfo, job_info

_AT_ONCE = 200  # redriven together

_T = TypeVar("_T")
Submit = Callable[[SubmitGroup], Awaitable[str | None]]


class DeadLetterClient:
    """The dead letters of the system that the adapter has joined."""

    def __init__(self, transport: QueueTransport, submit: Submit, owner: str) -> None:
        self._transport, self._submit, self._owner = transport, submit, owner

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
        call = DeadLettersCall(kind=reason, model=model, tag=tag, since=since.timestamp() if since else 0.0)
        while len(found) < limit and call.before_seq:
            call.limit = min(1_000, limit - len(found))
            reply = await self._transport.list_dead_letters(call)
            found += map(job_info, reply.jobs)
            call.before_seq = reply.before_seq
        return found

    async def inspect(self, job_id: str) -> tuple[JobInfo, bytes]:
        """Return a dead letter with all its attempts, and its payload (JSON). Raises JobNotFound."""
        view = (await self._views([job_id]))[0]
        return job_info(view), view.payload

    async def redrive(
        self,
        job_ids: Sequence[str],
        *,
        model: str | None = None,
        max_retries: int | None = None,
        per_second: float | None = None,
    ) -> list[str]:
        """Submit dead letters again, with a patch and not faster than ``per_second``; return the new jobs' ids.

        A redrive is a new job with ``redriven_from``. The same dead letter twice gives the same new job: a call that
        got no answer can be repeated. Raises JobNotFound, before anything is submitted, if one is no dead letter.
        """
        views = await self._views(job_ids)
        started: list[str] = []
        for at in range(0, len(views), _AT_ONCE if per_second is None else 1):
            part = views[at : at + (_AT_ONCE if per_second is None else 1)]
            started += await asyncio.gather(*(self._submit_again(view, model, max_retries) for view in part))
            if per_second is not None and at + 1 < len(views):
                await asyncio.sleep(1 / per_second)
        return started

    async def delete(self, job_ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there."""
        return await self._transport.delete_dead_letters(list(job_ids))

    async def _views(self, job_ids: Sequence[str]) -> list[JobView]:
        views = await self._transport.get_jobs(list(job_ids), with_payload=True)
        dead = [view for view in views if view is not None and view.status == "dead_letter"]
        if len(dead) < len(job_ids):
            known = {view.id for view in dead}
            raise JobNotFound(next(job_id for job_id in job_ids if job_id not in known))
        return dead

    async def _submit_again(self, view: JobView, model: str | None, max_retries: int | None) -> str:
        header, payload = view.header, view.payload
        if model is not None:
            body = msgspec.json.decode(payload)
            payload, header.model = msgspec.json.encode({**body, "model": model}), model
        if max_retries is not None:
            header.max_retries = max_retries
        header.owner, header.redriven_from = self._owner, view.id
        header.batch_id, header.run_at, header.expires_at = "", 0.0, 0.0
        header.idempotency_key = f"{DEFAULT_SCOPE}:redrive:{view.id}"
        (job_id,) = new_job_ids(1)
        return await self._submit(SubmitGroup([Submission(job_id, header, payload)])) or job_id


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

    def inspect(self, job_id: str) -> tuple[JobInfo, bytes]:
        """Return a dead letter with all its attempts, and its payload (JSON)."""
        return self._run(self._client.inspect(job_id))

    def redrive(self, job_ids: Sequence[str], **patch: Any) -> list[str]:
        """Submit dead letters again; patch and rate as in DeadLetterClient.redrive."""
        return self._run(self._client.redrive(job_ids, **patch))

    def delete(self, job_ids: Sequence[str]) -> list[str]:
        """Forget dead letters; return the ids of those that were there."""
        return self._run(self._client.delete(job_ids))
