"""The watchdog of the queue: which silence is a hang, and which is a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest
from ray.exceptions import RpcError

from actors import watchdog as module
from actors.cluster import ALIVE, RESTARTING
from actors.watchdog import Watchdog
from aiqueue.errors import AIQueueError, QueueNotRunning, QueueSilent, QueueUnavailable
from tests.tools.turns import until

_SILENT, _UNREACHABLE, _NONE = QueueSilent("silent"), QueueUnavailable("unreachable"), QueueNotRunning("none")
_WELL, _STUCK = 0.0, 61.0


class Queue:
    """Answers in the given order, then well for ever."""

    def __init__(self, answers: Iterable[float | Exception]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def commit_waits_s(self, *, limit_s: float) -> float:
        self.asked += 1
        answer = self._answers.pop(0) if self._answers else _WELL
        if isinstance(answer, Exception):
            raise answer
        return answer


async def ends(
    monkeypatch: pytest.MonkeyPatch,
    answers: list[float | Exception],
    *,
    state: str = ALIVE,
    state_of: Callable[[object], str] | None = None,
    failing_ends: int = 0,
) -> int:
    """How often the watchdog ends the queue that answers so; without a state there is no such actor."""
    # No Ray runs here: what the watchdog learns from it, and what it does to a real process, is played. That it ends
    # one for real is in tests/crash/test_rounds.py and test_restarts.py.
    ended: list[Watchdog] = []

    def end(watchdog: Watchdog) -> None:
        ended.append(watchdog)
        if len(ended) <= failing_ends:
            raise RpcError("the control store does not answer")

    monkeypatch.setattr(module, "_EVERY_S", 0.0)
    monkeypatch.setattr(module.cluster, "find", lambda name, namespace: state or None)
    monkeypatch.setattr(module.cluster, "state_of", state_of or (lambda actor: state))
    monkeypatch.setattr(Watchdog, "_end", end)
    queue = Queue(answers)
    watching = asyncio.create_task(Watchdog(queue, "ns").run())  # type: ignore[arg-type]  # all of it that is asked
    await until(lambda: queue.asked > len(answers) + 1)
    watching.cancel()
    return len(ended)


@pytest.mark.parametrize("miss", [_SILENT, _UNREACHABLE, _STUCK])
async def test_five_misses_in_a_row_end_a_queue_that_ray_takes_for_alive(
    monkeypatch: pytest.MonkeyPatch, miss: float | Exception
) -> None:
    assert await ends(monkeypatch, [miss] * 4) == 0
    assert await ends(monkeypatch, [miss] * 5) == 1
    assert await ends(monkeypatch, [miss] * 4 + [_WELL] + [miss] * 4) == 0


async def test_silence_of_several_kinds_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    # A connection to a process that is stopped fails after 20 s, where until then nothing is answered.
    assert await ends(monkeypatch, [_SILENT, _SILENT, _UNREACHABLE, _SILENT, _UNREACHABLE]) == 1


@pytest.mark.parametrize("miss", [_SILENT, _UNREACHABLE])
async def test_a_queue_that_ray_starts_again_is_left_alone(monkeypatch: pytest.MonkeyPatch, miss: Exception) -> None:
    assert await ends(monkeypatch, [miss] * 20, state=RESTARTING) == 0


async def test_a_queue_that_is_not_there_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await ends(monkeypatch, [_NONE] * 20, state="") == 0


@pytest.mark.parametrize(
    ("found", "looks"),
    [
        ([None] * 300, 300),
        ([None] * 299 + ["queue"] + [None] * 300, 600),
        ([None] * 299 + [RpcError("the control store does not answer")] + [None] * 300, 600),
    ],
)
async def test_a_queue_that_has_not_been_there_for_ten_minutes_is_gone(
    monkeypatch: pytest.MonkeyPatch, found: list[object], looks: int
) -> None:
    answers = iter(found)

    def find(name: str, namespace: str) -> object:
        answer = next(answers, "queue")  # the watch that is not over by then never ends
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(module, "_EVERY_S", 0.0)
    monkeypatch.setattr(module.cluster, "find", find)
    monkeypatch.setattr(module.cluster, "state_of", lambda actor: RESTARTING)
    queue = Queue([_NONE] * 1_000)
    watching = asyncio.create_task(Watchdog(queue, "ns").run())  # type: ignore[arg-type]  # all of it that is asked
    await until(lambda: watching.done() or queue.asked > looks)
    watching.cancel()
    assert queue.asked == looks


async def test_a_queue_that_answers_with_an_error_is_watched_on_and_counts_as_answering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = AIQueueError("the queue failed on commit_waits_s (KeyError)")
    assert await ends(monkeypatch, [fault] * 20) == 0
    assert await ends(monkeypatch, [_SILENT] * 4 + [fault] + [_SILENT] * 4) == 0
    assert await ends(monkeypatch, [fault] + [_SILENT] * 5) == 1


async def test_a_ray_that_can_not_be_asked_about_the_queue_ends_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def state_of(actor: object) -> str:
        asked.append(actor)
        if len(asked) <= 10:
            raise RpcError("the control store does not answer")
        return ALIVE

    assert await ends(monkeypatch, [_SILENT] * 15, state_of=state_of) == 1


async def test_a_queue_whose_end_failed_is_ended_after_five_more_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await ends(monkeypatch, [_SILENT] * 10, failing_ends=1) == 2
