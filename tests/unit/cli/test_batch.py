"""``aiqueue batch`` and ``aiqueue chain`` without Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiqueue.cli import batch, batch_progress
from aiqueue.testing.jobs import chat
from tests.unit.cli.conftest import Beside, Terminal


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Return a file of five payloads."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(chat(f"row {number}")) + "\n" for number in range(5)))
    return path


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """Return a file of a chain."""
    path = tmp_path / "steps.json"
    path.write_text(json.dumps([{"name": "first", "payload": chat("a")}, chat("then {{previous.content}}")]))
    return path


def test_a_file_is_submitted_followed_and_its_results_are_lines(aiqueue: Terminal, queue: Beside, rows: Path) -> None:
    queue.add_worker()
    sent = aiqueue("batch", "submit", str(rows), "--name", "n", "--max-concurrency", "2", "--tag", "t")
    assert sent.exit_code == 0
    batch_id = sent.stdout.strip()
    assert "5/5  100.0%" in sent.stderr
    found = [json.loads(line) for line in aiqueue("batch", "results", batch_id).stdout.splitlines()]
    assert [each["index"] for each in found] == list(range(5))
    rest = aiqueue("batch", "results", batch_id, "--after", str(found[2]["after"])).stdout.splitlines()
    assert [json.loads(line)["index"] for line in rest] == [3, 4]
    shown = json.loads(aiqueue("batch", "status", batch_id, "--json").stdout)
    assert (shown["status"], shown["completed"], shown["name"], shown["tags"]) == ("completed", 5, "n", ["t"])
    assert "5 completed" in aiqueue("batch", "status", batch_id).stdout


def test_lines_can_come_from_stdin(aiqueue: Terminal, rows: Path) -> None:
    sent = aiqueue("batch", "submit", "-", "--detach", "--json", stdin=rows.read_text())
    assert json.loads(sent.stdout)["total"] == 5
    for line, wrong in (("[1]", "is not a JSON object"), ('{"a":' * 100_000, "is not JSON")):
        bad = aiqueue("batch", "submit", "-", stdin=f"{line}\n")
        assert (bad.exit_code, f"stdin:1: {wrong}" in bad.stderr) == (2, True)


def test_lines_from_stdin_may_begin_with_a_byte_order_mark_and_are_utf_8(aiqueue: Terminal, rows: Path) -> None:
    sent = aiqueue("batch", "submit", "-", "--detach", "--json", stdin="\ufeff" + rows.read_text())
    assert json.loads(sent.stdout)["total"] == 5
    bad = aiqueue("batch", "submit", "-", stdin=rows.read_text().encode("utf-16"))
    assert (bad.exit_code, "stdin:1: has the encoding UTF-16" in bad.stderr) == (2, True)


def test_a_batch_is_paused_resumed_and_cancelled(aiqueue: Terminal, rows: Path) -> None:
    batch_id = aiqueue("batch", "submit", str(rows), "--detach").stdout.strip()
    assert aiqueue("batch", "pause", batch_id).stdout.strip() == "paused"
    assert aiqueue("batch", "resume", batch_id).stdout.strip() == "processing"
    assert aiqueue("batch", "results", batch_id).stdout == ""
    assert aiqueue("batch", "cancel", batch_id).stdout.strip() == "cancelled"
    assert aiqueue("batch", "retry-failed", batch_id).stdout.strip() == "0"
    assert "5 cancelled" in aiqueue("batch", "status", batch_id, "--watch").stdout


def test_ctrl_c_leaves_the_batch_running_and_says_how_to_come_back(
    aiqueue: Terminal, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_progress.time, "sleep", interrupt)
    sent = aiqueue("batch", "submit", str(rows))
    batch_id = sent.stdout.strip()
    assert sent.exit_code == 130
    assert f"the batch goes on: aiqueue batch status {batch_id}" in sent.stderr
    assert json.loads(aiqueue("batch", "status", batch_id, "--json").stdout)["status"] == "processing"


def test_ctrl_c_while_lines_are_sent_leaves_nothing(
    aiqueue: Terminal, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines() -> Iterator[dict[str, Any]]:
        yield chat("row 0")
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "_stdin_rows", lines)
    sent = aiqueue("batch", "submit", "-")
    assert (sent.exit_code, sent.stdout) == (130, "")
    assert "nothing runs: the lines had not all been sent" in sent.stderr
    assert json.loads(aiqueue("stats", "--json").stdout)["adapter"]["totalJobs"] == 0


def test_a_bad_line_is_named_and_nothing_is_submitted(aiqueue: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(chat("x")) + "\n" + json.dumps(chat("x", model="nobody")) + "\n")
    sent = aiqueue("batch", "submit", str(path))
    assert sent.exit_code == 2
    assert "job 1: model: provider 'sim' has no model 'nobody'" in sent.stderr
    assert sent.stdout == ""
    missing = aiqueue("batch", "submit", str(tmp_path / "missing.jsonl"))
    assert (missing.exit_code, "can't read" in missing.stderr) == (2, True)


def test_an_unknown_batch_is_an_error(aiqueue: Terminal) -> None:
    for command in ("status", "results", "cancel", "pause", "resume", "retry-failed"):
        result = aiqueue("batch", command, "nobody")
        assert (result.exit_code, "Batch not found: nobody" in result.stderr) == (1, True)


def test_a_chain_is_submitted_and_shown_step_by_step(aiqueue: Terminal, queue: Beside, steps: Path) -> None:
    queue.add_worker()
    sent = aiqueue("chain", "submit", str(steps), "--wait", "--name", "c")
    assert sent.exit_code == 0
    chain_id = sent.stdout.splitlines()[0]
    shown: dict[str, Any] = json.loads(aiqueue("chain", "status", chain_id, "--json").stdout)
    assert [(node["name"], node["status"]) for node in shown["nodes"]] == [("first", "completed"), ("1", "completed")]
    assert aiqueue("chain", "status", chain_id, "--mermaid").stdout.startswith("flowchart TD\n")
    assert "first" in aiqueue("chain", "status", chain_id).stdout


def test_a_chain_is_cancelled_and_a_graph_is_taken_too(aiqueue: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"a": {"payload": chat("a")}, "b": {"payload": chat("b"), "depends_on": ["a"]}}))
    graph_id = aiqueue("chain", "submit", str(path)).stdout.strip()
    assert graph_id.startswith("graph-")
    refused = aiqueue("chain", "submit", str(path), "--keep-going")
    assert (refused.exit_code, "--keep-going: is for lists of steps" in refused.stderr) == (2, True)
    assert aiqueue("chain", "cancel", graph_id).stdout.strip() == "cancelled"
    path.write_text(json.dumps([chat("{{previous.content}}")]))
    bad = aiqueue("chain", "submit", str(path))
    assert (bad.exit_code, "names no step before this one" in bad.stderr) == (2, True)
    path.write_text("7")
    assert "neither a list of steps nor a graph" in aiqueue("chain", "submit", str(path)).stderr
