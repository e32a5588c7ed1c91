"""Clients that map rows: runs that others take over, rows that come late, and runs that are begun again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiqueue.client.adapter import AnyPayload
from aiqueue.errors import JobNotFound, ValidationError
from aiqueue.orchestrator.rows import Chunked
from aiqueue.testing.jobs import chat
from aiqueue.testing.simulation.clients import SimulatedClient
from aiqueue.testing.simulation.promises import Promises

LATE_S = 700.0  # longer than the queue waits for the next part of a batch whose submitter says nothing
LATE_RUN = "run-late"
_RUNS = ("run-a", "run-b")
_ROWS = ("row 1", "row 2", "row 3", "row 4", "bad row")


async def map_rows(client: SimulatedClient) -> None:
    """Map rows under a run id that others use too."""
    draws = client.world.draws
    rows = draws.sample(_ROWS, draws.randint(2, 5))
    await _map(client, draws.choice(_RUNS), rows, draws.choice((0.0, 0.25, 2.0)))


async def map_late_rows(client: SimulatedClient) -> None:
    """Map rows that come so slowly that the queue would have given up a silent submitter."""
    await _map(client, LATE_RUN, ["row 1", "row 2", "row 3"], LATE_S)


class _SlowRows(Chunked):
    """Rows that come one by one."""

    def __init__(self, rows: list[str], wait_s: float) -> None:
        self._rows, self._wait_s = rows, wait_s

    async def chunks(self) -> AsyncIterator[list[AnyPayload]]:
        """Yield the rows."""
        yield [chat(self._rows[0])]
        for row in self._rows[1:]:
            await asyncio.sleep(self._wait_s)
            yield [chat(row)]


async def _map(client: SimulatedClient, run_id: str, rows: list[str], wait_s: float) -> None:
    promises = client.promises
    promises.runs[run_id] = promises.runs.get(run_id, 0) + 1
    try:
        async for row in client.made.map(_SlowRows(rows, wait_s), run_id=run_id, max_retries=0):
            promises.accepted("map", row.job.job_id)
            if row.job.status == "completed":
                _check_done(promises, f"{run_id} {row.key}", row.job.job_id)
    except ValidationError as error:
        if promises.runs[run_id] == 1:
            promises.world.violated("map was told of another program", run_id, str(error))
    except JobNotFound as error:
        is_aged = error.job_id in promises.history.aged  # by a clock that was a year ahead
        if not (promises.forgets or is_aged) and promises.runs[run_id] == 1:
            promises.world.violated("a row's job is unknown", run_id, str(error))


def _check_done(promises: Promises, row: str, job_id: str) -> None:
    known = promises.done_rows.setdefault(row, job_id)
    if known != job_id and known in promises.history.seqs:
        promises.world.violated("a row that was done is run again", row, known[-12:], job_id[-12:])
