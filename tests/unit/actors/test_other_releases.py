"""Actors of other releases: what is already running when ``up`` comes, and what a node's older code can't read."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError

from actors import cluster, system
from actors.pool_manager import PoolManager
from aiqueue.config import SentSettings
from aiqueue.errors import IncompatibleVersion, StartError
from aiqueue.own_version import own_version
from aiqueue.protocol import Welcome, encode
from aiqueue.versions import Version
from tests.tools.pool_bench import Bench
from tests.tools.turns import until

OTHER = Version(9, 9, "9.0.0", "3.11.7", "2.60.0")


class Queue:
    """A queue's handle: each hello is answered by ``answer``, or raises it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Version]) -> None:
        self._answer = answer
        monkeypatch.setattr(ray, "get", lambda call, timeout: encode(Welcome(0, [], 1, (), version=call())))

    @property
    def hello(self) -> Any:
        return type("Method", (), {"remote": staticmethod(lambda *sent: partial(self._answer, *sent))})


def test_up_beside_a_queue_of_protocol_0_joins_it_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    system._warn_of_another_release(
        system._say_hello(Queue(monkeypatch, lambda: Version()), 60.0)  # a TypeError for an argument
    )
    assert "the queue that runs speaks protocol 0 (an aiqueue that does not say its version)" in caplog.text


def test_up_beside_a_queue_of_this_release_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    system._warn_of_another_release(system._say_hello(Queue(monkeypatch, lambda caller: own_version()), 60.0))
    assert not caplog.text


def test_up_beside_a_queue_that_it_does_not_understand_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IncompatibleVersion, match="the queue protocol 9 "):
        system._say_hello(Queue(monkeypatch, lambda caller: OTHER), 60.0)


def test_up_that_the_queue_refuses_says_so_without_rays_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(caller: bytes) -> Version:
        cause = IncompatibleVersion("install aiqueue 9.0.0 here")
        raise RayTaskError("QueueActor.hello()", "Traceback …", cause).as_instanceof_cause()

    with pytest.raises(IncompatibleVersion) as raised:
        system._say_hello(Queue(monkeypatch, refuse), 60.0)
    assert str(raised.value) == "install aiqueue 9.0.0 here"


def test_a_stop_goes_on_beside_a_manager_of_a_release_that_can_not_stop_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "find", lambda name, namespace: SimpleNamespace(stop="of protocol 0"))
    system.stop_later("namespace", 60.0, 5.0, ask_s=1.0)


def test_settings_that_a_newer_release_sent_are_refused_with_the_fields_that_are_unknown() -> None:
    sent = json.loads(SentSettings().model_dump_json())
    sent["tenants"], sent["journal"]["replicas"] = {}, 2
    with pytest.raises(StartError, match=r"aiqueue .*journal\.replicas: .*; tenants: .*same release on every node"):
        SentSettings.received(json.dumps(sent))


async def test_a_worker_that_could_not_start_is_told_with_what_it_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "this node has aiqueue 0.1.0, which can't read the settings: install the same release on every node"
    raised = f'File "worker_actor.py", line 34, in __init__\naiqueue.errors.base.StartError: {said}'
    told: list[str] = []

    async def announce(event: str, data: dict[str, str]) -> None:
        told.append(data["reason"])

    async def report() -> bytes:
        raise ActorDiedError(RayTaskError("WorkerActor.__init__()", raised, StartError(said)))

    monkeypatch.setattr(bench.queue, "announce", announce)
    monkeypatch.setattr(bench.worker, "_report", report)
    monkeypatch.setattr(cluster, "is_gone", lambda name, namespace: True)
    bench.begin()
    await until(lambda: told)
    assert told == [f"it could not start: {said}"]


async def test_a_manager_that_the_queue_does_not_understand_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        raise IncompatibleVersion("the queue protocol 9")

    looking = asyncio.create_task(PoolManager._every(object(), 0.0, look))  # type: ignore[arg-type]  # uses nothing of it
    with caplog.at_level(logging.INFO):
        await until(lambda: looks > 20)
    looking.cancel()
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("WARNING", None)]
