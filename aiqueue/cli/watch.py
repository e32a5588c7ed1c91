"""``aiqueue watch``: what happens, as it happens."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Annotated

import typer

from aiqueue.cli.joining import Address, Namespace, joined
from aiqueue.client.display import duration
from aiqueue.client.listeners import ALL, JobEvent
from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.errors import JobNotFound, QueueUnavailable
from aiqueue.protocol import END_STATES
from aiqueue.views import JobInfo

commands = typer.Typer()

_LOOK_S = 5.0  # an event may be gone from the log before we read it; the job itself is looked at this often


@commands.command()
def watch(
    ctx: typer.Context,
    job_id: Annotated[str | None, typer.Argument(help="Only this job, until it ends.", metavar="[ID]")] = None,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Print events as they happen, of all jobs or of one; Ctrl-C ends it."""
    with joined(ctx, namespace, address) as queue, suppress(KeyboardInterrupt):
        events: SimpleQueue[JobEvent] = SimpleQueue()
        queue.adapter.on(ALL, events.put)
        if job_id is None:
            _follow_all(events)
        else:
            _follow_one(queue.adapter, events, job_id)


def event_line(event: JobEvent) -> str:
    """Return ``event`` as a line: when, what, which job, and what came of it."""
    job = event.job
    parts = [f"{event.name.removeprefix('job:'):12}", job.job_id, f"{job.priority:7}", f"{job.provider}/{job.model}"]
    return "  ".join([*parts, *_details(job)])


def _follow_all(events: SimpleQueue[JobEvent]) -> None:
    while True:
        _print(event_line(events.get()))


def _follow_one(adapter: AIQueueAdapter, events: SimpleQueue[JobEvent], job_id: str) -> None:
    info = adapter.get_job_status(job_id)
    if info is None:
        raise JobNotFound(job_id)
    _print(f"{info.status:12}  {info.job_id}  {info.priority:7}  {info.provider}/{info.model}")
    while info.status not in END_STATES:
        try:
            event = events.get(timeout=_LOOK_S)
        except Empty:
            with suppress(QueueUnavailable):  # it restarts; its events go on afterwards
                info = adapter.get_job_status(job_id) or info
            continue
        if event.job_id == job_id:
            info = event.job
            _print(event_line(event))


def _details(job: JobInfo) -> list[str]:
    found = [f"attempt {job.attempt}"] if job.attempt > 1 else []
    if job.sla_compliance:
        found.append(f"{duration(job.sla_compliance.actual_ms)}{'' if job.sla_compliance.met else ' (SLA missed)'}")
    if job.result:
        found.append(f"{job.result.tokens} tokens")
    if job.error:
        found.append(f"{job.error.kind}: {job.error.message}")
    return found


def _print(line: str) -> None:
    typer.echo(f"{datetime.now():%H:%M:%S.%f}"[:-3] + f"  {line}")
