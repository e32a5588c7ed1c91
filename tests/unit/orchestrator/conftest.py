"""A queue, a client and an orchestrator for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiqueue.client import coalescer, event_feed
from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.testing.jobs import settings
from aiqueue.worker import loop
from tests.tools.client_harness import ClientHarness


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everybody try again sooner than they do for a queue that restarts."""
    monkeypatch.setattr(coalescer, "_RETRY_S", (0.0, 0.0))
    monkeypatch.setattr(event_feed, "_RETRY_S", 0.0)
    monkeypatch.setattr(loop, "_RETRY_S", 0.0)


@pytest.fixture
async def system() -> AsyncIterator[ClientHarness]:
    """Return a queue without a worker."""
    async with ClientHarness(settings(retry_s=0.0)) as made:
        yield made


@pytest.fixture
async def client(system: ClientHarness) -> AsyncAIQueueAdapter:
    """Return a client that is started."""
    return await system.client()


@pytest.fixture
async def orchestrator(client: AsyncAIQueueAdapter) -> AsyncIterator[AsyncAIJobOrchestrator]:
    """Return an orchestrator over ``client``."""
    async with AsyncAIJobOrchestrator(client) as made:
        yield made
