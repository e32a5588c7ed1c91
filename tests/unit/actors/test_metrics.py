"""The queue's metrics go on whatever one of them, or one look at the queue, runs into."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from actors import metrics as module
from actors.metrics import QueueMetrics
from aiqueue import metrics
from aiqueue.testing.jobs import settings
from aiqueue.views import Stats
from tests.tools.service_harness import ServiceHarness
from tests.tools.turns import until


class Told:
    """What was told of one metric; ``bad``: Ray refuses it."""

    def __init__(self, bad: bool) -> None:
        self._bad = bad
        self.times = 0

    def set(self, value: float, labels: Mapping[str, str]) -> None:
        self.inc(value, labels)

    def inc(self, value: float, labels: Mapping[str, str]) -> None:
        if self._bad:
            raise ValueError("unrecognized tag keys")
        self.times += 1


class Rig:
    """The metrics of a queue, told to nobody."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, bad: str = "") -> None:
        self.told: dict[str, Told] = {}
        self.queue = ServiceHarness(settings())
        monkeypatch.setattr(module, "_EVERY_S", 0.0)
        monkeypatch.setattr(module, "Gauge", lambda name, *_: self.told.setdefault(name, Told(name == bad)))
        monkeypatch.setattr(module, "Counter", lambda name, *_: self.told.setdefault(name, Told(name == bad)))

    async def run(self, service: Any = None) -> None:
        """Report until each metric was told twice, or can't be."""
        running = asyncio.create_task(QueueMetrics(service or self.queue.service, ("p",)).run())
        always = [self.told[name] for name in (metrics.OLDEST.name, metrics.COMMIT_WAIT.name)]
        try:
            await until(lambda: all(told.times >= 2 for told in always))
        finally:
            running.cancel()
            await self.queue.service.close()


async def test_a_metric_that_can_not_be_told_keeps_no_other_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch, bad=metrics.SCHEDULED.name)
    await rig.run()
    assert rig.told[metrics.SCHEDULED.name].times == 0


async def test_statistics_that_fail_at_first_do_not_end_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    failures = ["first look", "second"]

    class Stumbling:
        """The service, whose statistics fail twice."""

        def stats(self) -> Stats:
            if failures:
                raise KeyError(failures.pop())
            return rig.queue.service.stats()

        async def counted_stats(self) -> Stats:
            self.stats()
            return await rig.queue.service.counted_stats()

        def commit_waits_s(self) -> float:
            return 0.0

    await rig.run(Stumbling())
    assert failures == []
