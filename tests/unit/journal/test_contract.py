"""What every journal promises, the one for tests too."""

from __future__ import annotations

import sqlite3

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.ids import id_of, new_job_ids
from aiqueue.journal.base import Journal, StoredJob
from tests.unit.journal.conftest import Reopen


def row(seq: int, payload: bytes = b"payload") -> tuple[int, str, bytes, bytes]:
    return seq, f"job-{seq}", f"header-{seq}".encode(), payload


def state(seq: int, name: str, progress: bytes = b"p") -> Rows:
    return Rows(states=[(seq, name, progress, 0.0)])


def recovered(journal: Journal) -> tuple[bytes, list[tuple[int, str, bytes, str, bytes]]]:
    with journal.recover() as found:
        return found.counters, list(found.rows)


def test_a_new_journal_is_empty(journal: Journal) -> None:
    assert recovered(journal) == (b"", [])
    assert journal.jobs(["job-1"]) == {}
    assert journal.payloads([1]) == {}


def test_a_committed_job_is_found_by_id_and_by_seq(journal: Journal) -> None:
    journal.commit(Rows(jobs=[row(1), row(2)]))
    found = journal.jobs(["job-2", "nobody", "job-1"])
    assert found["job-1"] == StoredJob(1, "job-1", b"header-1", "", b"", b"", b"")
    assert set(found) == {"job-1", "job-2"}
    assert journal.jobs(["job-1"], with_payload=True)["job-1"].payload == b"payload"
    assert journal.payloads([2, 1, 9]) == {1: b"payload", 2: b"payload"}
    assert [len(journal.payloads([1, 2], limit=limit)) for limit in (0, 6, 7, 14)] == [1, 1, 2, 2]


def test_the_newest_id_is_the_highest_of_those_that_clients_make(journal: Journal) -> None:
    assert journal.newest_id() == ""
    first, last = new_job_ids(2)
    others = ["chosen", "0-chosen", "~", id_of("row", "1"), id_of("row", "2")]
    journal.commit(Rows(jobs=[(seq, name, b"h", b"p") for seq, name in enumerate((last, first, *others), 1)]))
    assert journal.newest_id() == last


def test_the_last_state_and_the_result_are_what_a_job_shows(journal: Journal) -> None:
    journal.commit(Rows(jobs=[row(1)]))
    journal.commit(Rows(states=[(1, "processing", b"one", 0.0), (1, "scheduled", b"two", 0.0)]))
    assert journal.jobs(["job-1"])["job-1"][3:6] == ("scheduled", b"two", b"")
    journal.commit(Rows(states=[(1, "completed", b"three", 9.0)], results=[(1, b"result")]))
    assert journal.jobs(["job-1"])["job-1"][3:6] == ("completed", b"three", b"result")


def test_recovery_gives_what_has_not_ended_in_the_order_of_acceptance(journal: Journal) -> None:
    journal.commit(Rows(jobs=[row(3), row(1), row(2)], counters=b"old"))
    for number, name in enumerate(JobState, start=4):
        journal.commit(Rows(jobs=[row(number)], states=[(number, name.value, b"p", 0.0)], counters=b"new"))
    counters, rows = recovered(journal)
    assert counters == b"new"
    assert [found[0] for found in rows] == sorted(found[0] for found in rows)
    assert rows[0] == (1, "job-1", b"header-1", "queued", b"")
    assert [found[3] for found in rows[3:]] == [state.value for state in JobState if state not in TERMINAL]


def test_what_was_committed_survives_a_crash(journal: Journal, after_a_crash: Reopen) -> None:
    journal.commit(Rows(jobs=[row(1, b"p1")], counters=b"c"))
    journal.commit(state(1, "processing"))
    before = recovered(journal)
    other = after_a_crash(journal)
    assert recovered(other) == before
    assert other.payloads([1]) == {1: b"p1"}
    other.commit(Rows(jobs=[row(2)]))
    assert set(other.jobs(["job-1", "job-2"])) == {"job-1", "job-2"}


def test_a_closed_journal_takes_nothing_and_can_not_be_reopened(journal: Journal) -> None:
    journal.close()
    with pytest.raises((OSError, sqlite3.Error)):
        journal.commit(Rows(jobs=[row(1)]))
    with pytest.raises((OSError, sqlite3.Error)):
        journal.reopen()


def test_a_reopened_journal_has_what_was_committed_and_takes_more(journal: Journal) -> None:
    journal.commit(Rows(jobs=[row(1)]))
    journal.reopen()
    journal.commit(Rows(jobs=[row(2)]))
    assert set(journal.jobs(["job-1", "job-2"])) == {"job-1", "job-2"}


def test_a_commit_tried_again_after_it_was_in_doubt_changes_nothing(journal: Journal) -> None:
    rows = Rows(jobs=[row(1)], states=[(1, "completed", b"p", 9.0)], results=[(1, b"r")], counters=b"c")
    journal.commit(rows)
    before = journal.jobs(["job-1"], with_payload=True)
    journal.commit(rows)
    assert journal.jobs(["job-1"], with_payload=True) == before


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 499, 500, 501, 1_200])
def test_commits_and_reads_of_any_size_lose_nothing(journal: Journal, count: int) -> None:
    seqs = range(1, count + 1)
    journal.commit(
        Rows(
            jobs=[row(seq, f"p{seq}".encode()) for seq in seqs],
            states=[(seq, "processing", f"s{seq}".encode(), 0.0) for seq in seqs],
            results=[(seq, f"r{seq}".encode()) for seq in seqs],
        )
    )
    assert journal.payloads(list(seqs)) == {seq: f"p{seq}".encode() for seq in seqs}
    found = journal.jobs([f"job-{seq}" for seq in seqs])
    assert {job.seq: (job.progress, job.result) for job in found.values()} == {
        seq: (f"s{seq}".encode(), f"r{seq}".encode()) for seq in seqs
    }
    first = found["job-1"].weight
    assert list(journal.jobs([f"job-{seq}" for seq in seqs], limit=first - 1)) == ["job-1"]
    assert len(journal.jobs([f"job-{seq}" for seq in seqs], limit=first)) == min(2, count)


def test_bytes_come_back_as_they_were(journal: Journal) -> None:
    payload = bytes(range(256)) + b"\x00" * 3
    journal.commit(Rows(jobs=[(1, "jöb-\u0000-1", payload, payload)]))
    assert journal.jobs(["jöb-\u0000-1"], with_payload=True)["jöb-\u0000-1"].payload == payload


def test_outlines_are_ids_and_states_alone(journal: Journal) -> None:
    states = [(1, "dead_letter", b"p", 9.0), (2, "completed", b"p", 9.0), (3, "dead_letter", b"p", 9.0)]
    journal.commit(Rows(jobs=[row(1), row(2), row(3), row(4)], states=states, results=[(1, b"r")]))
    found = journal.outlines([3, 9, 1, 4])
    assert [(job.seq, job.id, job.state) for job in found] == [
        (3, "job-3", "dead_letter"),
        (1, "job-1", "dead_letter"),
        (4, "job-4", ""),
    ]
    assert {(job.header, job.progress, job.result, job.payload) for job in found} == {(b"", b"", b"", b"")}
    assert journal.dead_letter_seqs(before_seq=9, limit=5) == [3, 1]
    assert journal.dead_letter_seqs(before_seq=3, limit=5) == [1]
    assert journal.dead_letter_seqs(before_seq=9, limit=1) == [3]


def test_an_empty_commit_is_fine(journal: Journal) -> None:
    journal.commit(Rows())
    assert recovered(journal) == (b"", [])
    assert journal.jobs([]) == {}
    assert journal.payloads([]) == {}
