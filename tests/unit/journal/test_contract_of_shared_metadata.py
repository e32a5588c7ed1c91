"""What every journal promises of metadata that several jobs share, the one for tests too."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiqueue.engine.effects import Rows
from aiqueue.journal.base import Journal
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.testing.memory_journal import MemoryJournal
from tests.unit.journal.conftest import Reopen


@pytest.fixture
def journal(journal: Journal) -> Journal:
    """Return a journal of jobs 1 to 9, of which 2 to 4 and 5 to 7 share metadata."""
    jobs = [(seq, f"job-{seq}", b"header", b"payload") for seq in range(1, 10)]
    journal.commit(Rows(jobs=jobs, shared=[(2, 4, b"first"), (5, 7, b"second")]))
    return journal


def shown(journal: Journal) -> dict[int, bytes]:
    """Return by seq the metadata that each job is shown with, by whatever way it is read."""
    by_id = {job.seq: job.metadata for job in journal.jobs(f"job-{seq}" for seq in range(1, 10)).values()}
    assert {job.seq: job.metadata for job in journal.by_seq(range(1, 10))} == by_id
    return by_id


def test_each_job_is_shown_with_what_it_shares_also_after_a_restart(journal: Journal, after_a_crash: Reopen) -> None:
    expected = {seq: b"first" if 2 <= seq <= 4 else b"second" if 5 <= seq <= 7 else b"" for seq in range(1, 10)}
    assert shown(journal) == expected
    assert shown(after_a_crash(journal)) == expected


def test_a_commit_that_is_tried_again_changes_nothing(journal: Journal) -> None:
    before = shown(journal)
    journal.commit(Rows(shared=[(2, 4, b"first"), (5, 7, b"second")]))
    assert shown(journal) == before


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deleted=st.permutations(range(1, 10)), parts=st.integers(1, 5))
def test_what_is_shared_is_kept_as_long_as_one_job_has_it(
    deleted: list[int], parts: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    journals: list[Journal] = [MemoryJournal(), SqliteJournal(tmp_path_factory.mktemp("journal") / "j.db")]
    jobs = [(seq, f"job-{seq}", b"header", b"payload") for seq in range(1, 10)]
    for made in journals:
        made.commit(Rows(jobs=jobs, shared=[(2, 4, b"first"), (5, 7, b"second")]))
    try:
        for at in range(0, len(deleted), parts):
            left = set(deleted[at + parts :])
            for made in journals:
                made.commit(Rows(deletes=deleted[at : at + parts]))
                assert shown(made) == {
                    seq: b"first" if 2 <= seq <= 4 else b"second" if 5 <= seq <= 7 else b"" for seq in left
                }
                assert _rows(made) == [first for first, last in ((2, 4), (5, 7)) if left & set(range(first, last + 1))]
    finally:
        for made in journals:
            made.close()


def _rows(journal: Journal) -> list[int]:
    if isinstance(journal, MemoryJournal):
        return sorted(journal._disk.shared)
    assert isinstance(journal, SqliteJournal)
    return [first for (first,) in journal._writer.execute("SELECT first_seq FROM shared ORDER BY first_seq")]
