"""Progress bars and tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.table import Table

from aiqueue.batch_views import BatchInfo
from aiqueue.client.display import answers_table, batch_progress, progress, sla_table, stats_table
from aiqueue.results import Choice, JobResult, Message, Response, Usage
from aiqueue.views import (
    ErrorInfo,
    JobInfo,
    LevelStats,
    QueueStats,
    Rates,
    SlaCompliance,
    WorkerPoolStats,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def info(
    job_id: str = "a",
    *,
    priority: str = "high",
    took_ms: float = 500.0,
    target_ms: int = 10_000,
    text: str | None = None,
    error: ErrorInfo | None = None,
) -> JobInfo:
    """Return a job that has completed, or failed with ``error``."""
    result = JobResult(
        response=Response(
            model="m",
            choices=[Choice(index=0, message=Message(content=f"answer of {job_id}" if text is None else text))],
        ),
        tokens=12,
        latency=took_ms,
        provider="local",
        model="m",
        usage=Usage(prompt_tokens=5, completion_tokens=7, total_tokens=12),
    )
    sla = SlaCompliance(met=took_ms <= target_ms, target_ms=target_ms, actual_ms=took_ms)
    return JobInfo(
        job_id=job_id,
        status="failed" if error else "completed",
        priority=priority,
        type="chat_completion",
        provider="local",
        model="m",
        created_at=START,
        finished_at=START + timedelta(milliseconds=took_ms),
        attempt=1,
        result=None if error else result,
        error=error,
        sla_compliance=None if error else sla,
    )


REFUSED = ErrorInfo(kind="invalid_request", message="no such [model]", retryable=False)


def rows(table: Table, width: int = 200) -> list[list[str]]:
    """Return the table's cells as they are printed."""
    out = Console(file=io.StringIO(), width=width)
    out.print(table)
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


class Ends:
    """An adapter whose jobs end at once."""

    def __init__(self, infos: Sequence[JobInfo]) -> None:
        self._infos = infos

    def wait_all(self, job_ids: Sequence[str], on_end: Callable[[JobInfo], None] | None = None) -> list[JobInfo]:
        for ended in self._infos:
            assert on_end is not None
            on_end(ended)
        return list(self._infos)


def test_progress_returns_the_jobs_and_counts_those_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    infos = [info("a"), info("b", error=REFUSED), info("c")]
    assert progress(Ends(infos), ["a", "b", "c"], label="prompts") == infos
    printed = capsys.readouterr()
    assert "prompts: 100%" in printed.out
    assert "3/3" in printed.out
    assert "1 not completed" in printed.out
    assert printed.err == ""


def test_a_batch_is_watched_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    class Looks:
        def __init__(self) -> None:
            self.ended = iter([0, 2, 2, 5])

        def get_batch_job_status(self, batch_id: str) -> BatchInfo:
            ended = next(self.ended)
            over = START if ended == 5 else None
            return BatchInfo(
                batch_id=batch_id,
                kind="batch",
                status="",
                total=5,
                created_at=START,
                name="rows",
                completed=max(0, ended - 1),
                failed=min(1, ended),
                ended_at=over,
            )

    info = batch_progress(Looks(), "batch-1", look_s=0.0)
    assert (info.batch_id, info.completed) == ("batch-1", 4)
    printed = capsys.readouterr().out
    assert "rows: 100%" in printed
    assert "5/5" in printed
    assert "1 failed" in printed


def test_answers_stand_beside_their_prompts() -> None:
    table = answers_table([info("a"), info("b", priority="low", error=REFUSED)], {"a": "Why?"})
    assert rows(table) == [
        ["high", "Why?", "answer of a", "12", "500 ms"],
        ["low", "", "failed: no such [model]", "", "–"],
    ]


def test_an_answer_is_shown_as_it_is_and_cut_to_one_paragraph() -> None:
    (row,) = rows(answers_table([info(text="[b]bold[/b]\n\n" + "x" * 500)]), width=300)
    assert row[1].startswith("[b]bold[/b] xxx")
    assert row[1].endswith("…")


def test_the_sla_table_counts_a_failed_job_as_a_broken_promise() -> None:
    infos = [
        info(priority="low", took_ms=90_000.0, target_ms=60_000),
        info(priority="urgent", took_ms=1_000.0, target_ms=3_000),
        info(priority="urgent", took_ms=2_000.0, target_ms=3_000),
        info(priority="urgent", error=REFUSED),
    ]
    assert rows(sla_table(infos)) == [
        ["urgent", "3", "3.00 s", "1.50 s", "2.00 s", "67%"],
        ["low", "1", "60.00 s", "90.00 s", "90.00 s", "0%"],
    ]


def test_a_level_without_any_completed_job_has_no_times() -> None:
    assert rows(sla_table([info(error=REFUSED)])) == [["high", "1", "–", "–", "–", "0%"]]


def test_the_stats_table_has_a_row_for_each_level() -> None:
    levels = [
        LevelStats(level="urgent", sla_ms=3_000),
        LevelStats(
            level="high", sla_ms=10_000, queued=1, processing=2, completed=4, sla_compliance=0.75, latency_p50_ms=5.0
        ),
    ]
    queue = QueueStats(
        is_running=True,
        total_jobs=7,
        queued_jobs=1,
        scheduled_jobs=0,
        processing_jobs=2,
        completed_jobs=4,
        failed_jobs=0,
        dead_letter_jobs=0,
        cancelled_jobs=0,
        expired_jobs=0,
        completed_per_s=Rates(),
        stale_outcomes=0,
        oldest_waiting_s=0.0,
        levels=levels,
        lanes=[],
        worker_pool_stats=WorkerPoolStats(),
    )
    assert rows(stats_table(queue)) == [
        ["urgent", "0", "0", "0", "3.00 s", "–", "–", "–"],
        ["high", "1", "2", "4", "10.00 s", "5 ms", "–", "75%"],
    ]


def test_tables_show_in_a_notebook() -> None:
    assert "text/html" in sla_table([info()])._repr_mimebundle_(include=(), exclude=())
