"""``/ai/stats``, ``/ai/health`` and ``/ai/live``: what the queue holds, whether it answers, whether we do."""

from __future__ import annotations

import asyncio
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from aiqueue.errors import AIQueueError, QueueUnavailable
from aiqueue.journal_info import JournalInfo
from aiqueue.views import Stats
from serve.openapi import Operation, answer
from serve.routes.shared import adapter_of, json_response

HEALTH_TIMEOUT_S = 2.0


class Health(msgspec.Struct, rename="camel"):
    """The queue answers, took so many milliseconds for it, has this journal open, and no worker for these pools."""

    status: str
    queue_ms: float
    journal: JournalInfo | None = None
    pools_without_workers: tuple[str, ...] = ()


class Alive(msgspec.Struct, rename="camel"):
    """This HTTP front answers."""

    status: str


async def get_stats(request: Request) -> Response:
    """Jobs by status and by level, workers and SLA figures (`adapter`), and batches (`orchestrator`)."""
    return json_response(await adapter_of(request).get_system_stats())


async def get_health(request: Request) -> Response:
    """Ask the queue for a sign of life. For readiness: 503 means that submits would fail now."""
    asked_at = time.perf_counter()
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            queue = await adapter_of(request).ping()
    except TimeoutError:
        raise QueueUnavailable(f"the queue did not answer within {HEALTH_TIMEOUT_S:g} s") from None
    except AIQueueError as error:
        raise QueueUnavailable(f"the queue is not well: {error}") from error
    took_ms = round((time.perf_counter() - asked_at) * 1e3, 3)
    return json_response(Health("ok", took_ms, queue.journal, queue.pools_without_workers))


async def get_liveness(_: Request) -> Response:
    """Answer at once without asking anyone. For liveness, and as the yardstick of benchmarks."""
    return json_response(Alive("ok"))


OPERATIONS = (
    Operation(
        method="GET",
        path="/ai/stats",
        endpoint=get_stats,
        name="getStats",
        answer=answer(Stats, "The statistics."),
        failures={503: "The queue does not answer."},
    ),
    Operation(
        method="GET",
        path="/ai/health",
        endpoint=get_health,
        name="getHealth",
        answer=answer(Health, "The queue answers."),
        failures={503: "The queue does not answer, or says that it can't work."},
    ),
    Operation(
        method="GET",
        path="/ai/live",
        endpoint=get_liveness,
        name="getLiveness",
        answer=answer(Alive, "This HTTP front answers."),
    ),
)
