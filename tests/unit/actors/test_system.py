"""Stopping a system whose actors do not do as they are told."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from actors import cluster, system
from actors.options import POOL_MANAGER_NAME
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME

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
