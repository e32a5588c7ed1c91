"""Whether a worker is well. Soft: let it end its jobs and replace it. Hard: end it, its jobs go back to the queue."""

from __future__ import annotations

from dataclasses import dataclass

from aiqueue.scaling.load import WorkerReport


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLimits:
    """What a worker of a pool may be. Times in seconds; None: no limit."""

    max_memory_mb: float | None = None
    hard_memory_factor: float = 1.5  #: ends a worker at this multiple of ``max_memory_mb``
    max_start_s: float = 1_800.0  #: until it is ready
    max_loop_lag_s: float = 5.0
    overrun_s: float = 10.0  #: after a job's time limit; the job itself ends at the limit unless something hangs
    missed_checks: int = 3  #: in a row


@dataclass(frozen=True, slots=True)
class Verdict:
    """A worker is ill: why, and how urgent it is."""

    reason: str
    hard: bool


class Health:
    """The record of one worker process."""

    def __init__(self, limits: HealthLimits) -> None:
        self._limits = limits
        self._missed = 0
        self._lagged = False

    def reported(self, report: WorkerReport) -> Verdict | None:
        """Judge an answer; None: well. A late loop counts the second time in a row: a paused node is no illness."""
        self._missed = 0
        limits, lagged = self._limits, report.lag_s > self._limits.max_loop_lag_s
        twice, self._lagged = lagged and self._lagged, lagged
        if limits.max_memory_mb is not None:
            hard_mb = limits.max_memory_mb * limits.hard_memory_factor
            if report.private_mb > hard_mb:
                return Verdict(
                    f"memory: {report.private_mb:.0f} MB, over the hard limit of {hard_mb:.0f} MB", hard=True
                )
        if report.refused:  # its successor runs what is installed on the node by then
            return Verdict(report.trouble, hard=False)
        if report.starting_s > limits.max_start_s:
            why = f": {report.trouble}" if report.trouble else ""
            return Verdict(f"start: not ready to work after {report.starting_s:.0f} s{why}", hard=True)
        if report.overrun_s > limits.overrun_s:
            late = f"job {report.overrun_job} runs {report.overrun_s:.0f} s past its time limit"
            return Verdict(f"execution time: {late}", hard=True)
        if limits.max_memory_mb is not None and report.private_mb > limits.max_memory_mb:
            limit_mb = limits.max_memory_mb
            return Verdict(f"memory: {report.private_mb:.0f} MB, over the limit of {limit_mb:.0f} MB", hard=False)
        if twice:
            return Verdict(f"event loop: stood still for {report.lag_s:.1f} s, and not for the first time", hard=False)
        return None

    def missed(self, waited_s: float) -> Verdict | None:
        """Judge a check that was not answered within ``waited_s``."""
        self._missed += 1
        if self._missed < self._limits.missed_checks:
            return None
        return Verdict(f"heartbeat: no answer to {self._missed} checks of {waited_s:g} s", hard=True)
