"""Starting a system, as far as it comes without Ray: here ``ray.init`` raises."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import ActorID
from ray._private.utils import check_version_info

from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.errors import StartError
from aiqueue.journal import lock as journal_lock
from aiqueue.ports import HeldPorts, check_free


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


def test_a_ray_that_is_begun_never_gives_up_an_actor_whose_process_can_not_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variable, seen = "RAY_pop_worker_max_retries", list[str | None]()
    monkeypatch.setenv(variable, "")
    monkeypatch.delenv(variable)
    monkeypatch.setattr("ray.init", lambda **_: seen.append(os.environ.get(variable)))
    for address in ("10.0.0.1:6379", "local"):
        launch._join_ray("ns", address, begin=True)
    assert seen == [None, "-1"], "who joins a Ray can't tell its nodes any more"


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


# --- a start on a Ray that others use ---


MINE, ANOTHERS = "01000000", "02000000"  # Ray's jobs


class Cluster:
    """A Ray that this process, whose job is ``MINE``, has joined. What is asked of it stands in ``asked``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.raised: dict[str, BaseException] = {}
        self.queue: tuple[str, str] | None = None  #: its name, and the job that made it
        self.beside: str | None = None  #: the job that makes the queue while this process is about to
        monkeypatch.setattr(launch, "_join_ray", lambda *_, **__: False)
        monkeypatch.setattr(launch, "_begins_ray", lambda _: False)
        monkeypatch.setattr(launch, "_differing", lambda _: [])
        monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: MINE))
        monkeypatch.setattr("actors.cluster.find", self.find)
        monkeypatch.setattr("actors.system.start_actors", self.start_actors)
        monkeypatch.setattr("actors.system.stop_actors", partial(self.ask, "stop actors"))
        monkeypatch.setattr("actors.system.stop_later", partial(self.ask, "stop later"))
        monkeypatch.setattr(launch, "_start_http", partial(self.ask, "start HTTP"))
        monkeypatch.setattr(launch, "_stop_http", partial(self.ask, "stop HTTP"))
        monkeypatch.setattr(launch, "_connected", partial(self.ask, "connect"))

    def ask(self, what: str, *_: object, **__: object) -> str:
        self.asked.append(what)
        if what in self.raised:
            raise self.raised[what]
        return what

    def start_actors(self, _: Settings) -> None:
        self.ask("start actors")
        self.queue = self.queue or ("new", self.beside or MINE)

    def find(self, *_: str) -> Any:
        if self.queue is None:
            return None
        name, job = self.queue
        return SimpleNamespace(_actor_id=ActorID(name.encode().ljust(12) + bytes.fromhex(job)))

    def fails(self, *, http: bool = True) -> list[str]:
        """Return what a start that fails has asked for, its own steps left out."""
        with pytest.raises((StartError, KeyboardInterrupt)):
            launch.start(Settings(providers={"sim": {"kind": "simulated"}}), http=http)
        return [asked for asked in self.asked if asked.startswith("stop")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.mark.parametrize(
    ("step", "error"),
    [("start HTTP", KeyboardInterrupt()), ("connect", StartError("no")), ("start HTTP", StartError("no"))],
)
def test_a_start_that_fails_ends_the_front_that_it_has_begun(cluster: Cluster, step: str, error: BaseException) -> None:
    cluster.raised[step] = error
    assert cluster.fails() == ["stop HTTP", "stop actors"]


def test_a_start_that_fails_ends_its_actors_also_where_its_front_can_not_be_ended(cluster: Cluster) -> None:
    cluster.raised = {"connect": StartError("no"), "stop HTTP": RuntimeError("nor can it be stopped")}
    assert cluster.fails() == ["stop HTTP", "stop actors"]


def test_a_start_without_http_that_fails_ends_no_front(cluster: Cluster) -> None:
    cluster.raised["connect"] = StartError("no")
    assert cluster.fails(http=False) == ["stop actors"]


def test_a_start_that_fails_leaves_a_system_that_ran_before(cluster: Cluster) -> None:
    cluster.queue = ("before", MINE)  # of this very process
    cluster.raised["connect"] = StartError("no")
    assert not cluster.fails()


def test_a_start_that_fails_leaves_a_system_that_another_start_has_made_meanwhile(cluster: Cluster) -> None:
    cluster.beside = ANOTHERS
    cluster.raised["start HTTP"] = StartError("the port is in use")
    assert not cluster.fails()


def test_what_a_stop_ends_while_the_front_starts_is_started_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_meanwhile(*_: object) -> str:
        cluster.queue = None
        return "http://127.0.0.1:1"

    def connected(_: str) -> None:
        assert cluster.queue is not None, "no queue is running"

    monkeypatch.setattr(launch, "_start_http", stopped_meanwhile)
    monkeypatch.setattr(launch, "_connected", connected)
    launch.start(Settings(providers={"sim": {"kind": "simulated"}}))
    assert cluster.asked == ["start actors", "start actors"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", None])
def test_a_system_ends_by_itself_before_anything_that_may_hang_is_waited_for(cluster: Cluster, url: str | None) -> None:
    adapter: Any = SimpleNamespace(stop=partial(cluster.ask, "stop adapter"))
    system = launch.System(Settings(), adapter, url, owns_ray=False, ports=HeldPorts())
    system.stop()
    assert cluster.asked == ["stop later", "stop adapter", *(["stop HTTP"] if url else []), "stop actors"]
