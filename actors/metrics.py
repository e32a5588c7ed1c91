"""The queue's statistics as Prometheus metrics, through Ray's own exporter."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Totals
from collections.abc import Collection

from ray.util.metrics import Counter, Gauge

from aiqueue import metrics
from aiqueue.background import until_done
from aiqueue.service.queue_service import QueueService
from aiqueue.views import QueueStats, Stats

_log = logging.getLogger(__name__)
_EVERY_S = 5.0


class QueueMetrics:
    """``aiqueue_*`` metrics of one queue actor."""

    def __init__(self, service: QueueService, pools: Collection[str]) -> None:
        self._service, self._pools = service, pools
        self._told: Totals[str] | None = None
        self._gauges = {metric: Gauge(metric.name, metric.help, metric.labels) for metric in metrics.GAUGES}
        self._ended = Counter(metrics.ENDED.name, metrics.ENDED.help, metrics.ENDED.labels)

    async def run(self) -> None:
        """Report until cancelled."""
        await until_done(self._run, "telling the metrics", retry_s=_EVERY_S)

    async def _run(self) -> None:
        if self._told is None:
            self._told = metrics.ended(self._service.stats().adapter)
        while True:
            self._report(await self._service.counted_stats())
            await asyncio.sleep(_EVERY_S)

    def _report(self, stats: Stats) -> None:
        waits_s = self._service.commit_waits_s()
        for metric, value, labels in metrics.readings(stats, pools=self._pools, commit_waits_s=waits_s):
            try:
                self._gauges[metric].set(value, labels)
            except Exception:
                _log.exception("the metric %s could not be told this time", metric.name)
        self._count(stats.adapter)

    def _count(self, queue: QueueStats) -> None:
        totals = metrics.ended(queue)
        for status, more in (totals - (self._told or Totals())).items():
            self._ended.inc(more, {"status": status})
        self._told = totals
