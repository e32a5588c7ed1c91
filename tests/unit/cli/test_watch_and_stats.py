"""``aiqueue watch`` and ``aiqueue stats``."""

from __future__ import annotations

import json

from aiqueue.testing.jobs import MODEL, POOL, PROVIDER
from tests.unit.cli.conftest import Beside, Terminal

UNKNOWN = "0198aaaa-0000-7000-8000-000000000000"


def test_watching_a_job_prints_its_events_and_ends_with_it(aiqueue: Terminal, queue: Beside) -> None:
    job_id = aiqueue("submit", "Why?").stdout.strip()
    queue.after_first("get_jobs", queue.add_worker)  # the watcher has seen that the job waits
    printed = aiqueue("watch", job_id)
    assert printed.exit_code == 0
    events = [line.split()[1:3] for line in printed.stdout.splitlines()]
    assert events == [["queued", job_id], ["processing", job_id], ["completed", job_id]]


def test_watching_a_job_that_has_ended_says_so_at_once(aiqueue: Terminal, queue: Beside) -> None:
    queue.add_worker()
    job_id = json.loads(aiqueue("submit", "--wait", "--json", "Why?").stdout)["jobId"]
    (line,) = aiqueue("watch", job_id).stdout.splitlines()
    assert line.split()[1:3] == ["completed", job_id]


def test_watching_an_unknown_job_is_an_error(aiqueue: Terminal) -> None:
    assert aiqueue("watch", UNKNOWN).exit_code == 1


def test_stats_show_levels_lanes_and_workers(aiqueue: Terminal, queue: Beside) -> None:
    aiqueue("submit", "Why?", "--priority", "high")
    printed = aiqueue("stats").stdout
    assert "1 accepted: 1 queued" in printed
    for part in ("urgent", "high", "medium", "low", POOL, PROVIDER, MODEL, "workers  0"):
        assert part in printed
    queue.add_worker()
    assert "workers  1" in aiqueue("stats").stdout


def test_stats_as_json_are_those_of_the_api(aiqueue: Terminal) -> None:
    assert json.loads(aiqueue("stats", "--json").stdout)["adapter"]["totalJobs"] == 0
