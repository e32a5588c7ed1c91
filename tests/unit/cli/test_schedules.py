"""``aiqueue schedule`` without Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiqueue.testing.jobs import chat
from tests.unit.cli.conftest import Beside, Terminal

NIGHTLY = ("schedule", "add", "nightly", "30 1 * * *", "Good night", "--timezone", "Europe/London")


def test_a_new_schedule_is_shown_with_its_next_runs(aiqueue: Terminal) -> None:
    result = aiqueue(*NIGHTLY)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1:3] == ["name      nightly", "cron      30 1 * * * (Europe/London)"]
    assert lines[0].startswith("schedule  schedule-")
    assert len(lines[3:]) == 5
    assert all("01:30:00 GMT" in line or "01:30:00 BST" in line or "02:00:00 BST" in line for line in lines[3:])


def test_a_file_holds_a_whole_payload(aiqueue: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text(json.dumps(chat("From a file")))
    result = aiqueue("schedule", "add", "n", "@hourly", "--file", str(file), "--priority", "low", "--json")
    shown = json.loads(result.stdout)
    assert (shown["cronExpression"], shown["priority"], len(shown["nextRuns"])) == ("@hourly", "low", 5)


def test_schedules_are_listed_and_paused_and_resumed_and_removed(aiqueue: Terminal) -> None:
    assert aiqueue(*NIGHTLY).exit_code == 0
    assert "none: it is paused" in aiqueue("schedule", "pause", "nightly").stdout
    assert "paused" in aiqueue("schedule", "list").stdout
    assert aiqueue("schedule", "next", "nightly").stdout == ""
    assert "01:30:00" in aiqueue("schedule", "resume", "nightly").stdout
    assert len(aiqueue("schedule", "next", "nightly", "--count", "7").stdout.splitlines()) == 7
    (found,) = json.loads(aiqueue("schedule", "list", "--json").stdout)
    assert aiqueue("schedule", "remove", "nightly").stdout.strip() == found["scheduleId"]
    assert json.loads(aiqueue("schedule", "list", "--json").stdout) == []


def test_running_now_prints_the_job_which_is_in_the_history(aiqueue: Terminal, queue: Beside) -> None:
    queue.add_worker()
    aiqueue(*NIGHTLY, "--paused")
    job_id = aiqueue("schedule", "run-now", "nightly").stdout.strip()
    assert aiqueue("get", job_id).exit_code == 0
    shown = aiqueue("schedule", "history", "nightly").stdout
    assert job_id in shown
    assert "manual" in shown
    (run,) = json.loads(aiqueue("schedule", "history", "nightly", "--json").stdout)
    assert (run["jobId"], run["outcome"]) == (job_id, "manual")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("add", "n", "0 0 30 2 *", "x"), "cron_expression: '0 0 30 2 *' never fires"),
        (("add", "n", "@daily", "x", "--timezone", "Mars/Olympus"), "timezone: unknown time zone"),
        (("add", "n", "@daily", "x", "--overlap", "maybe"), "overlap: "),
        (("add", "n", "@daily"), "give a prompt, or --file"),
        (("add", "n", "@daily", "x", "--model", "nothing"), "model: "),
    ],
)
def test_bad_input_is_one_line_that_names_the_field(aiqueue: Terminal, command: tuple[str, ...], said: str) -> None:
    result = aiqueue("schedule", *command)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["pause", "resume", "run-now", "remove", "next", "history"])
def test_a_schedule_that_is_not_there_is_said_to_be_unknown(aiqueue: Terminal, command: str) -> None:
    result = aiqueue("schedule", command, "nobody")
    assert result.exit_code == 1
    assert "Schedule not found: nobody" in result.stderr
