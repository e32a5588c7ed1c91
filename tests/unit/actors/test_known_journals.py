"""What `up` knows of the journal, from Ray's store and from its own note, before the queue starts and after."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from actors import cluster, system
from actors.loading import load
from aiqueue.config import Settings
from aiqueue.errors import StartError
from aiqueue.journal.identity import KnownJournal
from aiqueue.journal.remembered import RememberedJournals
from aiqueue.service.clock import SteadyClock

KNOWN = KnownJournal("ab", 3, "/data/j.db", "h1 (10.0.0.1)", 1_700_000_000.0)
NEWER = msgspec.structs.replace(KNOWN, id="cd", epoch=1, at=KNOWN.at + 60)


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, bytes]:
    """Return what Ray's store keeps."""
    store: dict[bytes, bytes] = {}

    def put(key: bytes, value: bytes, *, overwrite: bool) -> None:
        store[key] = value if overwrite else store.get(key, value)

    monkeypatch.setattr("actors.cluster.internal_kv._internal_kv_put", put)
    monkeypatch.setattr("actors.cluster.internal_kv._internal_kv_get", store.get)
    monkeypatch.setattr(system, "_let_stop_end", lambda _: None)
    return store


def settings(tmp_path: Path, name: str = "j.db", **journal: object) -> Settings:
    return Settings(namespace="mine", journal={"path": tmp_path / name, "notes": tmp_path / "notes", **journal})


def started(given: Settings, monkeypatch: pytest.MonkeyPatch, runs: Settings | None = None) -> KnownJournal | None:
    """Let `up` look, start a queue or find the one that ``runs``, and note; return what the queue was to find."""
    looked: list[KnownJournal | None] = []

    class Started(BaseException):
        """The pool manager's turn has come."""

    def start_queue(_: Settings) -> None:
        looked.append(cluster.journal_of("mine"))
        load(runs or given, SteadyClock()).journal.close()

    def start_manager(_: Settings) -> None:
        raise Started

    monkeypatch.setattr(system, "_start_queue", start_queue)
    monkeypatch.setattr(system, "_start_manager", start_manager)
    with pytest.raises(Started):
        system.start_actors(given)
    return looked[0]


def test_the_newer_of_what_ray_and_the_note_say_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, notes = settings(tmp_path), RememberedJournals(tmp_path / "notes")
    monkeypatch.setattr("actors.loading.SqliteJournal", lambda *_, **__: 1 / 0)
    for in_ray, noted in ((KNOWN, NEWER), (NEWER, KNOWN), (None, NEWER)):
        if in_ray:
            cluster.tell_journal("mine", in_ray)
        notes.note("mine", given.journal.path, noted)
        with pytest.raises(ZeroDivisionError):
            started(given, monkeypatch)
        assert cluster.journal_of("mine") == NEWER


def test_what_runs_with_another_path_is_not_noted_as_the_journal_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = RememberedJournals(tmp_path / "notes")
    started(settings(tmp_path, "b.db"), monkeypatch, runs=settings(tmp_path, "a.db"))
    assert notes.of("mine", tmp_path / "b.db") is None
    started(settings(tmp_path, "a.db"), monkeypatch)
    assert notes.of("mine", tmp_path / "a.db") == cluster.journal_of("mine")


@pytest.mark.parametrize("body", [b"", b"{"])
def test_a_note_that_can_not_be_read_is_told_and_keeps_no_system_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    started(settings(tmp_path), monkeypatch)
    (note,) = (tmp_path / "notes").iterdir()
    note.write_bytes(body)
    with caplog.at_level(logging.WARNING):
        started(settings(tmp_path), monkeypatch)
    assert f"{note} can't be read" in caplog.text


def test_what_ray_keeps_and_can_not_be_read_is_refused_unless_a_new_journal_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: dict[bytes, bytes]
) -> None:
    kept[b"aiqueue:journal:mine"] = b"{"
    for start in (lambda: started(settings(tmp_path), monkeypatch), lambda: load(settings(tmp_path), SteadyClock())):
        with pytest.raises(StartError, match="can't be read"):
            start()
    load(settings(tmp_path, new=True), SteadyClock()).journal.close()
    assert cluster.journal_of("mine") is not None


def test_a_permission_to_begin_a_new_journal_that_was_not_needed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        started(settings(tmp_path, new=True), monkeypatch)
        assert caplog.text == ""
        started(settings(tmp_path, new=True), monkeypatch)
    assert "journal.new is still set" in caplog.text


def test_a_home_that_is_not_known_keeps_no_system_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started(settings(tmp_path, notes=Path("~no-such-user/notes")), monkeypatch)
    assert "journal.notes" in caplog.text
