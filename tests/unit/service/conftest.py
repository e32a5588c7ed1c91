"""A service for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiqueue.journal import writer
from tests.tools.service_harness import ServiceHarness


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer try a failed commit again sooner than it does for people."""
    monkeypatch.setattr(writer, "_RETRY_S", 0.001)


@pytest.fixture
async def queue() -> AsyncIterator[ServiceHarness]:
    """Return a service on an empty journal."""
    made = ServiceHarness()
    yield made
    if made.journal is made.memory:
        made.memory.release()
    await made.service.close()
