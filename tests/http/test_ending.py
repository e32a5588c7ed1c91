"""A stop of the front that is cut off is ended by the next start."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.ports import HeldPorts
from serve import ending

FOLDER = Path("/nowhere")


class Front:
    """Serve and Ray's store, as far as the end of a front needs them."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.controller = "one"
        self.shutdowns = 0
        self.is_dying = False  #: its controller does not answer any more, and still has its name
        self.ended_jobs: set[str] = set()

    def jobs(self) -> list[dict[str, object]]:
        return [{"JobID": job, "IsDead": job in self.ended_jobs} for job in ("mine", "another")]

    def shutdown(self) -> None:
        if self.is_dying:
            raise RayActorError
        self.shutdowns += 1
        self.controller = ""


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Front:
    found = Front()
    monkeypatch.setattr(ending, "controller_id", lambda: found.controller)
    monkeypatch.setattr(ending, "forget_ended_serve", lambda: None)
    monkeypatch.setattr("ray.serve.shutdown", found.shutdown)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "mine"))
    monkeypatch.setattr("serve.ending.cluster_state.job_table", found.jobs)
    store = "serve.ending.internal_kv._internal_kv_"
    monkeypatch.setattr(f"{store}put", lambda key, value, overwrite: found.kept.__setitem__(key, value))
    monkeypatch.setattr(f"{store}get", found.kept.get)
    monkeypatch.setattr(f"{store}del", lambda key: found.kept.pop(key, None))
    return found


def test_where_nothing_was_being_ended_nothing_is(front: Front) -> None:
    ending.end_what_was_left(FOLDER)
    assert front.shutdowns == 0


def test_a_front_whose_end_was_cut_off_is_ended_when_its_time_is_over(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt), ending.ending(3_600.0):
        raise KeyboardInterrupt  # killed, in effect: the mark stays
    waits: list[float] = []

    def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        later = time.time() + 4_000.0
        monkeypatch.setattr("serve.ending.time.time", lambda: later)

    ending.end_what_was_left(FOLDER, sleep)
    assert (front.shutdowns, len(waits), front.kept) == (1, 1, {})


def test_a_front_is_ended_at_once_if_the_program_that_was_ending_it_is_dead(front: Front, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ending.ending(3_600.0):
        raise KeyboardInterrupt
    front.ended_jobs = {"another"}
    with pytest.raises(TimeoutError):
        ending.end_what_was_left(tmp_path, _not_again)
    front.ended_jobs = {"mine"}
    ending.end_what_was_left(tmp_path, _not_again)
    assert (front.shutdowns, front.kept) == (1, {})
    assert [path.name for path in tmp_path.iterdir()] == ["stopping"], "nothing on this node starts HAProxy again"


def _not_again(_: float) -> None:
    raise TimeoutError


def test_a_front_that_is_just_being_ended_is_waited_for(front: Front) -> None:
    with ending.ending(3_600.0):

        def sleep(_: float) -> None:
            front.controller = ""

        ending.end_what_was_left(FOLDER, sleep)
    assert (front.shutdowns, front.kept) == (0, {})


def test_a_front_that_is_dying_is_waited_for_until_it_is_gone(front: Front) -> None:
    with pytest.raises(KeyboardInterrupt), ending.ending(-3_600.0):
        raise KeyboardInterrupt
    front.is_dying = True

    def sleep(_: float) -> None:
        front.controller = ""

    ending.end_what_was_left(FOLDER, sleep)
    assert front.kept == {}


def test_a_front_that_another_one_has_followed_is_no_reason_to_end_that(front: Front) -> None:
    with pytest.raises(KeyboardInterrupt), ending.ending(-3_600.0):
        raise KeyboardInterrupt
    front.controller = "two"
    ending.end_what_was_left(FOLDER)
    assert (front.shutdowns, front.kept) == (0, {})


def test_an_end_that_failed_is_not_waited_for(front: Front) -> None:
    with pytest.raises(RayActorError), ending.ending(3_600.0):
        raise RayActorError
    assert front.kept == {}


@pytest.mark.parametrize("kept", [b"", b"soon", b"\xff", b"x one"])
def test_a_mark_that_can_not_be_read_is_none(front: Front, kept: bytes) -> None:
    front.kept[b"aiqueue http ends"] = kept
    ending.end_what_was_left(FOLDER)
    assert front.shutdowns == 0


@pytest.mark.parametrize(("applications", "shutdowns"), [([], 1), (["aiqueue-up"], 0)])
def test_a_serve_that_an_interrupted_start_has_left_without_an_application_is_ended(
    front: Front, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, applications: list[str], shutdowns: int
) -> None:
    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("ray.serve.status", lambda: SimpleNamespace(applications=applications))
    monkeypatch.setattr("serve.running.running_serve", lambda: None)
    monkeypatch.setattr("serve.deployment.run", interrupted)
    monkeypatch.setattr(launch, "_http_folder", lambda: tmp_path / "front")
    with pytest.raises(KeyboardInterrupt):
        launch._start_http(Settings(), HeldPorts())
    assert front.shutdowns == shutdowns


def test_an_end_leaves_the_place_of_the_front_free_before_the_next_start_is_let_go(
    front: Front, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, left = tmp_path / "front", list[bool]()
    folder.mkdir()
    monkeypatch.setattr("serve.ending.internal_kv._internal_kv_del", lambda _: left.append(folder.exists()))
    monkeypatch.setattr("ray.serve.status", lambda: SimpleNamespace(applications=["aiqueue-up"]))
    monkeypatch.setattr("serve.deployment.forget_ended_serve", lambda: None)
    monkeypatch.setattr("serve.deployment.running_serve", lambda: None)
    monkeypatch.setattr("serve.deployment.drain", lambda *_: None)
    monkeypatch.setattr(launch, "_http_folder", lambda: folder)
    launch._stop_http("aiqueue", 0.0)
    assert not folder.exists()
    assert left == [False]
