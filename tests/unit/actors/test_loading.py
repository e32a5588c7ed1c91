"""A queue that starts again tries until it can read its journal; one that starts for the first time says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RpcError

from actors import cluster
from actors.loading import Loaded, load, load_again
from aiqueue.config import Settings
from aiqueue.errors import StartError
from aiqueue.service.clock import SteadyClock


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(cluster, "tell_trouble", lambda namespace, trouble: said.append(trouble))
    return said


def settings(tmp_path: Path) -> Settings:
    return Settings(journal={"path": tmp_path / "journal.db"})


def test_a_first_start_says_why_it_fails(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(StartError, match="as a journal"):
        load(settings(tmp_path), SteadyClock())


def test_a_start_that_fails_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("actors.loading.load_engine", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load(settings(tmp_path), SteadyClock())
    journal, _ = load(settings(tmp_path), SteadyClock())
    journal.close()


def test_a_restart_tries_again_and_leaves_word_of_what_is_wrong(tmp_path: Path, told: list[str]) -> None:
    held, _ = load(settings(tmp_path), SteadyClock())
    waits: list[float] = []

    def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        if len(waits) == 7:
            held.close()  # the predecessor's lock goes with it

    journal, _ = load_again(settings(tmp_path), SteadyClock(), sleep=sleep)
    journal.close()
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert told[-1] == ""
    assert "in use by another queue" in told[0]


def test_even_a_bug_does_not_end_a_queue_that_starts_again(tmp_path: Path, told: list[str]) -> None:
    real: list[Loaded] = []

    def fails_once(*args: Any) -> Loaded:
        if not told:
            raise ZeroDivisionError
        real.append(load(*args))
        return real[0]

    assert load_again(settings(tmp_path), SteadyClock(), load=fails_once, sleep=lambda _: None) is real[0]
    real[0][0].close()
    assert told == ["ZeroDivisionError", ""]


def test_a_restart_goes_on_though_ray_can_not_be_told_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def put(key: bytes, value: bytes, *, overwrite: bool) -> None:
        asked.append(value.decode())
        raise RpcError("the control store does not answer")

    monkeypatch.setattr("actors.cluster.internal_kv._internal_kv_put", put)
    held, _ = load(settings(tmp_path), SteadyClock())
    journal, _ = load_again(settings(tmp_path), SteadyClock(), sleep=lambda _: held.close())
    journal.close()
    assert len(asked) == 2
    assert "in use by another queue" in asked[0]
    assert asked[1] == ""


def test_a_restart_goes_on_whatever_characters_are_in_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "actors.cluster.internal_kv._internal_kv_put", lambda _, value, **__: said.append(value.decode())
    )
    real = load(settings(tmp_path), SteadyClock())

    def fails_once(*_: Any) -> Loaded:
        if not said:
            raise OSError("can't read /data/\udcff/journal.db")  # as os.fsdecode gives a name that is not UTF-8
        return real

    assert load_again(settings(tmp_path), SteadyClock(), load=fails_once, sleep=lambda _: None) is real
    real[0].close()
    assert said == ["can't read /data/?/journal.db", ""]
