"""Errors: how they travel, and what they say to HTTP."""

from __future__ import annotations

import pickle
import re

import pytest

from aiqueue import errors
from aiqueue.errors import (
    JOB_ERRORS,
    AIQueueError,
    DuplicateJob,
    FieldError,
    JobError,
    JobNotFound,
    PartlySubmitted,
    QueueUnavailable,
    ValidationError,
    error_from,
)
from aiqueue.protocol import Failure


def every(root: type[AIQueueError]) -> list[type[AIQueueError]]:
    own = [child for child in root.__subclasses__() if child.__module__.startswith("aiqueue.errors.")]
    return [root, *(found for child in own for found in every(child))]


EVERY = [cls for cls in every(AIQueueError) if not cls.__name__.startswith("_")]
UNAVAILABLE = [cls for cls in EVERY if hasattr(cls, "retryable") and not issubclass(cls, JobError)]


def made(cls: type[AIQueueError]) -> AIQueueError:
    """Return one of each, with all it can hold."""
    if issubclass(cls, ValidationError):
        return cls([FieldError("model", "unknown", 3), FieldError("type", "missing")])
    if issubclass(cls, JobError):
        return cls("Provider sim: no", status=503, retry_after_s=1.5, request_id="req-1")
    if cls is PartlySubmitted:
        return PartlySubmitted(["a", "b"], 3)
    if cls in UNAVAILABLE:
        return cls("come back", 7.0)
    return cls("some-id")


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling(cls: type[AIQueueError]) -> None:
    error = made(cls)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert (str(copy), copy.args) == (str(error), error.args)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("cls", JOB_ERRORS.values(), ids=lambda cls: cls.__name__)
def test_every_job_error_survives_the_journal(cls: type[JobError]) -> None:
    error = made(cls)
    assert isinstance(error, JobError)
    failure = error.to_failure()
    assert (failure.kind, failure.retryable) == (cls.kind, cls.retryable)
    back = error_from(failure)
    assert type(back) is cls
    assert (str(back), vars(back)) == (str(error), vars(error))


def test_a_kind_of_a_newer_release_is_a_plain_job_error() -> None:
    error = error_from(Failure("quantum_flux", "strange", status=599))
    assert (type(error), str(error), error.status) == (JobError, "strange", 599)


def test_kinds_are_unique() -> None:
    kinds = [cls.kind for cls in EVERY]
    assert len(kinds) == len(set(kinds))


def test_every_status_is_one_that_says_error() -> None:
    assert {cls.__name__ for cls in EVERY if not 400 <= cls.http_status <= 599} == set()


def test_the_picture_at_the_top_of_the_file_is_the_tree() -> None:
    drawn = re.findall(r"(?:├──|└──|^)\s?(\w+)", (errors.__doc__ or "").split("\n\n")[1], re.MULTILINE)
    assert drawn[0] == "AIQueueError"
    assert set(drawn) == {cls.__name__ for cls in EVERY}
    for line in (errors.__doc__ or "").splitlines():
        found = re.search(r"(?:├──|└──) (\w+) +(\d{3})", line)
        if found:
            assert getattr(errors, found[1]).http_status == int(found[2]), line
        named = re.search(r"(?:├──|└──) (\w+)", line)
        if named and issubclass(getattr(errors, named[1]), JobError):
            assert getattr(errors, named[1]).retryable == line.endswith("retry"), line


@pytest.mark.parametrize("cls", UNAVAILABLE, ids=lambda cls: cls.__name__)
def test_who_comes_too_early_is_told_when_to_come_back(cls: type[QueueUnavailable]) -> None:
    assert (cls("busy").retry_after_s, cls("busy", 7.0).retry_after_s, str(cls("busy", 7.0))) == (1.0, 7.0, "busy")


def test_errors_are_what_python_would_call_them() -> None:
    assert issubclass(ValidationError, ValueError)
    assert issubclass(JobNotFound, LookupError)
    assert str(JobNotFound("job-1")) == "Job not found: job-1"
    assert "job-1 is taken" in str(DuplicateJob("job-1"))


def test_a_validation_error_shows_the_first_few_and_counts_the_rest() -> None:
    error = ValidationError([FieldError("model", "unknown", index) for index in range(8)])
    assert str(error).startswith("job 0: model: unknown; job 1: model: unknown")
    assert str(error).endswith("; and 3 more")
    assert str(ValidationError([FieldError("model", "unknown")])) == "model: unknown"
    assert len(error.errors) == 8
