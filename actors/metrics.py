"""The queue's statistics as Prometheus metrics, through Ray's own exporter. Labels are bounded: levels and states."""

from __future__ import annotations

import asyncio
from collections import Counter as Totals

from ray.util.metrics import Counter, Gauge

from aiqueue.service.queue_service import QueueService
from aiqueue.views import QueueStats

_EVERY_S = 5.0


class QueueMetrics:
    """``aiqueue_*`` metrics of one queue actor."""

    def __init__(self, service: QueueService) -> None:
        self._service = service
        self._told: Totals[str] = Totals()
        self._queued = Gauge("aiqueue_queued_jobs", "Jobs that wait, by level.", ("level",))
        self._processing = Gauge("aiqueue_processing_jobs", "Jobs that a worker holds, by level.", ("level",))
        self._sla = Gauge("aiqueue_sla_compliance", "Share of completed jobs within their SLA, by level.", ("level",))
        self._oldest = Gauge("aiqueue_oldest_waiting_seconds", "Age of the job that waits longest.")
        self._workers = Gauge("aiqueue_workers", "Workers that the queue hears from.", ("state",))
        self._ended = Counter("aiqueue_ended_jobs_total", "Jobs that ended since this process started.", ("status",))

    async def run(self) -> None:
        """Report until cancelled."""
        self._told = self._totals(self._service.stats().adapter)
        while True:
            self._report(self._service.stats().adapter)
            await asyncio.sleep(_EVERY_S)

    def _report(self, stats: QueueStats) -> None:
        for level in stats.levels:
            tags = {"level": level.level}
            self._queued.set(level.queued, tags)
            self._processing.set(level.processing, tags)
            self._sla.set(level.sla_compliance, tags)
        self._oldest.set(stats.oldest_waiting_s)
        self._workers.set(stats.worker_pool_stats.idle_workers, {"state": "idle"})
        self._workers.set(stats.worker_pool_stats.busy_workers, {"state": "busy"})
        totals = self._totals(stats)
        for status, more in (totals - self._told).items():
            self._ended.inc(more, {"status": status})
        self._told = totals

    @staticmethod
    def _totals(stats: QueueStats) -> Totals[str]:
        return Totals(
            completed=stats.completed_jobs,
            failed=stats.failed_jobs,
            dead_letter=stats.dead_letter_jobs,
            cancelled=stats.cancelled_jobs,
            expired=stats.expired_jobs,
        )
