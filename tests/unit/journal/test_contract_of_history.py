"""What every journal promises about attempts, gates, idempotency keys, schedules, and forgetting."""

from __future__ import annotations

import math

import pytest

from aiqueue.engine.effects import KeyRow, Rows
from aiqueue.engine.states import TERMINAL, JobState
from aiqueue.journal.base import EndedRow, Journal, OldKey, StoredKey
from tests.unit.journal.conftest import Reopen


def jobs(*seqs: int, state: str = "completed") -> Rows:
    return Rows(
        jobs=[(seq, f"job-{seq}", b"h", b"payload") for seq in seqs],
        states=[(seq, state, b"p%d" % seq, 1e6 - seq if state in TERMINAL else 0.0) for seq in seqs],
        results=[(seq, b"r") for seq in seqs],
        attempts=[(seq, attempt, b"a%d" % attempt) for seq in seqs for attempt in (1, 2)],
    )


def test_attempts_come_back_by_job_and_in_order(journal: Journal) -> None:
    journal.commit(Rows(attempts=[(1, 10, b"ten"), (1, 2, b"two"), (2, 1, b"other")]))
    journal.commit(Rows(attempts=[(1, 1, b"one"), (1, 2, b"two again")]))
    assert journal.attempts([1, 2, 3]) == {1: [b"one", b"two again", b"ten"], 2: [b"other"]}
    assert journal.attempts([]) == {}


def test_the_last_word_on_a_gate_is_what_a_restart_finds(journal: Journal, after_a_crash: Reopen) -> None:
    journal.commit(Rows(gates=[("g", b"closed"), ("h", b"h")]))
    journal.commit(Rows(gates=[("g", b"open"), ("g", b"closed again")]))
    with after_a_crash(journal).recover() as found:
        assert dict(found.gates) == {"g": b"closed again", "h": b"h"}


def test_a_schedule_is_found_as_it_was_said_first_and_is_now(journal: Journal, after_a_crash: Reopen) -> None:
    journal.commit(Rows(schedules=[("b", b"says", b"new"), ("a", b"other", b"state")]))
    journal.commit(Rows(schedules=[("b", b"", b"later"), ("b", b"", b"latest")]))
    with after_a_crash(journal).recover() as found:
        assert list(found.schedules) == [("a", b"other", b"state"), ("b", b"says", b"latest")]


def test_a_schedule_that_was_removed_is_gone_and_stays_gone(journal: Journal, after_a_crash: Reopen) -> None:
    journal.commit(Rows(schedules=[("a", b"says", b"new"), ("b", b"says", b"new"), ("a", b"", b"")]))
    journal.commit(Rows(schedules=[("a", b"", b"late"), ("nobody", b"", b"")]))
    with after_a_crash(journal).recover() as found:
        assert [row[0] for row in found.schedules] == ["b"]


def test_keys_are_found_with_their_job_digest_and_time(journal: Journal, after_a_crash: Reopen) -> None:
    journal.commit(Rows(keys=[KeyRow("a:1", "job-1", b"\x00d", 1.5, 7, 9, 3), KeyRow("b:1", "job-2", b"e", 2.5)]))
    other = after_a_crash(journal)
    assert other.keys(["a:1", "nobody:1"]) == {"a:1": StoredKey("job-1", b"\x00d", 1.5, 3, 3)}
    assert other.keys(["b:1"]) == {"b:1": StoredKey("job-2", b"e", 2.5)}
    assert other.keys([]) == {}


def test_old_keys_are_read_with_what_became_of_their_jobs_the_oldest_first(journal: Journal) -> None:
    journal.commit(jobs(1, 3, 4))
    journal.commit(jobs(2, state="processing"))
    journal.commit(
        Rows(
            keys=[
                KeyRow("live", "job-1", b"d", 2.0, 1, 3),
                KeyRow("gone", "job-9", b"d", 3.0, 9, 9),
                KeyRow("old", "job-3", b"d", 1.0, 3, 4),
                KeyRow("schedule", "nightly", b"d", 3.5),
                KeyRow("live batch", "job-4", b"d", 3.6, 4, 4, 1),
                KeyRow("ended batch", "job-4", b"d", 3.7, 4, 4, 2),
                KeyRow("new", "job-2", b"d", 4.0, 2, 2),
            ],
            batches=[(1, "one", b"spec"), (2, "two", b"spec")],
            batch_states=[(1, b"b", 0.0), (2, b"b", 2e6)],
        )
    )
    assert journal.old_keys(before=4.0, limit=9) == [
        OldKey("old", "job-3", False, 1e6 - 3),
        OldKey("live", "job-1", True, 1e6 - 1),
        OldKey("gone", "job-9", False, 3.0),
        OldKey("schedule", "nightly", False, 3.5),
        OldKey("live batch", "job-4", True, 1e6 - 4),
        OldKey("ended batch", "job-4", False, 2e6),
    ]
    assert [row.key for row in journal.old_keys(before=4.0, limit=1)] == ["old"]


def test_the_end_of_a_forgotten_job_stays_with_its_key(journal: Journal) -> None:
    journal.commit(jobs(*range(1, 8)))
    keys = [KeyRow("a", "job-1", b"d", 1.0, 1, 3), KeyRow("b", "job-5", b"d", 2e6, 5, 5), KeyRow("c", "s", b"d", 1.0)]
    journal.commit(Rows(keys=[*keys, KeyRow("d", "job-6", b"d", 1.0, 6, 6)]))
    journal.commit(Rows(deletes=[2, 4, 5, 7]))
    times = {key: found.at for key, found in journal.keys(["a", "b", "c", "d"]).items()}
    assert times == {"a": 1e6 - 2, "b": 2e6, "c": 1.0, "d": 1.0}


def test_a_key_is_kept_longer_only_if_it_is_of_that_job(journal: Journal) -> None:
    journal.commit(Rows(keys=[KeyRow("a", "job-1", b"d", 1.0), KeyRow("b", "job-2", b"d", 1.0)]))
    journal.commit(Rows(key_times=[(5.0, "a", "job-1"), (5.0, "b", "job-9"), (5.0, "none", "job-1")]))
    assert {key: found.at for key, found in journal.keys(["a", "b", "none"]).items()} == {"a": 5.0, "b": 1.0}


def test_the_sizes_of_jobs_are_those_of_their_payloads_and_results(journal: Journal) -> None:
    journal.commit(Rows(jobs=[(1, "a", b"header", b"12345"), (2, "b", b"header", b"")], results=[(1, b"678")]))
    assert journal.sizes([1, 2, 3]) == {1: 8, 2: 0}


@pytest.mark.parametrize("with_result", [False, True])
@pytest.mark.parametrize("with_payload", [False, True])
def test_the_sizes_of_rows_are_those_of_what_is_read(journal: Journal, with_payload: bool, with_result: bool) -> None:
    journal.commit(
        Rows(
            jobs=[(1, "a", b"header", b"12345"), (2, "b", b"longer header", b"")],
            states=[(1, "completed", b"progress", 9.0)],
            results=[(1, b"a result")],
            attempts=[(1, 1, b"first"), (1, 2, b"second")],
            shared=[(2, 2, b"metadata that jobs share")],
        )
    )
    asked = {"with_payload": with_payload, "with_result": with_result}
    rows = {job.id: job for job in journal.by_seq([1, 2, 3], **asked)}
    assert [(job.payload, job.result) for job in rows.values()] == [
        (b"12345" if with_payload else b"", b"a result" if with_result else b""),
        (b"", b""),
    ]
    assert journal.jobs(["a", "b", "c"], **asked) == rows
    sizes = {job.id: sum(len(column) for column in job if isinstance(column, bytes)) for job in rows.values()}
    assert journal.weights(["a", "b", "c"], **asked) == sizes
    assert journal.row_sizes([1, 2, 3], **asked) == {1: sizes["a"], 2: sizes["b"]}
    assert journal.attempt_sizes([1, 2, 3]) == {1: 11}


@pytest.mark.parametrize("count", [1, 499, 501, 1_200])
def test_a_forgotten_job_leaves_nothing(journal: Journal, count: int) -> None:
    gone = range(1, count + 1)
    journal.commit(jobs(*gone, count + 1))
    journal.commit(Rows(deletes=list(gone)))
    names = [f"job-{seq}" for seq in gone]
    assert (journal.jobs(names), journal.payloads(list(gone)), journal.attempts(list(gone))) == ({}, {}, {})
    assert [row.seq for row in journal.ended(after=(-1e9, 0), before=2e9, limit=10)] == [count + 1]
    kept = journal.jobs([f"job-{count + 1}"])[f"job-{count + 1}"]
    assert (kept.state, kept.result) == ("completed", b"r")
    assert journal.attempts([count + 1]) == {count + 1: [b"a1", b"a2"]}


def test_forgetting_what_is_not_there_is_fine(journal: Journal) -> None:
    journal.commit(Rows(deletes=[7, 8]))
    assert journal.count_jobs() == 0


def test_the_id_of_a_forgotten_job_can_be_used_again(journal: Journal) -> None:
    journal.commit(jobs(1))
    journal.commit(Rows(deletes=[1]))
    journal.commit(Rows(jobs=[(2, "job-1", b"h2", b"second")]))
    found = journal.jobs(["job-1"], with_payload=True)["job-1"]
    assert (found.seq, found.state, found.result, found.payload) == (2, "", b"", b"second")


def test_ended_jobs_are_read_page_by_page_in_the_order_of_their_ends(journal: Journal) -> None:
    for seq, state in enumerate(sorted(TERMINAL), start=1):
        journal.commit(jobs(seq, state=state))
    for seq, state in enumerate(sorted(set(JobState) - TERMINAL), start=len(TERMINAL) + 1):
        journal.commit(jobs(seq, state=state))
    count = len(TERMINAL)
    first = journal.ended(after=(0.0, 0), before=math.inf, limit=3)
    assert first[0] == EndedRow(1e6 - count, count, f"job-{count}"), "the last one accepted ended first"
    rest = journal.ended(after=(first[-1].at, first[-1].seq), before=math.inf, limit=100)
    assert [row.seq for row in (*first, *rest)] == list(range(count, 0, -1))
    assert [row.seq for row in journal.ended(after=(0.0, 0), before=1e6 - count + 1, limit=9)] == [count]


def test_jobs_that_ended_at_once_are_read_page_by_page_too(journal: Journal) -> None:
    journal.commit(
        Rows(
            jobs=[(seq, f"job-{seq}", b"h", b"") for seq in range(1, 8)],
            states=[(seq, "expired", b"p", 5.0) for seq in range(1, 8)],
        )
    )
    seen: list[int] = []
    after = (0.0, 0)
    while page := journal.ended(after=after, before=9.0, limit=3):
        seen += [row.seq for row in page]
        after = page[-1].at, page[-1].seq
    assert seen == list(range(1, 8))


def test_jobs_are_counted(journal: Journal, after_a_crash: Reopen) -> None:
    assert journal.count_jobs() == 0
    journal.commit(jobs(*range(1, 701)))
    journal.commit(jobs(3))  # again, as after a commit whose end was in doubt
    journal.commit(Rows(deletes=[1, 2, 3, 700, 900]))
    assert journal.count_jobs() == 696
    assert after_a_crash(journal).count_jobs() == 696


def test_dead_letters_are_read_page_by_page_the_newest_first(journal: Journal) -> None:
    journal.commit(jobs(1, 3, 4, state="dead_letter"))
    journal.commit(jobs(2, state="failed"))
    assert journal.dead_letter_seqs(before_seq=2**62, limit=2) == [4, 3]
    assert journal.dead_letter_seqs(before_seq=3, limit=2) == [1]
    journal.commit(Rows(deletes=[3]))
    assert journal.dead_letter_seqs(before_seq=2**62, limit=9) == [4, 1]


def test_all_of_a_commit_is_there_after_a_crash(journal: Journal, after_a_crash: Reopen) -> None:
    rows = jobs(1, state="dead_letter")
    rows.gates, rows.keys, rows.counters = [("g", b"x")], [KeyRow("k", "job-1", b"d", 1.0)], b"c"
    journal.commit(rows)
    other = after_a_crash(journal)
    assert other.attempts([1]) == {1: [b"a1", b"a2"]}
    assert set(other.keys(["k"])) == {"k"}
    assert other.dead_letter_seqs(before_seq=9, limit=9) == [1]
    with other.recover() as found:
        assert (found.counters, list(found.gates), list(found.rows)) == (b"c", [("g", b"x")], [])
