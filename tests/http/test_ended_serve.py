"""A Serve that has ended, in a process that has met it: Serve's own client knows it as long as the process lives."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve as ray_serve
from ray.exceptions import RayActorError
from ray.serve import context

from serve import deployment, running
from tests.http.test_deployment import details


class Controller:
    """A Serve's controller, as its handle shows it: what a call of it answers is called by ``ray.get``."""

    def __init__(self, name: str, *, is_dead: bool = False) -> None:
        self.check_alive = self.get_http_config = self.get_root_url = SimpleNamespace(remote=lambda: self.answer)
        self._actor_id = SimpleNamespace(hex=lambda: name)
        self.is_dead = is_dead

    def answer(self) -> None:
        if self.is_dead:
            raise RayActorError


class Client:
    """Serve's client."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        controller.answer()

    def get_serve_details(self) -> dict[str, Any]:
        self._controller.answer()
        return details(aiqueue_up="/")


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[Controller]:
    """The controller that has the name now, if one has; this process is the driver of a Ray."""
    found: list[Controller] = []

    def get(call: Callable[[], None], timeout: float | None = None) -> None:
        call()

    def get_actor(*_: str, **__: str) -> Controller:
        if not found:
            raise ValueError
        return found[0]

    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "mine"))
    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.get_actor", get_actor)
    monkeypatch.setattr(context, "ServeControllerClient", Client)
    monkeypatch.setattr(context, "_global_client", None)
    monkeypatch.setattr(context, "_global_client_job_id", None)
    return found


@pytest.fixture
def met(named: list[Controller]) -> None:
    """This process has met a Serve that has ended since."""
    first = Controller("first")
    named.append(first)
    assert running.running_serve() is not None
    first.is_dead = True
    named.clear()


@pytest.mark.usefixtures("met")
def test_a_serve_that_has_ended_is_none_and_the_next_one_is_found(named: list[Controller]) -> None:
    assert running.running_serve() is None
    assert not running.controller_id()
    named.append(Controller("second"))
    assert running.running_serve() is not None
    assert running.controller_id() == "second"


@pytest.mark.usefixtures("met")
def test_the_front_that_somebody_else_has_begun_since_is_ended_with_its_system(
    named: list[Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Any] = []

    def status() -> Any:
        return SimpleNamespace(applications=context._get_global_client().get_serve_details()["applications"])

    monkeypatch.setattr(ray_serve, "status", status)
    monkeypatch.setattr(ray_serve, "shutdown", lambda: ended.append(context._get_global_client()._controller))
    monkeypatch.setattr("serve.ending.internal_kv._internal_kv_put", lambda *_, **__: None)
    monkeypatch.setattr("serve.ending.internal_kv._internal_kv_del", lambda _: None)
    named.append(Controller("second"))
    assert deployment.shutdown(drain_s=0.0)
    assert ended == named


def test_a_serve_that_is_just_ending_is_told_from_others_without_being_asked(named: list[Controller]) -> None:
    named.append(Controller("dying", is_dead=True))
    assert running.controller_id() == "dying"
    assert running.running_serve() is None
