"""What a provider is to a worker: one protocol, whoever answers.

A provider is made once per worker from its configuration entry and serves many requests at once. It turns a
``ProviderRequest`` into a ``ProviderAnswer`` or raises a ``JobError`` (see ``classify.py`` for foreign errors). It
never retries: the queue does. Cancelling the task that awaits ``run`` must stop the work: close the HTTP stream, or
free the model at the next token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from aiqueue.results import FinishReason, Response, Usage


class ProviderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer in the common shape, beside the provider's own (``raw``, JSON-ready)."""

    response: Response
    usage: Usage
    finish_reason: FinishReason | None = None
    request_id: str | None = None
    raw: Any = None


class ProviderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call, validated. ``body`` is the job's payload as submitted (see ``aiqueue.models``), as a dict."""

    job_id: str
    type: str
    model: str
    body: dict[str, Any]
    timeout_s: float
    level: int = 2  #: rank of the job's priority level, 0 = urgent
    #: Is given what was produced so far when the task is cancelled, before ``run`` ends with that.
    on_partial: Callable[[ProviderAnswer], None] | None = None


class Provider(Protocol):
    """Runs requests of the job types in ``job_types``."""

    name: str
    job_types: frozenset[str]

    async def run(self, request: ProviderRequest) -> ProviderAnswer:
        """Return the provider's answer, or raise the JobError that says why there is none."""
        ...

    async def health_check(self) -> None:
        """Return if the provider can be asked now; raise the JobError that says why not."""
        ...

    async def close(self) -> None:
        """Let go of connections and memory. Called once, when nothing runs any more."""
        ...
