"""What ``get_stats`` answers: totals from the engine's counters, percentiles from the last jobs that ended."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from itertools import groupby
from operator import attrgetter
from statistics import fmean

from aiqueue.engine.core import HELD, Core
from aiqueue.engine.records import LaneKey
from aiqueue.engine.states import JobState
from aiqueue.levels import LEVELS
from aiqueue.protocol import Event
from aiqueue.views import LaneStats, LevelStats, OrchestratorStats, QueueStats, Rates, Stats, WorkerPoolStats

_WINDOW = 2_000  # completed jobs per level that percentiles are taken over


class Served:
    """What the workers did for one provider."""

    __slots__ = ("busy_s", "completed")

    def __init__(self) -> None:
        self.completed, self.busy_s = 0, 0.0


class RecentTimes:
    """Durations of the last completed jobs, in milliseconds."""

    def __init__(self) -> None:
        self.latency_ms: list[deque[float]] = [deque(maxlen=_WINDOW) for _ in LEVELS]
        self.processing_ms: deque[float] = deque(maxlen=_WINDOW)
        self.served: defaultdict[str, Served] = defaultdict(Served)  #: by provider, since this process started
        self._since: float | None = None
        self._per_second: deque[tuple[int, int]] = deque(maxlen=15 * 60)  # second, jobs completed in it

    def observe(self, events: list[Event]) -> None:
        """Note the completed jobs among committed events."""
        completed = [event for event in events if event.name == "job:completed"]
        for event in completed:
            self.latency_ms[event.level].append((event.at - event.since) * 1e3)
            busy_s = event.at - event.started_at
            self.processing_ms.append(busy_s * 1e3)
            served = self.served[event.provider]
            served.completed += 1
            served.busy_s += busy_s
        for at, together in groupby(completed, attrgetter("at")):
            self._count(at, len(list(together)))

    def _count(self, at: float, completed: int) -> None:
        second, count = int(at), 0
        if self._per_second and self._per_second[-1][0] == second:
            _, count = self._per_second.pop()
        self._per_second.append((second, count + completed))
        self._since = at if self._since is None else self._since

    def rate(self, now: float, minutes: int) -> float:
        """Return completed jobs per second over the last ``minutes``, or since the first one if that is less."""
        if self._since is None:
            return 0.0
        span_s = min(minutes * 60.0, max(1.0, now - self._since))
        return sum(count for second, count in self._per_second if second > now - span_s - 1) / span_s


def percentile(values: list[float], share: float) -> float | None:
    """Return the value below which ``share`` (0 to 1) of the sorted ``values`` lie; None of nothing.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
    3.0
    """
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def collect(
    core: Core, recent: RecentTimes, *, now: float, dead_letter_queue: str = "ai-jobs-dlq", dead_letters: int = 0
) -> Stats:
    """Return the queue's statistics at ``now``. O(lanes + workers + jobs in process + schedules)."""
    ended = core.counters.ended
    processing = sum(len(worker.held) for worker in core.leases)
    queued = sum(lane.ready for lane in core.lanes.filled()) + sum(map(sum, core.groups.held.values()))
    waiting = [oldest for lane in core.lanes.filled() if (oldest := lane.oldest()) is not None]
    queue = QueueStats(
        is_running=True,
        total_jobs=core.counters.accepted,
        queued_jobs=queued,
        scheduled_jobs=sum(core.waiting) - queued - core.blocked,
        blocked_jobs=core.blocked,
        closed_gates=sum(now < gate.closed_until for gate in core.gates),
        dead_letter_queue=dead_letter_queue,
        dead_letter_queue_depth=dead_letters,
        processing_jobs=processing,
        completed_jobs=ended.get(JobState.COMPLETED.value, 0),
        failed_jobs=ended.get(JobState.FAILED.value, 0),
        dead_letter_jobs=ended.get(JobState.DEAD_LETTER.value, 0),
        cancelled_jobs=ended.get(JobState.CANCELLED.value, 0),
        expired_jobs=ended.get(JobState.EXPIRED.value, 0),
        completed_per_s=Rates(
            last_1_min=recent.rate(now, 1), last_5_min=recent.rate(now, 5), last_15_min=recent.rate(now, 15)
        ),
        stale_outcomes=core.counters.stale_outcomes,
        oldest_waiting_s=max(0.0, now - min(waiting)) if waiting else 0.0,
        levels=_levels(core, recent),
        lanes=_lanes(core),
        worker_pool_stats=_workers(core, recent),
    )
    return Stats(adapter=queue, orchestrator=_orchestrator(core))


def _orchestrator(core: Core) -> OrchestratorStats:
    schedules = [schedule.state for schedule in core.schedules]
    return OrchestratorStats(
        total_batches=core.counters.batches,
        active_batches=len(core.open_batches),
        total_schedules=len(schedules),
        active_schedules=sum(state.enabled for state in schedules),
        scheduled_runs=sum(state.fired for state in schedules),
    )


def _levels(core: Core, recent: RecentTimes) -> list[LevelStats]:
    running = [job.level for worker in core.leases for job in worker.held.values()]
    found = []
    for rank, level in enumerate(LEVELS):
        latencies = sorted(recent.latency_ms[rank])
        completed, met = core.counters.completed[rank], core.counters.sla_met[rank]
        found.append(
            LevelStats(
                level=level.value,
                sla_ms=core.policy.sla_ms[rank],
                queued=sum(lane.queued[rank] for lane in core.lanes.filled())
                + sum(held[rank] for held in core.groups.held.values()),
                processing=running.count(rank),
                completed=completed,
                sla_met=met,
                sla_compliance=met / completed if completed else 1.0,
                latency_p50_ms=percentile(latencies, 0.5),
                latency_p99_ms=percentile(latencies, 0.99),
            )
        )
    return found


def _lanes(core: Core) -> list[LaneStats]:
    """Return what waits and runs by lane; jobs that may not run beside others are shown with the rest."""
    held = [job.lane for worker in core.leases for job in worker.held.values() if job.state in HELD]
    processing, queued = Counter(map(_shown_as, held)), Counter[tuple[str, str, str]]()
    for lane in core.lanes:
        queued[_shown_as(lane.key)] += lane.ready + sum(core.groups.held.get(lane.key, ()))
    for shown in processing:  # in a lane that was forgotten since nothing waits in it
        queued[shown] += 0
    return [
        LaneStats(pool=pool, provider=provider, model=model, queued=count, processing=processing[pool, provider, model])
        for (pool, provider, model), count in queued.items()
    ]


def _shown_as(lane: LaneKey) -> tuple[str, str, str]:
    return lane.pool, lane.provider, lane.model


def _workers(core: Core, recent: RecentTimes) -> WorkerPoolStats:
    busy = [bool(worker.held) for worker in core.leases]
    return WorkerPoolStats(
        total_workers=len(busy),
        idle_workers=busy.count(False),
        busy_workers=busy.count(True),
        average_processing_time_ms=fmean(recent.processing_ms) if recent.processing_ms else None,
    )
