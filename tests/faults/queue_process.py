"""The queue and its journal as a process of their own, for tests that do to a process what none can do to itself.

Requests come as JSON lines on standard input, answers leave as JSON lines on standard output, each when it is due: many
may be under way. ``python -m tests.faults.queue_process JOURNAL HEARTBEAT_S [BUG]``: a bug is the id of a job and what
the engine can't do with it, ``bad:submit`` or ``bad:completed,failed``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiqueue.config import LeaseConfig
from aiqueue.errors import AIQueueError
from aiqueue.journal.sqlite import SqliteJournal
from aiqueue.protocol import EventsCall, ExchangeCall
from aiqueue.service.queue_service import QueueService
from aiqueue.testing.jobs import POOL, completed, group, settings, submission
from tests.tools.marked_engine import break_on

_FAULT = 70  # the exit status of a process that met a bug
Request = dict[str, Any]


class Operations:
    """What can be asked of the queue."""

    def __init__(self, service: QueueService) -> None:
        self._service = service

    async def submit(self, request: Request) -> Any:
        """Accept jobs with payloads of so many bytes."""
        jobs = [submission(job_id, payload=b"p" * request["payload"]) for job_id in request["ids"]]
        (refusal,) = await self._service.submit([group(*jobs)])
        return refusal.message if refusal else "accepted"

    async def submit_each(self, request: Request) -> Any:
        """Accept jobs in one call, each in a group of its own; return what refused each."""
        groups = [group(job_id, maybe_known=request["again"]) for job_id in request["ids"]]
        return [refusal.kind if refusal else "" for refusal in await self._service.submit(groups)]

    async def told(self, request: Request) -> Any:
        """Return how often the process was started again, and why; and the names of the events since its start."""
        stats = self._service.stats().adapter
        await self._service.get_jobs([])  # what is told is on disk
        call = EventsCall("watcher", request["after"], all_owners=True, wait_s=0.0)
        names = [event.name for event in (await self._service.events(call)).events]
        return [stats.restarts, stats.restart_reason, names]

    async def claim(self, request: Request) -> Any:
        """Give a worker jobs."""
        call = ExchangeCall(request["worker"], POOL, request["slots"])
        return [[job.job_id, job.attempt] for job in (await self._service.exchange(call)).claims]

    async def complete(self, request: Request) -> Any:
        """Take a worker's results; it wants nothing more."""
        outcomes = [completed(job_id, attempt) for job_id, attempt in request["jobs"]]
        await self._service.exchange(ExchangeCall(request["worker"], POOL, 0, outcomes))
        return "taken"

    async def look(self, request: Request) -> Any:
        """Return state and attempt of jobs; None for those unknown."""
        views = await self._service.get_jobs(request["ids"])
        return [[view.status, view.attempt] if view else None for view in views]

    async def stats(self, request: Request) -> Any:
        """Return the totals."""
        stats = self._service.stats().adapter
        return {"total": stats.total_jobs, "queued": stats.queued_jobs, "processing": stats.processing_jobs}


async def answer(ask: Callable[[Request], Awaitable[Any]], request: Request) -> None:
    """Do what was asked and say what came of it."""
    try:
        said = {"answer": await ask(request)}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    tell({"number": request["number"], **said})


def tell(message: dict[str, Any]) -> None:
    """Write one line, in one call to the system."""
    os.write(1, f"{json.dumps(message)}\n".encode())


async def serve(path: Path, heartbeat_s: float, bug: str = "") -> None:
    """Answer until the input ends; then close the journal."""
    config = settings().model_copy(update={"lease": LeaseConfig(heartbeat_s=heartbeat_s, missed_heartbeats=2)})
    service = QueueService(config, SqliteJournal(path), end=lambda: os._exit(_FAULT))
    if bug:
        job_id, _, what = bug.partition(":")
        break_on(service._engine, job_id, what.split(","), submit=what == "submit")
    operations = Operations(service)
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    tell({"number": 0, "answer": os.getpid()})
    running: set[asyncio.Task[None]] = set()
    while line := await lines.get():
        request = json.loads(line)
        task = asyncio.create_task(answer(getattr(operations, request["ask"]), request))
        running.add(task)
        task.add_done_callback(running.discard)
    await operations._service.close()


if __name__ == "__main__":
    try:
        asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]))
    except AIQueueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
