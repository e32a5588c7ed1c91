"""Jobs for tests: what they do not care about has a value, what they care about is an argument."""

from __future__ import annotations

from typing import Any

from aiqueue.config import JournalConfig, LeaseConfig, LimitsConfig, PoolConfig, ProviderConfig, RetryConfig, Settings
from aiqueue.errors import InvalidRequest, ProviderServerError
from aiqueue.ids import new_job_ids
from aiqueue.levels import AIJobPriority
from aiqueue.protocol import Failure, JobHeader, Outcome, Submission, SubmitGroup
from aiqueue.results import Choice, JobResult, Message, Response, Usage, encode_result

PROVIDER, MODEL, POOL = "sim", "model-a", "pool"

Payload = dict[str, Any]


def chat(text: str = "Hello", *, provider: str = PROVIDER, model: str = MODEL, **fields: Any) -> Payload:
    """Return the payload of a chat completion."""
    messages = [{"role": "user", "content": text}]
    return {"type": "chat_completion", "provider": provider, "model": model, "messages": messages, **fields}


def completion(prompt: str = "Once", *, provider: str = PROVIDER, model: str = MODEL, **fields: Any) -> Payload:
    """Return the payload of a text completion."""
    return {"type": "text_completion", "provider": provider, "model": model, "prompt": prompt, **fields}


def embedding(text: str | list[str] = "Hello", *, provider: str = PROVIDER, model: str = MODEL) -> Payload:
    """Return the payload of an embedding."""
    return {"type": "embedding", "provider": provider, "model": model, "input": text}


def header(
    level: AIJobPriority = AIJobPriority.MEDIUM,
    *,
    provider: str = PROVIDER,
    model: str = MODEL,
    owner: str = "client-a",
    max_retries: int = 3,
    timeout_ms: int = 30_000,
    batch_id: str = "",
    tags: tuple[str, ...] = (),
) -> JobHeader:
    """Return what the queue is told of a job."""
    return JobHeader(
        "chat_completion", provider, model, level.rank, owner, max_retries, timeout_ms, tags, batch_id=batch_id
    )


def submission(job_id: str = "", job_header: JobHeader | None = None, payload: bytes = b'{"type":"x"}') -> Submission:
    """Return one job to accept; its id is new unless given."""
    return Submission(job_id or new_job_ids(1)[0], job_header or header(), payload)


def group(*jobs: Submission | str, maybe_known: bool = False) -> SubmitGroup:
    """Return a group of jobs, given whole or by id."""
    return SubmitGroup([submission(job) if isinstance(job, str) else job for job in jobs], maybe_known)


def result(text: str = "Hi there") -> JobResult:
    """Return a completed chat's result."""
    usage = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    message = Choice(index=0, message=Message(content=text), finish_reason="stop")
    return JobResult(
        response=Response(model=MODEL, choices=[message]),
        tokens=5,
        latency=12.5,
        provider=PROVIDER,
        model=MODEL,
        usage=usage,
        finish_reason="stop",
    )


def completed(job_id: str, attempt: int = 1, text: str = "Hi there") -> Outcome:
    """Return the report of a worker that has finished."""
    return Outcome(job_id, attempt, encode_result(result(text)))


def failed(job_id: str, attempt: int = 1, failure: Failure | None = None) -> Outcome:
    """Return the report of a failed attempt; another one may help, unless ``failure`` says otherwise."""
    return Outcome(job_id, attempt, failure=failure or retryable())


def cancelled(job_id: str, attempt: int = 1) -> Outcome:
    """Return the report of an attempt that was stopped, or handed back."""
    return Outcome(job_id, attempt, cancelled=True)


def retryable(message: str = "Provider sim: 503", *, retry_after_s: float | None = None) -> Failure:
    """Return a failure that another attempt may mend."""
    return ProviderServerError(message, status=503, retry_after_s=retry_after_s).to_failure()


def final(message: str = "Provider sim: 400") -> Failure:
    """Return a failure that no other attempt can mend."""
    return InvalidRequest(message, status=400).to_failure()


def settings(
    *,
    heartbeat_s: float = 30.0,
    retry_s: float = 1.0,
    cache_bytes: int = 2**20,
    models: tuple[str, ...] = (),
    max_payload_bytes: int = 4 * 2**20,
) -> Settings:
    """Return a system with one simulated provider in one pool, whatever the environment says."""
    return Settings(
        providers={PROVIDER: ProviderConfig(kind="simulated", models=models)},
        pools={POOL: PoolConfig(providers=(PROVIDER,), slots=4, workers=1)},
        journal=JournalConfig(payload_cache_bytes=cache_bytes),
        retry=RetryConfig(base_s=retry_s, jitter=0.0),
        lease=LeaseConfig(heartbeat_s=heartbeat_s),
        limits=LimitsConfig(max_payload_bytes=max_payload_bytes),
    )
