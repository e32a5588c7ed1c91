"""A queue in a dict, for tests of the HTTP layer alone. What it accepts is what a running system would."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiqueue.errors import AIQueueError, DuplicateJob, JobNotFound
from aiqueue.ids import new_id, new_job_ids
from aiqueue.models import AIJobType, JobOptions
from aiqueue.protocol import ProviderEntry, Welcome
from aiqueue.validation import CheckedPayload, PayloadChecker, validate_options
from aiqueue.views import Cancellation, JobInfo, OrchestratorStats, QueueStats, Rates, Stats, WorkerPoolStats

MAX_PAYLOAD_BYTES = 10_000
PROVIDERS = [
    ProviderEntry("openai", "openai", tuple(AIJobType)),
    ProviderEntry("local", "llama_cpp", (AIJobType.CHAT_COMPLETION, AIJobType.TEXT_COMPLETION), ("tiny",)),
]


@dataclass
class _Entry:
    info: JobInfo
    body: bytes


class DictAdapter:
    """An adapter over a dict. ``fail_with`` makes every call raise; ``hang`` makes every call wait for ever."""

    def __init__(self) -> None:
        self.jobs: dict[str, _Entry] = {}
        self.started = self.stopped = 0
        self.fail_with: Exception | None = None
        self.hang = False
        self._checker = PayloadChecker(Welcome(0, PROVIDERS, MAX_PAYLOAD_BYTES, (3_000, 10_000, 30_000, 60_000)))

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    async def submit_job(self, payload: Any, options: Any = None, *, scope: str = "") -> str:
        await self._answer()
        return self._accept([self._checker.check(payload)], validate_options(options), "")[0]

    async def submit_batch(
        self, payloads: Sequence[Any], options: Any = None, *, idempotency_key: str | None = None, scope: str = ""
    ) -> tuple[str, list[str]]:
        await self._answer()
        batch_id = new_id("batch")
        return batch_id, self._accept(self._checker.check_all(payloads), validate_options(options), batch_id)

    async def check_jobs(self, payloads: Iterable[Any]) -> None:
        self._checker.check_all(payloads)

    async def get_job_status(self, job_id: str) -> JobInfo | None:
        await self._answer()
        entry = self.jobs.get(job_id)
        return entry and entry.info

    async def cancel_job(self, job_id: str) -> Cancellation:
        await self._answer()
        if job_id not in self.jobs:
            raise JobNotFound(job_id)
        info = self.jobs[job_id].info
        cancelled, info.status = info.status == "queued", "cancelled"
        return Cancellation(cancelled=cancelled, status=info.status)

    async def get_system_stats(self) -> Stats:
        await self._answer()
        queue = QueueStats(
            is_running=True,
            total_jobs=len(self.jobs),
            queued_jobs=len(self.jobs),
            scheduled_jobs=0,
            processing_jobs=0,
            completed_jobs=0,
            failed_jobs=0,
            dead_letter_jobs=0,
            cancelled_jobs=0,
            expired_jobs=0,
            completed_per_s=Rates(),
            stale_outcomes=0,
            oldest_waiting_s=0.0,
            levels=[],
            lanes=[],
            worker_pool_stats=WorkerPoolStats(),
        )
        return Stats(adapter=queue, orchestrator=OrchestratorStats())

    async def ping(self) -> Welcome:
        await self._answer()
        return Welcome(0, [], MAX_PAYLOAD_BYTES, ())

    async def _answer(self) -> None:
        if self.hang:
            await asyncio.Event().wait()
        if self.fail_with is not None:
            raise self.fail_with

    def _accept(self, checked: list[CheckedPayload], options: JobOptions, batch_id: str) -> list[str]:
        ids = [str(options.job_id)] if options.job_id else new_job_ids(len(checked))
        for job_id, payload in zip(ids, checked, strict=True):
            if job_id in self.jobs and self.jobs[job_id].body != payload.body:
                raise DuplicateJob(job_id)
        for job_id, payload in zip(ids, checked, strict=True):
            self.jobs.setdefault(job_id, _Entry(_queued(job_id, payload, options, batch_id), payload.body))
        return ids


class BrokenAdapter(DictAdapter):
    """An adapter with a bug."""

    async def get_system_stats(self) -> Stats:
        raise KeyError("secret detail")


def unavailable(error: AIQueueError) -> DictAdapter:
    """Return an adapter whose every call raises ``error``."""
    adapter = DictAdapter()
    adapter.fail_with = error
    return adapter


def _queued(job_id: str, payload: CheckedPayload, options: JobOptions, batch_id: str) -> JobInfo:
    return JobInfo(
        job_id=job_id,
        status="queued",
        priority=options.priority,
        type=payload.type,
        provider=payload.provider,
        model=payload.model,
        created_at=datetime.now(UTC),
        batch_id=batch_id or None,
        tags=options.tags,
        metadata=dict(options.metadata),
    )
