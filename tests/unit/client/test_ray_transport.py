"""What the errors of Ray's calls to the queue actor mean, and which of them let the actor be found anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    ObjectLostError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from aiqueue.client.calls import CALL_S
from aiqueue.client.ray_transport import RayTransport
from aiqueue.errors import AIQueueError, JobNotFound, QueueNotRunning, QueueSilent, QueueUnavailable
from aiqueue.own_version import own_version
from aiqueue.protocol import Welcome, encode

Ask = Callable[[Exception], Any]


class Actor:
    """A handle whose every call ends with ``error``, but for hello; without one it answers."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def __getattr__(self, method: str) -> Any:
        return type("Method", (), {"remote": staticmethod(self._hello if method == "hello" else self._call)})

    async def _hello(self, caller: bytes) -> bytes:
        return encode(Welcome(0, [], 1, (), version=own_version()))

    async def _call(self, *_: object, **__: object) -> float:
        if self._error is not None:
            raise self._error
        return 1.5


class Names:
    """The handles that Ray gives for the queue's name, one after the other; without any more there is no such actor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *handles: Actor | Exception) -> None:
        self._handles = list(handles)
        self.asked = 0
        monkeypatch.setattr(ray, "get_actor", self._get)

    def _get(self, name: str, namespace: str) -> Actor:
        self.asked += 1
        if not self._handles:
            raise ValueError(f"Failed to look up actor with name {name!r}")
        handle = self._handles.pop(0)
        if isinstance(handle, Exception):
            raise handle
        return handle


def raised_by_the_queue(cause: Exception) -> Exception:
    """Return what a caller sees of an error that the queue actor raised: Ray makes it an error of the cause's class."""
    error = RayTaskError("QueueActor.commit_waits_s()", f"Traceback …\n{cause!r}", cause)
    return error.as_instanceof_cause()


async def ask(transport: RayTransport) -> float:
    return await transport.commit_waits_s(limit_s=5.0)


async def test_a_namespace_without_a_queue_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch)
    with pytest.raises(QueueNotRunning, match="aiqueue up"):
        await ask(RayTransport("ns"))


@pytest.mark.parametrize("cause", [ValueError("odd"), TimeoutError("late"), KeyError("seq"), OSError("disk")])
async def test_an_error_that_the_queue_raised_is_not_taken_for_its_absence_or_silence(
    monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    Names(monkeypatch, Actor(raised_by_the_queue(cause)))
    with pytest.raises(AIQueueError, match=f"failed on commit_waits_s.*{type(cause).__name__}") as raised:
        await ask(RayTransport("ns"))
    assert not isinstance(raised.value, QueueUnavailable | type(cause)), "it would be handled as if it came from here"
    assert isinstance(raised.value.__cause__, type(cause)), "with the queue's traceback"


async def test_an_error_of_ours_that_the_queue_raised_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, Actor(raised_by_the_queue(JobNotFound("j1"))))
    with pytest.raises(JobNotFound, match="j1"):
        await ask(RayTransport("ns"))


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        ActorUnschedulableError("its node does not exist any more"),
        WorkerCrashedError(),
        RayError("one that a later Ray may have"),
    ],
)
async def test_a_queue_that_took_the_place_of_a_dead_one_is_found(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    names = Names(monkeypatch, Actor(error), Actor(None))
    transport = RayTransport("ns")
    with pytest.raises(QueueUnavailable):
        await ask(transport)
    assert await ask(transport) == 1.5
    assert names.asked == 2


async def test_a_queue_that_is_away_for_a_moment_is_not_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, Actor(ActorUnavailableError("restarting", b"\0" * 16)))
    transport = RayTransport("ns")
    for _ in range(3):
        with pytest.raises(QueueUnavailable, match="restarting"):
            await ask(transport)
    assert names.asked == 1


@pytest.mark.parametrize("error", [ObjectLostError("ab", None, "answer"), RayError("the control store is away")])
async def test_a_ray_that_can_not_be_asked_for_the_queue_makes_it_unavailable(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    Names(monkeypatch, error, Actor(None))
    transport = RayTransport("ns")
    with pytest.raises(QueueUnavailable):
        await ask(transport)
    assert await ask(transport) == 1.5


async def test_a_limit_of_rays_own_that_passes_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, Actor(GetTimeoutError("get timed out")))
    with pytest.raises(QueueSilent):
        await ask(RayTransport("ns"))


async def test_a_ray_that_is_slow_to_find_the_queue_holds_up_nobody_else_and_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = threading.Event()
    names = Names(monkeypatch, Actor(None))
    quick = ray.get_actor

    def slow(name: str, namespace: str) -> Actor:
        found.wait()
        handle: Actor = quick(name, namespace=namespace)
        return handle

    monkeypatch.setattr(ray, "get_actor", slow)
    transport = RayTransport("ns")
    try:
        for _ in range(3):
            with pytest.raises(QueueSilent, match="did not answer"):
                await transport.commit_waits_s(limit_s=0.01)
    finally:
        found.set()
    assert await ask(transport) == 1.5
    assert names.asked == 1


async def test_who_has_little_patience_with_a_queue_that_is_away_is_told_so_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(monkeypatch, Actor(ActorUnavailableError("restarting", b"\0" * 16)))
    transport = RayTransport("ns", patience_s=0.0)
    transport._met = True
    with pytest.raises(QueueUnavailable, match="restarting"):
        await transport.get_states(["a"])  # a call that others ask again for a minute
    assert names.asked == 1


async def test_a_queue_that_was_silent_is_given_no_more_than_the_callers_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport = RayTransport("ns", patience_s=2.0)
    limits: list[tuple[str, float]] = []

    async def carry(method: str, *args: object, limit_s: float) -> object:
        limits.append((method, limit_s))
        raise QueueSilent("no answer")

    monkeypatch.setattr(transport, "_carry", carry)
    transport._met = True
    for was_sent in (True, False):
        with pytest.raises(QueueSilent) as raised:
            await transport.submit([])
        assert raised.value.was_sent is was_sent
    assert limits == [("submit", CALL_S), ("hello", 2.0)]
