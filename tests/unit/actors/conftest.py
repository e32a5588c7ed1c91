"""What tests of the actors share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.tools.pool_bench import Bench


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Return a pool; what it has begun ends with the test."""
    bench = Bench(monkeypatch)
    yield bench
    for task in bench.pool._tasks:
        task.cancel()
