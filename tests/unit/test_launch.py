"""Starting a system, as far as it comes without Ray: here ``ray.init`` raises."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from ray._private.utils import check_version_info

from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.errors import StartError
from aiqueue.journal import lock as journal_lock
from aiqueue.ports import check_free


def test_a_port_in_use_is_named_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(providers={"sim": {"kind": "simulated"}}, http={"port": port})
        with pytest.raises(StartError, match=rf"port {port} on 127\.0\.0\.1 is in use by .*process {os.getpid()}"):
            launch.start(settings)
    check_free("127.0.0.1", port)


def test_a_port_is_given_back_when_the_system_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    settings = Settings(providers={"sim": {"kind": "simulated"}}, http={"port": port})

    def no_ray(*_: object, **__: object) -> bool:
        with pytest.raises(StartError, match=f"port {port} "):
            check_free("127.0.0.1", port)  # held while Ray starts
        raise StartError("no Ray")

    monkeypatch.setattr(launch, "_join_ray", no_ray)
    with pytest.raises(StartError, match="no Ray"):
        launch.start(settings)
    check_free("127.0.0.1", port)


def test_a_journal_in_use_is_named_before_ray_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(journal_lock, "_WAIT_S", 0.0)
    settings = Settings(providers={"sim": {"kind": "simulated"}}, journal={"path": tmp_path / "j.db"})
    with (
        journal_lock.lock(tmp_path / "j.db"),
        pytest.raises(StartError, match=r"the journal .*j\.db is in use by another queue"),
    ):
        launch.start(settings, http=False)


@pytest.mark.parametrize("call", [launch.connect, lambda: launch.stop("aiqueue")], ids=["connect", "stop"])
def test_where_several_rays_run_none_is_taken_at_random(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(launch, "running_rays", lambda: {"10.0.0.2:6379", "10.0.0.1:6379"})
    with pytest.raises(StartError, match=r"several Rays .* \(10\.0\.0\.1:6379, 10\.0\.0\.2:6379\): set RAY_ADDRESS"):
        call()


@pytest.mark.parametrize("running", [set[str](), {"10.0.0.1:6379"}])
def test_where_one_ray_runs_or_one_is_named_that_one_is_joined(
    monkeypatch: pytest.MonkeyPatch, running: set[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(launch, "running_rays", lambda: running)
    assert launch._address(None, begin=False) == "auto"
    monkeypatch.setattr(launch, "running_rays", lambda: {"10.0.0.2:6379", "10.0.0.1:6379"})
    assert launch._address("10.0.0.3:1", begin=False) == "10.0.0.3:1"
    assert launch._address(None, begin=True) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert launch._address(None, begin=False) == "10.0.0.2:6379"


@pytest.mark.parametrize(
    ("raised", "told", "message"),
    [
        ("The current node timed out during startup. This could happen because", StartError, "too much else to do"),
        ("something else", RuntimeError, "something else"),
    ],
)
def test_a_machine_that_is_too_busy_for_ray_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, raised: str, told: type[Exception], message: str
) -> None:
    def init(**_: object) -> None:
        raise RuntimeError(raised)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(told, match=message):
        launch.start(Settings(providers={"sim": {"kind": "simulated"}}), http=False)


@pytest.mark.parametrize("call", [launch.connect, lambda: launch.stop("aiqueue")], ids=["connect", "stop"])
def test_a_cluster_of_another_python_is_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    ended: list[bool] = []

    def init(**_: object) -> None:
        check_version_info({"ray_version": "2.60.0", "python_version": "3.99.1"}, "node 10.0.0.2")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: ended.append(True))
    with pytest.raises(StartError, match=r"the cluster runs Ray 2\.60\.0 on Python 3\.99\.1, and this process Ray"):
        call()
    assert ended, "Ray looks at the versions when it has joined"
