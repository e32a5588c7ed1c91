"""The parts of the demo that need no Ray."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from rich.console import Console

from aiqueue.cli.demo import DemoProvider, DemoRun, check, demo_settings, report, wait_for
from aiqueue.cli.demo_http import HttpSubmitter
from aiqueue.cli.demo_progress import demo_progress
from aiqueue.cli.demo_prompts import SHIPPED_PROMPTS, DemoJob, make_jobs, read_prompts
from aiqueue.errors import AIQueueError, JobError, QueueUnavailable, ValidationError
from aiqueue.levels import LEVELS
from aiqueue.validation import validate_job_payload
from aiqueue.views import ErrorInfo, JobInfo
from tests.unit.client.test_display import info

JOB = DemoJob("0198aaaa-0000-7000-8000-000000000000", "high", {"messages": [{"role": "user", "content": "Why?"}]})


# --- prompts ---


def test_the_shipped_prompts_are_many_of_all_levels_and_valid() -> None:
    lines = read_prompts(SHIPPED_PROMPTS)
    jobs = make_jobs(lines, [str(number) for number in range(len(lines))], provider="local", model="m")
    assert len(jobs) >= 24
    assert len({job.prompt for job in jobs}) == len(jobs)
    assert set(Counter(job.priority for job in jobs)) == {level.value for level in LEVELS}
    for job in jobs:
        assert validate_job_payload(job.payload).config.max_tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"prompt": "a"}\n{"priority": "now", "prompt": "b"}', "line 2.priority"),
        ('{"prompt": "a", "max_tokens": 3}', "line 1.max_tokens"),
        ('{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}', "either prompt or messages"),
        ("{}", "either prompt or messages"),
        ("Why?", "line 1"),
        ("\n\n", "holds no prompt"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(ValidationError, match=expected):
        read_prompts(file)


# --- submitting ---


class Server:
    """Answers each request with the next of ``answers``, and with 202 after the last."""

    def __init__(self, *answers: int | Exception) -> None:
        self._answers = list(answers)
        self.bodies: list[dict[str, Any]] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(request.content))
        answer = self._answers.pop(0) if self._answers else 202
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, json={"detail": "no such model"})

    def client(self, patience_s: float = 60.0) -> HttpSubmitter:
        """Return a submitter that speaks to this server and notes how long it would wait."""
        transport = httpx.MockTransport(self)
        return HttpSubmitter("http://demo", patience_s=patience_s, transport=transport, sleep=self.waits.append)


def test_a_submit_is_sent_again_under_its_id_until_it_is_accepted() -> None:
    server = Server(503, httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), 429)
    server.client().submit(JOB, {"timeout": 1_000})
    assert len(server.bodies) == 5
    assert {body["options"]["jobId"] for body in server.bodies} == {JOB.id}
    assert server.bodies[0] == {
        "payload": JOB.payload,
        "priority": "high",
        "options": {"timeout": 1_000, "jobId": JOB.id},
    }
    assert server.waits == [0.2, 0.4, 0.8, 1.6]


def test_a_refused_submit_is_not_sent_again() -> None:
    server = Server(400)
    with pytest.raises(AIQueueError, match="no such model"):
        server.client().submit(JOB, {})
    assert len(server.bodies) == 1


def test_a_server_that_never_answers_is_given_up() -> None:
    server = Server(*[httpx.ConnectError("refused")] * 99)
    with pytest.raises(QueueUnavailable, match="within 5 s: ConnectError"):
        server.client(patience_s=5.0).submit(JOB, {})
    assert sum(server.waits) < 10


# --- waiting ---


class Ends:
    """An adapter whose jobs end as told; ``failures`` calls of it get no answer, after the first job has ended."""

    def __init__(self, failures: int = 0) -> None:
        self._failures = failures

    def wait_all(self, job_ids: Sequence[str], on_end: Callable[[JobInfo], None] | None = None) -> list[JobInfo]:
        infos = [info(job_id) for job_id in job_ids]
        assert on_end is not None
        on_end(infos[0])
        if self._failures:
            self._failures -= 1
            raise QueueUnavailable("the queue actor is restarting")
        for ended in infos[1:]:
            on_end(ended)
        return infos


def test_each_end_is_told_once_though_the_queue_restarts() -> None:
    told: list[str] = []
    infos = wait_for(Ends(failures=1), ["a", "b"], lambda ended: told.append(ended.job_id), limit_s=30)
    assert told == [ended.job_id for ended in infos] == ["a", "b"]


def test_the_wait_ends_at_its_limit_with_what_there_is() -> None:
    forever = Event()

    class Slow(Ends):
        def wait_all(self, job_ids: Sequence[str], on_end: Callable[[JobInfo], None] | None = None) -> list[JobInfo]:
            super().wait_all(job_ids[:1], on_end)
            forever.wait()
            return []

    try:
        assert [ended.job_id for ended in wait_for(Slow(), ["a", "b"], lambda _: None, limit_s=0.05)] == ["a"]
    finally:
        forever.set()


# --- the end ---


def run_of(*infos: JobInfo, jobs: int = 2) -> DemoRun:
    """Return a run of jobs ``a``, ``b`` ... of which ``infos`` have ended."""
    return DemoRun([DemoJob(name, "high", JOB.payload) for name in "abcd"[:jobs]], list(infos), 2.0)


def test_a_run_whose_jobs_all_completed_passes() -> None:
    check(run_of(info("b"), info("a")), accepted=2)


@pytest.mark.parametrize(
    ("run", "accepted", "expected"),
    [
        (run_of(info("a")), 2, "1 of 2 jobs did not complete, first b: still waiting"),
        (run_of(info("a", error=ErrorInfo(kind="x", message="no model", retryable=False))), 2, "first a: no model"),
        (run_of(info("a"), info("b")), 3, "2 jobs were sent, but the queue accepted 3"),
    ],
)
def test_a_run_that_is_not_whole_says_what_is_missing(run: DemoRun, accepted: int, expected: str) -> None:
    with pytest.raises(JobError, match=expected):
        check(run, accepted)


def test_the_report_has_answers_times_and_rates() -> None:
    out = Console(file=io.StringIO(), width=120)
    report(run_of(info("b"), info("a")), out)
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    for part in ("Why?", "answer of a", "SLA", "100%", "2 jobs and 14 generated tokens in 2.0 s: 1.00 jobs/s, 7.0"):
        assert part in printed


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_counts_every_job(terminal: bool) -> None:
    out = Console(file=io.StringIO(), width=80, force_terminal=terminal)
    run = run_of(info("a"), info("b"))
    with demo_progress(out, run.jobs) as progress:
        for ended in run.infos:
            progress.ended(ended)
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    assert ("2/2" in printed) is True
    assert ("[1/2] high" in printed) is not terminal


# --- settings ---


def test_a_demo_has_a_system_of_its_own(tmp_path: Path) -> None:
    model = tmp_path / "small.gguf"
    model.write_bytes(b"GGUF")
    found = demo_settings(DemoProvider.LOCAL, str(model), tmp_path, {}.get)
    assert found.namespace.startswith("aiqueue-demo-")
    assert found.journal.path.parent == tmp_path
    assert (found.http.host, found.http.port) == ("127.0.0.1", 0)
    assert found.providers["local"].models == ("small",)
    assert set(found.pools) == {"local"}


@pytest.mark.parametrize("provider", [DemoProvider.OPENAI, DemoProvider.ANTHROPIC])
def test_a_remote_provider_needs_its_key_and_has_a_default_model(provider: DemoProvider, tmp_path: Path) -> None:
    variable = f"{provider.upper()}_API_KEY"
    with pytest.raises(ValidationError, match=variable):
        demo_settings(provider, None, tmp_path, {}.get)
    found = demo_settings(provider, None, tmp_path, {variable: "key"}.get)
    assert list(found.providers) == [provider.value]
    assert len(found.providers[provider.value].models) == 1
    named = demo_settings(provider, "other", tmp_path, {variable: "key"}.get)
    assert named.providers[provider.value].models == ("other",)


def test_a_model_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"missing\.gguf"):
        demo_settings(DemoProvider.LOCAL, str(tmp_path / "missing.gguf"), tmp_path, {}.get)
