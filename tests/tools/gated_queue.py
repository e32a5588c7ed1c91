"""Queues whose gates close: the harness's own policy keeps them open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiqueue.engine.policy import EnginePolicy, GatePolicy, RetryPolicy
from aiqueue.protocol import Failure
from aiqueue.testing.jobs import PROVIDER
from tests.tools.queue_harness import POLICY, QueueHarness

CLOSED, OPENED = "gate:closed", "gate:opened"


def policy(*, retry: RetryPolicy = POLICY.retry, **gate: Any) -> EnginePolicy:
    """Return a policy whose provider has this gate; what is not named never closes it."""
    quiet: dict[str, Any] = {"adaptive": False, "breaker_failures": 1_000_000, "breaker_window": 1_000_000}
    return replace(POLICY, gates={PROVIDER: GatePolicy(**{**quiet, **gate})}, retry=retry)


def gated(**gate: Any) -> QueueHarness:
    """Return a queue whose provider has this gate."""
    return QueueHarness(policy(**gate))


def refused(retry_after_s: float | None = None) -> Failure:
    """Return the failure of a call that met a 429."""
    return Failure("rate_limited", "Provider sim: 429", True, 429, retry_after_s)


def run(queue: QueueHarness, count: int) -> list[str]:
    """Submit jobs and let the worker take them; time passes, so that they start after whatever was before."""
    queue.clock.advance(0.001)
    names = [f"job-{queue.engine.core.counters.next_seq + number}" for number in range(count)]
    queue.submit(*names, max_retries=10)
    claimed = queue.claim(count)
    queue.clock.advance(0.001)
    return claimed
