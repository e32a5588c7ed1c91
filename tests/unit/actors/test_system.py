"""Starting and stopping a system whose actors do not do as they are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    RayError,
    RayTaskError,
    RpcError,
    RuntimeEnvSetupError,
)

from actors import cluster, system
from actors.options import POOL_MANAGER_NAME
from actors.queue_actor import QueueActor
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.config import Settings
from aiqueue.errors import StartError

_WORKER = "aiqueue-worker-p-0"


class Handle:
    """An actor handle whose methods return what names the call."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, method: str) -> Any:
        return type("Method", (), {"remote": staticmethod(lambda *args: (self.name, method))})


def test_a_manager_that_fails_to_stop_keeps_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    actors = {name: Handle(name) for name in (POOL_MANAGER_NAME, QUEUE_ACTOR_NAME, _WORKER)}
    asked: list[tuple[str, str]] = []
    ended: list[str] = []

    def get(call: tuple[str, str], timeout: float) -> None:
        asked.append(call)
        if call[0] == POOL_MANAGER_NAME:
            raise RayTaskError("stop", "traceback", ValueError("no cluster to ask"))

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", lambda actor: ended.append(actor.name))
    monkeypatch.setattr(cluster, "find", lambda name, namespace: actors.get(name))
    monkeypatch.setattr(cluster, "names_in", lambda namespace: list(actors))
    monkeypatch.setattr(cluster, "end_actor", lambda actor: ended.append(actor.name))
    monkeypatch.setattr(cluster, "keep_room", lambda namespace, bundles: None)
    assert system.stop_actors("namespace", grace_s=1.0)
    assert asked == [(POOL_MANAGER_NAME, "stop"), (QUEUE_ACTOR_NAME, "close")]
    assert ended == [POOL_MANAGER_NAME, _WORKER, QUEUE_ACTOR_NAME]


def start(monkeypatch: pytest.MonkeyPatch, answers: list[RayError | str], *, was_there: bool) -> str:
    """Start a queue that answers so, one after the other, and return the first that is no error."""

    def ask(actor: object, limit_s: float) -> str:
        answer = answers.pop(0)
        if isinstance(answer, RayError):
            raise answer
        return answer

    monkeypatch.setattr(system, "_RETRY_S", 0.0)
    monkeypatch.setattr(cluster, "find", lambda name, namespace: object() if was_there else None)
    started = SimpleNamespace(remote=lambda json: object())
    monkeypatch.setattr(ray, "remote", lambda cls: SimpleNamespace(options=lambda **_: started))
    options = {"name": QUEUE_ACTOR_NAME, "namespace": "ns"}
    return system._started(QueueActor, options, Settings(), ask, limit_s=60.0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ActorUnschedulableError("its node is dead"), "its node is dead"),
        (RuntimeEnvSetupError("no such package"), "no such package"),
        (RpcError("the control store does not answer"), "the control store does not answer"),
    ],
)
def test_whatever_ray_says_of_an_actor_that_can_not_start_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: RayError, said: str
) -> None:
    with pytest.raises(StartError, match=f"the queue actor could not start: .*{said}"):
        start(monkeypatch, [error], was_there=False)
    assert start(monkeypatch, [error, "well"], was_there=True) == "well"


@pytest.mark.parametrize("error", [GetTimeoutError("no answer"), ActorUnavailableError("restarting", b"\0" * 16)])
def test_a_queue_that_ray_starts_again_and_that_is_in_trouble_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, error: RayError
) -> None:
    monkeypatch.setattr(system, "_TROUBLE_S", 0.0)
    told = iter(["", "there is none"])
    monkeypatch.setattr(cluster, "trouble_of", lambda namespace: next(told))
    with pytest.raises(StartError, match="the queue can't start, and goes on trying: there is none"):
        start(monkeypatch, [error] * 3, was_there=True)
