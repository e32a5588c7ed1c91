"""One attempt: from a claim to its outcome. Whatever happens in between becomes a Failure, never an exception."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

import msgspec

from aiqueue.errors import JobError, JobTimeout, ModelUnavailable, OutOfMemory, ResultTooLarge, WorkerFault
from aiqueue.protocol import ClaimedJob, Outcome
from aiqueue.providers.base import Provider, ProviderAnswer, ProviderRequest
from aiqueue.results import JobResult, encode_result
from aiqueue.templates import fill
from aiqueue.worker.deadlines import DeadlinePassed, Deadlines

_log = logging.getLogger(__name__)
_decode_body = msgspec.json.Decoder(dict).decode

ProviderSource = Callable[[str], Provider]  #: returns the provider of this name, or raises a JobError


class JobRunner:
    """Runs claims on the providers that ``provider_of`` gives."""

    def __init__(
        self, provider_of: ProviderSource, *, max_result_bytes: int, max_execution_s: float = math.inf
    ) -> None:
        self._provider_of = provider_of
        self._max_result_bytes = max_result_bytes
        self._max_execution_s = max_execution_s
        self.deadlines = Deadlines()

    async def run(self, job: ClaimedJob) -> Outcome:
        """Return how the attempt ended; cancelling this task gives an outcome too (``cancelled``)."""
        partial: list[JobResult] = []
        try:
            return await self._answered(job, partial)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                return self._cancelled(job, partial)
            # Nobody cancelled this task. As a cancelled one the job would run again and again, at no cost of attempts.
            failure = WorkerFault("Worker fault: the provider gave up its own call").to_failure()
        except JobError as error:
            failure = error.to_failure()
        except MemoryError:
            failure = OutOfMemory(f"Worker ran out of memory on a job of model {job.model}").to_failure()
        except Exception as error:
            _log.exception("job %s, attempt %d: bug in the worker or its provider", job.job_id, job.attempt)
            failure = WorkerFault(f"Worker fault: {type(error).__name__}; see the worker's log").to_failure()
        return Outcome(job.job_id, job.attempt, failure=failure)

    def _cancelled(self, job: ClaimedJob, partial: list[JobResult]) -> Outcome:
        outcome = Outcome(job.job_id, job.attempt, cancelled=True)
        if partial:
            encoded, outcome.tokens = encode_result(partial[-1]), partial[-1].tokens
            if len(encoded) <= self._max_result_bytes:
                outcome.result = encoded
        return outcome

    async def _answered(self, job: ClaimedJob, partial: list[JobResult]) -> Outcome:
        """Return what the provider's answer makes of the job; what there was of one at a cancel goes to ``partial``."""
        provider = self._provider_of(job.provider)
        timeout_s = min(job.timeout_ms / 1e3, self._max_execution_s)
        body = _decode_body(job.payload)
        if job.inputs is not None:
            body = fill(body, job.inputs)
        started = time.perf_counter()

        def keep(answer: ProviderAnswer) -> None:
            partial.append(_job_result(job, answer, (time.perf_counter() - started) * 1e3))

        request = ProviderRequest(
            job_id=job.job_id,
            type=job.type,
            model=job.model,
            body=body,
            timeout_s=timeout_s,
            level=job.level,
            on_partial=keep,
        )
        try:
            with self.deadlines.within(timeout_s, job.job_id):
                answer = await provider.run(request)
        except DeadlinePassed as error:
            raise JobTimeout(f"Job timeout: no answer from {job.provider} within {timeout_s:g} s") from error
        encoded = encode_result(_job_result(job, answer, (time.perf_counter() - started) * 1e3))
        outcome = Outcome(job.job_id, job.attempt, encoded, tokens=answer.usage.total_tokens)
        if len(encoded) > self._max_result_bytes:
            outcome.result = b""
            outcome.failure = ResultTooLarge(
                f"the result has {len(encoded)} bytes, over the limit of {self._max_result_bytes}; "
                "ask for fewer tokens or raise limits.max_result_bytes"
            ).to_failure()
        return outcome


def _job_result(job: ClaimedJob, answer: ProviderAnswer, latency_ms: float) -> JobResult:
    return JobResult(
        response=answer.response,
        tokens=answer.usage.total_tokens,
        latency=round(latency_ms, 3),
        provider=job.provider,
        model=job.model,
        usage=answer.usage,
        finish_reason=answer.finish_reason,
        request_id=answer.request_id,
        raw=answer.raw,
    )


class ProviderSet:
    """The providers of one worker, opened when first asked for. One that can't be opened says why, each time."""

    def __init__(self, open_one: Callable[[str], Provider], names: tuple[str, ...]) -> None:
        self._open_one = open_one
        self._names = names
        self._opened: dict[str, Provider] = {}

    def __call__(self, name: str) -> Provider:
        """Return the provider; raises the JobError that says why there is none."""
        found = self._opened.get(name)
        if found is None:
            if name not in self._names:
                raise ModelUnavailable(f"Provider {name} is not served by this worker's pool")
            found = self._opened[name] = self._open_one(name)
        return found

    async def close(self) -> None:
        """Close all that were opened."""
        for provider in self._opened.values():
            await provider.close()
