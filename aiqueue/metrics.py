"""The statistics as Prometheus metrics: names, labels and values. What exports them is up to others (`actors.metrics`).

Labels are bounded by the settings, whatever callers send: levels, pools, states, windows. Models are not among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from aiqueue.views import QueueStats, Stats


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric is called and means, and which labels it has."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


QUEUED = Metric("aiqueue_queued_jobs", "Jobs that wait for a worker.", ("level",))
PROCESSING = Metric("aiqueue_processing_jobs", "Jobs that a worker holds.", ("level",))
SLA = Metric("aiqueue_sla_compliance", "Share of all completed jobs that met their SLA.", ("level",))
LATENCY = Metric("aiqueue_latency_seconds", "From submit to result, of recent jobs.", ("level", "quantile"))
POOL_QUEUED = Metric("aiqueue_pool_queued_jobs", "Jobs that wait for a worker of this pool.", ("pool",))
POOL_PROCESSING = Metric("aiqueue_pool_processing_jobs", "Jobs that workers of this pool hold.", ("pool",))
POOL_WORKERS = Metric("aiqueue_pool_workers", "Workers of this pool that the queue hears from.", ("pool",))
SCHEDULED = Metric("aiqueue_scheduled_jobs", "Jobs whose time has not come: delayed, or about to be retried.")
BLOCKED = Metric("aiqueue_blocked_jobs", "Jobs that wait for other jobs.")
OLDEST = Metric("aiqueue_oldest_waiting_seconds", "Age of the job that waits longest.")
DEAD_LETTERS = Metric("aiqueue_dead_letters", "Dead letters that are kept now.")
CLOSED_GATES = Metric("aiqueue_closed_gates", "Models of providers that are not asked just now.")
WORKERS = Metric("aiqueue_workers", "Workers that the queue hears from.", ("state",))
RATE = Metric("aiqueue_completed_per_second", "Completed jobs per second.", ("window",))
BATCHES = Metric("aiqueue_active_batches", "Batches, chains and graphs under way.")
COMMIT_WAIT = Metric("aiqueue_commit_wait_seconds", "For how long the oldest commit has been waiting for the disk.")
ENDED = Metric("aiqueue_ended_jobs_total", "Jobs that ended since the queue's process started.", ("status",))

GAUGES = (
    QUEUED,
    PROCESSING,
    SLA,
    LATENCY,
    POOL_QUEUED,
    POOL_PROCESSING,
    POOL_WORKERS,
    SCHEDULED,
    BLOCKED,
    OLDEST,
    DEAD_LETTERS,
    CLOSED_GATES,
    WORKERS,
    RATE,
    BATCHES,
    COMMIT_WAIT,
)

Reading = tuple[Metric, float, dict[str, str]]


def readings(stats: Stats, *, pools: Collection[str], commit_waits_s: float) -> Iterator[Reading]:
    """Yield the value of each gauge for each of its labels. ``pools``: all that are configured, idle ones too."""
    queue = stats.adapter
    yield from _of_levels(queue)
    yield from _of_pools(queue, pools)
    yield SCHEDULED, queue.scheduled_jobs, {}
    yield BLOCKED, queue.blocked_jobs, {}
    yield OLDEST, queue.oldest_waiting_s, {}
    yield DEAD_LETTERS, queue.dead_letter_queue_depth, {}
    yield CLOSED_GATES, queue.closed_gates, {}
    yield WORKERS, queue.worker_pool_stats.idle_workers, {"state": "idle"}
    yield WORKERS, queue.worker_pool_stats.busy_workers, {"state": "busy"}
    yield RATE, queue.completed_per_s.last_1_min, {"window": "1m"}
    yield RATE, queue.completed_per_s.last_5_min, {"window": "5m"}
    yield RATE, queue.completed_per_s.last_15_min, {"window": "15m"}
    yield BATCHES, stats.orchestrator.active_batches, {}
    yield COMMIT_WAIT, commit_waits_s, {}


def _of_levels(queue: QueueStats) -> Iterator[Reading]:
    for level in queue.levels:
        labels = {"level": level.level}
        yield QUEUED, level.queued, labels
        yield PROCESSING, level.processing, labels
        yield SLA, level.sla_compliance, labels
        for quantile, value_ms in (("0.5", level.latency_p50_ms), ("0.99", level.latency_p99_ms)):
            if value_ms is not None:
                yield LATENCY, value_ms / 1e3, {**labels, "quantile": quantile}


def _of_pools(queue: QueueStats, pools: Collection[str]) -> Iterator[Reading]:
    queued: Counter[str] = Counter()
    processing: Counter[str] = Counter()
    workers = {found.pool: found.workers for found in queue.pools}
    for lane in queue.lanes:
        queued[lane.pool] += lane.queued
        processing[lane.pool] += lane.processing
    for pool in pools:
        yield POOL_QUEUED, queued[pool], {"pool": pool}
        yield POOL_PROCESSING, processing[pool], {"pool": pool}
        yield POOL_WORKERS, workers.get(pool, 0), {"pool": pool}


def ended(queue: QueueStats) -> Counter[str]:
    """Return how many jobs have ended, by how, since the journal was made."""
    return Counter(
        completed=queue.completed_jobs,
        failed=queue.failed_jobs,
        dead_letter=queue.dead_letter_jobs,
        cancelled=queue.cancelled_jobs,
        expired=queue.expired_jobs,
    )
