"""``aiqueue dead-letters`` without Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import uuid4

from aiqueue.protocol import JobView
from aiqueue.testing.jobs import header
from tests.unit.cli.conftest import Beside, Terminal


def test_an_empty_list_is_an_empty_table(aiqueue: Terminal) -> None:
    result = aiqueue("dead-letters", "list", "--json")
    assert result.exit_code == 0
    assert result.stdout.strip() == "[]"


def test_the_list_bears_the_name_that_the_settings_give_it(aiqueue: Terminal) -> None:
    result = aiqueue("dead-letters", "list")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "ai-jobs-dlq")


def test_a_job_that_is_no_dead_letter_is_neither_shown_nor_redriven(aiqueue: Terminal) -> None:
    for command in ("show", "redrive"):
        result = aiqueue("dead-letters", command, str(uuid4()))
        assert result.exit_code == 1
        assert "No dead letter has the id" in result.stderr


def test_deleting_what_is_not_there_prints_nothing(aiqueue: Terminal) -> None:
    result = aiqueue("dead-letters", "delete", str(uuid4()))
    assert (result.exit_code, result.stdout) == (0, "")


def test_one_whose_payload_is_damaged_is_shown_with_null(queue: Beside, aiqueue: Terminal) -> None:
    async def damaged(ids: Sequence[str], *, with_payload: bool = False) -> list[JobView]:
        return [JobView(job_id, header(), "dead_letter", 3_000, payload=b'{"type": \xff') for job_id in ids]

    queue.get_jobs = damaged
    job_id = str(uuid4())
    result = aiqueue("dead-letters", "show", job_id)
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert (shown["job"]["jobId"], shown["payload"]) == (job_id, None)
