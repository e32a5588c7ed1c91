"""What a deletion of dead letters writes, case by case."""

from __future__ import annotations

import itertools
import string
from collections import Counter

import pytest

from aiqueue.engine.effects import Rows
from aiqueue.engine.records import Progress, decode_progress, encode_progress
from aiqueue.engine.successors import DELETED, successor_of
from aiqueue.journal.base import StoredJob
from aiqueue.service import deletions
from aiqueue.service.deletions import Facts, rows_of_deletion

UNREADABLE = b"\xc1 no progress"


def job(job_id: str, heir: str = "", state: str = "dead_letter") -> StoredJob:
    """Return a job that ended, and names another in its place; its seq is its letter's place in the alphabet."""
    progress = encode_progress(Progress(finished_at=7.0, successor=heir))
    return StoredJob(seq=_seq(job_id), id=job_id, header=b"", state=state, progress=progress, result=b"", payload=b"")


def _seq(job_id: str) -> int:
    return ord(job_id) - ord("a") + 1


def deleted(rows: Rows) -> str:
    """Return the jobs that are gone."""
    return "".join(chr(ord("a") + seq - 1) for seq in rows.deletes)


def said(rows: Rows) -> dict[str, tuple[str, str]]:
    """Return state and successor of each job whose row changes."""
    return {
        chr(ord("a") + seq - 1): (state, decode_progress(progress).successor) for seq, state, progress, _ in rows.states
    }


def test_a_dead_letter_that_nothing_has_to_do_with_is_gone_and_its_key_is_free() -> None:
    rows = rows_of_deletion(Facts([job("a")], free=[("key", "a")]))
    assert (deleted(rows), said(rows), rows.free_keys) == ("a", {}, [("key", "a")])


def test_one_whose_redrive_failed_too_is_gone_and_the_redrive_stays_as_it_is() -> None:
    rows = rows_of_deletion(Facts([job("a", "b")]))
    assert (deleted(rows), said(rows)) == ("a", {})


def test_one_whose_work_goes_on_elsewhere_is_kept_and_names_its_redrive() -> None:
    rows = rows_of_deletion(Facts([job("a", "b")], living={"a"}))
    assert (deleted(rows), said(rows)) == ("", {"a": ("failed", "b")})


def test_one_that_may_have_a_redrive_is_kept_with_a_mark() -> None:
    rows = rows_of_deletion(Facts([job("a")], living={"a"}))
    assert said(rows) == {"a": ("failed", DELETED)}


def test_one_that_can_not_be_decoded_is_kept_as_it_is() -> None:
    rows = rows_of_deletion(Facts([job("a")._replace(progress=UNREADABLE)], living={"a"}))
    assert rows.states == [(1, "failed", UNREADABLE, 1.0)]


def test_one_that_is_needed_or_was_tried_again_is_kept_with_a_mark() -> None:
    for facts in (Facts([job("a")], needed={"a"}), Facts([job("a")], tried={"a"})):
        rows = rows_of_deletion(facts)
        assert (deleted(rows), said(rows)) == ("", {"a": ("failed", DELETED)})


@pytest.mark.parametrize("why", ["needed", "tried"])
def test_one_that_is_kept_without_its_redrive_does_not_name_it(why: str) -> None:
    facts = Facts([job("a", "b"), job("b")], other_predecessors=[job("a", "b")])
    rows = rows_of_deletion(facts._replace(**{why: {"a"}}))
    assert (deleted(rows), said(rows)) == ("b", {"a": ("failed", DELETED)})
    rows = rows_of_deletion(facts._replace(**{why: {"a", "b"}}))
    assert (deleted(rows), said(rows)) == ("", {"a": ("failed", DELETED), "b": ("failed", DELETED)})


@pytest.mark.parametrize("why", ["needed", "tried"])
def test_one_that_is_kept_beside_a_redrive_that_is_left_names_it(why: str) -> None:
    rows = rows_of_deletion(Facts([job("a", "b")])._replace(**{why: {"a"}}))
    assert (deleted(rows), said(rows)) == ("", {"a": ("failed", "b")})
    facts = Facts([job("a", "b"), job("b", "c")], other_predecessors=[job("a", "b")])
    rows = rows_of_deletion(facts._replace(**{why: {"a"}}))
    assert (deleted(rows), said(rows)) == ("", {"a": ("failed", "b"), "b": ("failed", "c")})


def test_a_dead_letter_whose_redrive_is_gone_names_none_and_a_job_that_was_retried_says_it_was_deleted() -> None:
    rows = rows_of_deletion(Facts([job("c"), job("d")], other_predecessors=[job("a", "c"), job("b", "d", "failed")]))
    assert (deleted(rows), said(rows)) == ("cd", {"a": ("dead_letter", ""), "b": ("failed", DELETED)})


def test_a_dead_letter_whose_redrive_is_kept_though_it_was_deleted_names_none_too() -> None:
    rows = rows_of_deletion(Facts([job("b")], other_predecessors=[job("a", "b")], needed={"b"}))
    assert (deleted(rows), said(rows)) == ("", {"a": ("dead_letter", ""), "b": ("failed", DELETED)})


def test_redrives_between_a_dead_letter_and_one_that_is_left_stay_as_links() -> None:
    rows = rows_of_deletion(Facts([job("b", "c"), job("c", "d")], other_predecessors=[job("a", "b"), job("b", "c")]))
    assert (deleted(rows), said(rows)) == ("", {"b": ("failed", "c"), "c": ("failed", "d")})


def test_all_redrives_of_a_dead_letter_go_together() -> None:
    rows = rows_of_deletion(Facts([job("b", "c"), job("c")], other_predecessors=[job("a", "b"), job("b", "c")]))
    assert (deleted(rows), said(rows)) == ("bc", {"a": ("dead_letter", "")})


def test_a_dead_letter_names_none_when_the_last_of_its_redrives_goes_after_the_others() -> None:
    deleted_before = [job("c", "d", "failed"), job("b", "c", "failed")]
    rows = rows_of_deletion(Facts([job("d")], deleted_before, other_predecessors=[job("a", "b")]))
    assert deleted(rows) == "d"
    assert said(rows) == {"a": ("dead_letter", ""), "b": ("failed", DELETED), "c": ("failed", DELETED)}


def test_redrives_that_were_deleted_before_stay_as_links_to_one_that_is_left() -> None:
    rows = rows_of_deletion(Facts([job("c", "d")], [job("b", "c", "failed")], other_predecessors=[job("a", "b")]))
    assert (deleted(rows), said(rows)) == ("", {"c": ("failed", "d")})


def test_a_dead_letter_goes_with_its_redrive() -> None:
    rows = rows_of_deletion(Facts([job("a", "b"), job("b")], other_predecessors=[job("a", "b")]))
    assert (deleted(rows), said(rows)) == ("ab", {})


def test_a_circle_of_damaged_rows_ends() -> None:
    rows = rows_of_deletion(Facts([job("b", "c"), job("c", "b")], other_predecessors=[job("a", "b")]))
    assert (deleted(rows), said(rows)) == ("bc", {"a": ("dead_letter", "")})


def test_one_that_may_live_on_behind_a_redrive_that_is_deleted_with_it_is_no_dead_letter_any_more() -> None:
    facts = Facts([job("a", "b"), job("b")], (), [job("a", "b")], living={"a"})
    rows = rows_of_deletion(facts)
    assert (deleted(rows), said(rows), len(rows.states)) == ("b", {"a": ("failed", DELETED)}, 1)
    rows = rows_of_deletion(facts._replace(dead=[job("a", "b"), job("b", "c")]))
    assert (deleted(rows), said(rows)) == ("", {"a": ("failed", "b"), "b": ("failed", "c")})


def test_each_of_many_redrives_that_were_deleted_before_is_looked_at_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: Counter[bytes] = Counter()

    def count(progress: bytes) -> str:
        looked_at[progress] += 1
        return successor_of(progress)

    monkeypatch.setattr(deletions, "successor_of", count)
    names = string.ascii_lowercase
    chain = [job(name, heir, "failed") for name, heir in itertools.pairwise(names)]
    rows = rows_of_deletion(Facts([job("z")], chain[1:], [chain[0]._replace(state="dead_letter")]))
    assert deleted(rows) == "z"
    assert set(said(rows).values()) == {("dead_letter", ""), ("failed", DELETED)}
    assert max(looked_at.values()) <= 3


def test_nothing_is_written_of_what_retention_has_taken_meanwhile() -> None:
    rows = rows_of_deletion(Facts([job("b")], other_predecessors=[job("a", "b")], forgotten={1}))
    assert (deleted(rows), said(rows)) == ("b", {})
    rows = rows_of_deletion(Facts([job("a", "b")], living={"a"}, forgotten={1}))
    assert (deleted(rows), said(rows)) == ("", {})
