"""Submits over HTTP that may be sent again: the demo's queue may be killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from aiqueue.cli.demo_prompts import DemoJob
from aiqueue.errors import AIQueueError, QueueUnavailable

_WAITS_S = (0.2, 2.0)  # first and longest wait between tries
_BUSY = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE})


class HttpSubmitter:
    """Submits jobs to ``url`` until each is accepted, for up to ``patience_s`` seconds a job."""

    def __init__(
        self,
        url: str,
        *,
        patience_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False, transport=transport)
        self._patience_s = patience_s
        self._sleep = sleep

    def submit(self, job: DemoJob, options: dict[str, Any]) -> None:
        """Return when ``job`` is on the queue's disk. Raises QueueUnavailable, or AIQueueError if it is refused.

        Its id goes with it, so a second try of a submit whose answer was lost finds the first.
        """
        body = {"payload": job.payload, "priority": job.priority, "options": {**options, "jobId": job.id}}
        wait, longest = _WAITS_S
        waited = 0.0
        while (problem := self._try(body)) is not None:
            if waited >= self._patience_s:
                raise QueueUnavailable(f"POST /ai/jobs did not succeed within {self._patience_s:g} s: {problem}")
            self._sleep(wait)
            waited, wait = waited + wait, min(longest, wait * 2)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _try(self, body: dict[str, Any]) -> str | None:
        """Send once; return None if the job was accepted, or why it may be sent again."""
        try:
            response = self._client.post("/ai/jobs", json=body)
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}"
        if response.status_code in _BUSY:
            return f"status {response.status_code}"
        if not response.is_success:
            raise AIQueueError(f"POST /ai/jobs answered {response.status_code}: {response.text[:500]}")
        return None
