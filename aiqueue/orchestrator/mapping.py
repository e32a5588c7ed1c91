"""``map``: rows by key. What a run has finished is not run again, also by another process on another day."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from aiqueue import json_text, texts
from aiqueue.batch_protocol import BatchCall
from aiqueue.client import given
from aiqueue.client.adapter import AnyPayload, AsyncAIQueueAdapter
from aiqueue.client.look_ups import look_up
from aiqueue.errors import BatchNotFound, DuplicateJob, FieldError, ValidationError
from aiqueue.ids import new_id
from aiqueue.models import BatchOptions
from aiqueue.orchestrator.rows import AnyRows, chunks_of
from aiqueue.orchestrator.submitting import PartSender
from aiqueue.orchestrator.tries import RowTries
from aiqueue.views import JobInfo

Key = Callable[[Any], str]

_PAGE = 500
_LONGEST_KEY = 2**20  # characters: a key is hashed, and never sent
_LOOK_AGAIN_S = 0.3


class MapResult(msgspec.Struct, kw_only=True, rename="camel"):
    """What one row came to."""

    key: str
    index: int
    job: JobInfo


class Mapping:
    """One call of ``map``."""

    def __init__(self, adapter: AsyncAIQueueAdapter, run_id: str, key: Key | None, options: BatchOptions) -> None:
        self._adapter, self._run_id, self._options = adapter, texts.RUN_ID.check("run_id", run_id), options
        self._key = key or _hash
        self._order: list[tuple[str, str]] = []  # key, job id
        self._seen: dict[str, int] = {}

    async def results(self, rows: AnyRows) -> AsyncIterator[MapResult]:
        """Submit what is not done and yield what each row came to, in the order of the rows."""
        await self._submit(rows)
        for at in range(0, len(self._order), _PAGE):
            page = self._order[at : at + _PAGE]
            infos = await self._adapter.wait_all([job_id for _, job_id in page])
            for index, ((key, _), info) in enumerate(zip(page, infos, strict=True), start=at):
                yield MapResult(key=key, index=index, job=info)

    async def _submit(self, rows: AnyRows) -> None:
        session = self._adapter.session
        sender = PartSender(session, new_id("batch"), self._options, run=self._run_id)
        # Of a driver that died while it submitted. The call may come twice, the second time when this batch is open.
        await session.transport.batch(BatchCall(self._run_id, "drop_run", token=sender.spec.id))
        try:
            async for chunk in chunks_of(rows):
                await self._submit_new(sender, chunk)
            if not self._order:
                raise ValidationError([FieldError("rows", "is empty")])
            if sender.count:
                await sender.seal()
        except BaseException as error:
            await sender.drop()
            if not isinstance(error, BatchNotFound | DuplicateJob):
                raise
            message = f"{self._run_id!r} was begun again by another program while this one submitted; run one at a time"
            raise ValidationError([FieldError("run_id", message)]) from None

    async def _submit_new(self, sender: PartSender, chunk: list[AnyPayload]) -> None:
        keys = [self._key_of(row) for row in chunk]
        ids, new = await self._known(keys)
        self._order += zip(keys, ids, strict=True)
        if new:
            await sender.send([chunk[at] for at in new], [ids[at] for at in new])

    async def _known(self, keys: list[str]) -> tuple[list[str], list[int]]:
        """Return the ids of the rows' jobs, and which of those are to be submitted: new ones, and those that failed.

        One that failed and has a successor, however that came, has not failed unless the successor has.
        """
        rows = [RowTries(self._run_id, key) for key in keys]
        searched = rows
        while searched:
            asked = [row.job_id for row in searched]
            found = await look_up(self._adapter.session.transport, asked, retry_s=_LOOK_AGAIN_S)
            searched = [row for row, view in zip(searched, found, strict=True) if not row.see(view)]
        return [row.job_id for row in rows], [at for at, row in enumerate(rows) if row.is_new]

    def _key_of(self, row: AnyPayload) -> str:
        index = len(self._seen)
        key = given.text("key", self._key(row), most=_LONGEST_KEY, at=index)
        if key in self._seen:
            message = f"key {key!r} is that of row {self._seen[key]} too: keys tell rows apart"
            raise ValidationError([FieldError("key", message, index)])
        self._seen[key] = index
        return key


def _hash(row: Any) -> str:
    """Return a hash of a row's content: the same for the same input, whatever the order of its fields."""
    try:
        plain = row.model_dump(mode="json", exclude_none=True) if hasattr(row, "model_dump") else row
        return hashlib.blake2b(json_text.encode_sorted(plain), digest_size=16).hexdigest()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError([FieldError("payload", f"is not JSON: {error}")]) from None
