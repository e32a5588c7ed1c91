"""``aiqueue dead-letters`` without Ray."""

from __future__ import annotations

from uuid import uuid4

from tests.unit.cli.conftest import Terminal


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
