"""``aiqueue submit``, ``get`` and ``cancel``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiqueue.testing.jobs import MODEL, PROVIDER, chat
from tests.unit.cli.conftest import Beside, Terminal


def test_a_submitted_job_can_be_shown(aiqueue: Terminal) -> None:
    job_id = aiqueue("submit", "Why?", "--priority", "urgent", "--tag", "a", "--tag", "b").stdout.strip()
    shown = aiqueue("get", job_id)
    assert shown.exit_code == 0
    for part in (job_id, "queued", "urgent", f"{PROVIDER}/{MODEL}", "a, b"):
        assert part in shown.stdout


def test_wait_prints_the_answer_alone_on_stdout(aiqueue: Terminal, queue: Beside) -> None:
    queue.add_worker()
    printed = aiqueue("submit", "--wait", "Why is the sky blue?")
    assert (printed.exit_code, printed.stdout) == (0, "Why is the sky blue?\n")
    assert printed.stderr.startswith("job ")


def test_wait_with_json_prints_the_job(aiqueue: Terminal, queue: Beside) -> None:
    queue.add_worker()
    job = json.loads(aiqueue("submit", "--wait", "--json", "Why?").stdout)
    assert (job["status"], job["result"]["response"]["choices"][0]["message"]["content"]) == ("completed", "Why?")


def test_an_embedding_prints_its_vector(aiqueue: Terminal, queue: Beside) -> None:
    queue.add_worker()
    assert aiqueue("submit", "--wait", "--type", "embedding", "four").stdout == "[4.0, 1.0]\n"


def test_json_prints_the_id(aiqueue: Terminal) -> None:
    answer = json.loads(aiqueue("submit", "--json", "Why?").stdout)
    assert (len(answer["jobId"]), answer["status"]) == (36, "queued")


def test_a_dash_reads_the_prompt_from_stdin(aiqueue: Terminal, queue: Beside) -> None:
    queue.add_worker()
    assert aiqueue("submit", "--wait", "-", stdin="From a pipe").stdout == "From a pipe\n"


def test_a_prompt_from_stdin_loses_its_byte_order_mark_and_is_text(aiqueue: Terminal, queue: Beside) -> None:
    queue.add_worker()
    assert aiqueue("submit", "--wait", "-", stdin="\ufeffFrom Windows").stdout == "From Windows\n"
    bad = aiqueue("submit", "-", stdin="größe".encode("utf-16"))
    assert (bad.exit_code, "prompt: on stdin is not in utf-8" in bad.stderr) == (2, True)


def test_a_file_holds_the_whole_payload(aiqueue: Terminal, queue: Beside, tmp_path: Path) -> None:
    queue.add_worker()
    file = tmp_path / "job.json"
    file.write_text(json.dumps(chat("From a file")))
    assert aiqueue("submit", "--wait", "--file", str(file)).stdout == "From a file\n"


@pytest.mark.parametrize("text", ["no json", "[1]", '{"type": "chat_completion"}', "\udcff"])
def test_a_file_that_holds_no_payload_is_refused(aiqueue: Terminal, tmp_path: Path, text: str) -> None:
    file = tmp_path / "job.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    printed = aiqueue("submit", "--file", str(file))
    assert (printed.exit_code, printed.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "prompt"),
        ([" "], "prompt"),
        (["Why?", "--provider", "nobody"], f"configured: {PROVIDER}"),
        (["Why?", "--model", "other"], MODEL),
        (["Why?", "--type", "embedding", "--system", "Be brief"], "--system"),
        (["Why?", "--timeout", "99"], "--timeout"),
        (["Why?", "--max-retries", "11"], "--max-retries"),
        (["Why?", "--priority", "asap"], "--priority"),
        (["Why?", "--tag", ""], "tags"),
    ],
)
def test_wrong_input_is_refused_with_the_name_of_what_is_wrong(
    aiqueue: Terminal, options: list[str], expected: str
) -> None:
    printed = aiqueue("submit", *options)
    assert printed.exit_code == 2
    assert expected in printed.stderr
    assert aiqueue("stats", "--json").stdout.count('"totalJobs": 0') == 1


def test_a_file_and_a_prompt_at_once_are_refused(aiqueue: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(chat()))
    printed = aiqueue("submit", "Why?", "--file", str(file), "--max-tokens", "3")
    assert printed.exit_code == 2
    assert "max-tokens, prompt" in printed.stderr


def test_a_waiting_job_is_cancelled_once(aiqueue: Terminal) -> None:
    job_id = aiqueue("submit", "Why?").stdout.strip()
    first, second = aiqueue("cancel", job_id), aiqueue("cancel", job_id)
    assert (first.exit_code, first.stdout) == (0, "cancelled\n")
    assert (second.exit_code, second.stderr) == (1, "not cancelled: it is cancelled already\n")


def test_waiting_for_a_job_that_is_cancelled_fails_with_its_reason(aiqueue: Terminal, queue: Beside) -> None:
    adapter = queue.join("x", None).adapter
    adapter.on("job:submitted", lambda event: adapter.cancel_job(event.job_id))
    printed = aiqueue("submit", "--wait", "Why?")
    adapter.stop()
    assert printed.exit_code == 1
    assert "cancelled" in printed.stderr.splitlines()[-1]
