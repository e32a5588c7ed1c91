"""A queue that starts again tries until it can read its journal; one that starts for the first time says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from ray.exceptions import RpcError

from actors import cluster
from actors.loading import Loaded, load, load_again
from aiqueue.config import Settings
from aiqueue.errors import StartError
from aiqueue.journal.identity import JournalNotHere, KnownJournal
from aiqueue.service.clock import SteadyClock


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, KnownJournal]:
    """Return what Ray's store keeps of journals, by namespace."""
    kept: dict[str, KnownJournal] = {}
    monkeypatch.setattr(cluster, "journal_of", kept.get)
    monkeypatch.setattr(cluster, "tell_journal", kept.__setitem__)
    monkeypatch.setattr(cluster, "tell_settings", lambda *_: None)
    return kept


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(cluster, "tell_trouble", lambda namespace, trouble: said.append(trouble))
    return said


def settings(tmp_path: Path, **journal: object) -> Settings:
    return Settings(namespace="mine", journal={"path": tmp_path / "journal.db", **journal})


def never() -> None:
    raise AssertionError("the process was to stay")


def remembered(tmp_path: Path, node: str = "h1 (10.0.0.1)") -> KnownJournal:
    """Make a journal, take it away and return what is known of it."""
    made = load(settings(tmp_path), SteadyClock())
    made.journal.close()
    for file in tmp_path.glob("journal.db*"):
        file.rename(tmp_path / f"away-{file.name}")
    return KnownJournal(made.info.id, 1, made.info.path, node, 1_700_000_000.0)


def test_a_first_start_says_why_it_fails(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(StartError, match="as a journal"):
        load(settings(tmp_path), SteadyClock())


def test_a_start_that_fails_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("actors.loading.load_engine", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load(settings(tmp_path), SteadyClock())
    load(settings(tmp_path), SteadyClock()).journal.close()


def test_a_restart_tries_again_and_leaves_word_of_what_is_wrong(tmp_path: Path, told: list[str]) -> None:
    held = load(settings(tmp_path), SteadyClock()).journal
    told.clear()
    waits: list[float] = []

    def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        if len(waits) == 7:
            held.close()  # the predecessor's lock goes with it

    load_again(settings(tmp_path), SteadyClock(), leave=never, sleep=sleep).journal.close()
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert told[-1] == ""
    assert "in use by another queue" in told[0]


def test_even_a_bug_does_not_end_a_queue_that_starts_again(tmp_path: Path, told: list[str]) -> None:
    real: list[Loaded] = []

    def fails_once(*args: Any, **named: Any) -> Loaded:
        if "ZeroDivisionError" not in told:
            load(*args).journal.close()
            raise ZeroDivisionError
        real.append(load(*args, **named))
        return real[0]

    loaded = load_again(settings(tmp_path), SteadyClock(), leave=never, load=fails_once, sleep=lambda _: None)
    assert loaded is real[0]
    loaded.journal.close()
    assert told == ["", "ZeroDivisionError", ""]


def test_a_restart_goes_on_though_ray_can_not_be_told_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def put(key: bytes, value: bytes, *, overwrite: bool) -> None:
        asked.append(value.decode())
        raise RpcError("the control store does not answer")

    monkeypatch.setattr("actors.cluster.internal_kv._internal_kv_put", put)
    held = load(settings(tmp_path), SteadyClock()).journal
    asked.clear()
    load_again(settings(tmp_path), SteadyClock(), leave=never, sleep=lambda _: held.close()).journal.close()
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
    said.clear()

    def fails_once(*_: Any, **__: Any) -> Loaded:
        if not said:
            raise OSError("can't read /data/\udcff/journal.db")  # as os.fsdecode gives a name that is not UTF-8
        return real

    loaded = load_again(settings(tmp_path), SteadyClock(), leave=never, load=fails_once, sleep=lambda _: None)
    assert loaded is real
    loaded.journal.close()
    assert said == ["can't read /data/?/journal.db", ""]


def test_which_journal_was_opened_is_told_before_the_queue_answers(
    tmp_path: Path, known: dict[str, KnownJournal]
) -> None:
    for epoch in (1, 2):
        loaded = load(settings(tmp_path), SteadyClock())
        loaded.journal.close()
        assert (known["mine"].id, known["mine"].epoch) == (loaded.info.id, epoch)
        assert known["mine"].node == loaded.info.node == cluster.this_node()
    assert (loaded.info.jobs, loaded.info.open_jobs) == (0, 0)
    assert loaded.info.made_at is not None


def test_a_queue_that_starts_again_waits_for_its_journal(
    tmp_path: Path, told: list[str], known: dict[str, KnownJournal]
) -> None:
    known["mine"] = remembered(tmp_path, cluster.this_node())
    told.clear()

    def sleep(_: float) -> None:
        if len(told) == 5:
            for file in tmp_path.glob("away-*"):
                file.rename(tmp_path / file.name.removeprefix("away-"))

    loaded = load_again(settings(tmp_path, new=True), SteadyClock(), leave=never, sleep=sleep)
    loaded.journal.close()
    assert loaded.info.id == known["mine"].id
    assert all("there is none" in said for said in told[:5])
    assert told[5:] == [""]


def test_a_queue_whose_journal_is_on_another_node_leaves_so_that_it_may_be_started_there(
    tmp_path: Path, told: list[str], known: dict[str, KnownJournal]
) -> None:
    class Left(BaseException):
        pass

    def leave() -> None:
        raise Left

    known["mine"] = remembered(tmp_path)
    with pytest.raises(Left):
        load_again(settings(tmp_path), SteadyClock(), leave=leave, sleep=lambda _: None)
    assert "last opened on h1 (10.0.0.1)" in told[-1]
    assert not list(tmp_path.glob("journal.db*"))


def test_a_new_journal_is_begun_only_by_who_means_it(tmp_path: Path, known: dict[str, KnownJournal]) -> None:
    known["mine"] = before = remembered(tmp_path)
    with pytest.raises(JournalNotHere, match="--new-journal"):
        load(settings(tmp_path), SteadyClock())
    loaded = load(settings(tmp_path, new=True), SteadyClock())
    loaded.journal.close()
    assert known["mine"].id == loaded.info.id != before.id


@pytest.mark.parametrize("older", [True, False], ids=["an older copy", "another journal"])
def test_a_permission_to_begin_a_new_journal_takes_no_other(
    tmp_path: Path, known: dict[str, KnownJournal], older: bool
) -> None:
    load(settings(tmp_path), SteadyClock()).journal.close()
    kept = known["mine"]
    known["mine"] = msgspec.structs.replace(kept, epoch=7) if older else msgspec.structs.replace(kept, id="ab")
    with pytest.raises(StartError, match="an older copy" if older else "is another one"):
        load(settings(tmp_path, new=True), SteadyClock())


def test_a_permission_for_a_loss_is_for_who_gave_it_and_not_for_a_queue_that_starts_again(tmp_path: Path) -> None:
    load(settings(tmp_path), SteadyClock()).journal.close()
    (tmp_path / "journal.db").unlink()
    with pytest.raises(StartError, match="are missing") as refused:
        load(settings(tmp_path), SteadyClock())
    given = settings(tmp_path, accept_loss=int(str(refused.value).split("--accept-loss ")[1].split("`")[0]))
    with pytest.raises(StartError, match="are missing"):
        load(given, SteadyClock(), restarted=True)
    load(given, SteadyClock()).journal.close()


def test_the_trouble_of_an_earlier_queue_ends_with_a_start(tmp_path: Path, told: list[str]) -> None:
    load(settings(tmp_path), SteadyClock()).journal.close()
    assert told == [""]
