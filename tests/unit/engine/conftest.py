"""A queue for each test."""

from __future__ import annotations

import pytest

from tests.tools.queue_harness import QueueHarness


@pytest.fixture
def queue() -> QueueHarness:
    """Return an empty queue whose clock stands still."""
    return QueueHarness()
