"""Telling a submit that was overtaken by its repeat from a new one, by its id."""

from __future__ import annotations

from msgspec.structs import replace

from aiqueue.ids import new_job_ids
from aiqueue.protocol import SubmitGroup
from aiqueue.service.old_ids import OldIds
from aiqueue.testing.jobs import group, header, submission


def of(client: str, job_id: str) -> SubmitGroup:
    return group(submission(job_id, replace(header(), owner=client)))


def test_an_id_not_beyond_those_at_the_start_may_be_old_and_a_later_one_is_new() -> None:
    first, newest, later = new_job_ids(3)
    old = OldIds(newest)
    assert [old.may_hold(of("a", job_id)) for job_id in (first, newest, later)] == [True, True, False]


def test_a_repeat_makes_the_ids_of_its_own_client_old_and_no_other() -> None:
    first, again, later = new_job_ids(3)
    old = OldIds("")
    old.note(of("a", again))
    old.note(of("a", first))
    assert [old.may_hold(of("a", job_id)) for job_id in (first, again, later)] == [True, True, False]
    assert not old.may_hold(of("b", first))


def test_however_many_clients_and_jobs_were_sent_again_none_is_taken_for_new() -> None:
    old = OldIds("")
    sent = [(f"client-{number % 11_000}", job_id) for number, job_id in enumerate(new_job_ids(25_000))]
    for client, job_id in sent:
        old.note(of(client, job_id))
    assert all(old.may_hold(of(client, job_id)) for client, job_id in sent)


def test_ids_that_callers_chose_make_no_others_old() -> None:
    old = OldIds("", {"taken"})
    old.note(of("a", "~chosen"))
    assert [old.may_hold(of("a", name)) for name in ("taken", "~chosen", "another")] == [True, True, False]
    assert not old.may_hold(of("a", new_job_ids(1)[0]))
