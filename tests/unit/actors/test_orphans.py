"""When a worker takes its system for gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from actors import cluster
from actors.options import POOL_MANAGER_NAME
from actors.orphans import wait_until_orphaned
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME

_LOOKS = 20


async def looks(monkeypatch: pytest.MonkeyPatch, names: Callable[[], list[str]]) -> int:
    """Return how often it was looked until the system was taken for gone."""
    slept: list[float] = []

    async def sleep(wait_s: float) -> None:
        slept.append(wait_s)
        assert len(slept) < 100

    monkeypatch.setattr(cluster, "names_in", lambda _: names())
    await wait_until_orphaned("mine", sleep)
    return len(slept)


async def test_a_worker_whose_system_is_gone_ends_after_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await looks(monkeypatch, lambda: ["aiqueue-worker-p-1"]) == _LOOKS


@pytest.mark.parametrize("name", [QUEUE_ACTOR_NAME, POOL_MANAGER_NAME])
async def test_a_system_that_was_there_in_between_is_not_gone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    answers: Iterator[list[str]] = iter([[]] * 15 + [[name]])
    assert await looks(monkeypatch, lambda: next(answers, [])) == 16 + _LOOKS


async def test_a_ray_that_can_not_be_asked_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False] * 10)

    def names() -> list[str]:
        if next(answers, False):
            raise ConnectionError("the control store is away")
        return []

    assert await looks(monkeypatch, names) == 19 + _LOOKS
