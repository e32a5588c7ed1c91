"""From rows to views."""

from __future__ import annotations

import pytest

from aiqueue.engine.records import Progress, encode_progress
from aiqueue.journal.base import StoredJob
from aiqueue.protocol import Submission, encode
from aiqueue.service.lookup import is_same, view_of
from aiqueue.testing.jobs import header, retryable, submission

SLA = (3_000, 10_000, 30_000, 60_000)


def stored(job: Submission, state: str = "", progress: bytes = b"", result: bytes = b"") -> StoredJob:
    job.header.created_at = 100.0
    return StoredJob(1, job.id, encode(job.header), state, progress, result, job.payload)


def test_a_job_that_was_never_claimed_is_queued() -> None:
    view = view_of(stored(submission("a")), SLA)
    assert (view.id, view.status, view.attempt, view.sla_ms) == ("a", "queued", 0, 30_000)
    assert view.header.created_at == 100.0


def test_a_view_has_all_of_the_progress() -> None:
    progress = Progress(2, 1, 1, "w", 101.0, 102.0, 103.0, retryable())
    view = view_of(stored(submission("a"), "failed", encode_progress(progress), b"r"), SLA)
    assert (view.status, view.attempt, view.retries, view.crashes, view.worker_id) == ("failed", 2, 1, 1, "w")
    assert (view.started_at, view.finished_at, view.run_at) == (101.0, 102.0, 103.0)
    assert (view.failure, view.result) == (retryable(), b"r")


@pytest.mark.parametrize(
    ("again", "same"),
    [
        (submission("a"), True),
        (submission("a", header(owner="someone else")), True),
        (submission("a", payload=b"other"), False),
        (submission("a", header(timeout_ms=1)), False),
        (submission("a", header(batch_id="b")), False),
    ],
    ids=["same", "owner", "payload", "timeout", "batch"],
)
def test_all_but_who_sent_it_and_when_must_be_equal(again: Submission, same: bool) -> None:
    assert is_same(stored(submission("a")), again) is same
