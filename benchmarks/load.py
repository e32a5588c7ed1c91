"""Urgent jobs that meet a backlog, and many jobs that only wait for their provider."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from statistics import median

from aiqueue.launch import System
from benchmarks.harness import PAYLOAD, Figure, at, client, system
from benchmarks.throughput import drained

_BACKLOG, _URGENT, _EVERY_S = 5_000, 100, 0.02
_WAITING, _WAIT_S, _SLOTS, _RUNS = 2_000, 0.2, 256, 7


def run() -> Iterator[Figure]:
    """Yield the figures."""
    for name, reserved in (("urgent under load", 0), ("urgent under load, a slot kept for urgent", 1)):
        with system(slots=8, pool={"urgent_slots": reserved}) as running:
            ended, known = asyncio.run(_urgent(running))
        yield Figure(name=f"{name}, ended, p50", value=at(ended, 0.5), unit="ms", floor="11", peer="7.9")
        yield Figure(name=f"{name}, ended, p99", value=at(ended, 0.99), unit="ms", floor="20", peer="15.2")
        yield Figure(name=f"{name}, result at the client, p50", value=at(known, 0.5), unit="ms")
        yield Figure(name=f"{name}, result at the client, p99", value=at(known, 0.99), unit="ms")
    with system(slots=_SLOTS) as running:
        runs = [asyncio.run(_waiting(running)) for _ in range(_RUNS)]
    ideal = _SLOTS / _WAIT_S
    since_claim, since_submit = (median(rates) for rates in zip(*runs, strict=True))
    yield Figure(name="waiting jobs", value=since_claim, unit="jobs/s", floor="1,178", peer="1,127")
    with system(slots=_SLOTS, workers=0) as running:
        payload = {**PAYLOAD, "provider": "waiting"}
        backlog = median(asyncio.run(drained(running, payload, _WAITING)) for _ in range(_RUNS))
    for name, rate, peer in (
        ("waiting jobs", since_claim, "88"),
        ("waiting jobs, from the submit", since_submit, "72"),
        ("waiting jobs queued before a new worker, as the peers'", backlog, "88"),
    ):
        yield Figure(name=f"{name}, of the ideal", value=100 * rate / ideal, unit="%", floor="92", peer=peer)


async def _urgent(running: System) -> tuple[list[float], list[float]]:
    """Times from submit, sorted, in ms, while a backlog of low jobs keeps all slots busy.

    Until the queue notes the job's end (a call after its handler returned, so a little more than what peers count), and
    until its client has the result.
    """
    payload = {**PAYLOAD, "provider": "five_ms"}
    async with client(running) as adapter:
        await adapter.submit_job_with_callback(payload)  # the worker's start is no part of this
        await adapter.submit_jobs([payload] * _BACKLOG, {"priority": "low"})

        async def one() -> tuple[str, float, float]:
            submitted, started = time.time(), time.perf_counter()
            result = await adapter.submit_job_with_callback(payload, {"priority": "urgent"})
            return result.response.id or "", submitted, (time.perf_counter() - started) * 1e3

        tasks = []
        for _ in range(_URGENT):
            tasks.append(asyncio.ensure_future(one()))
            await asyncio.sleep(_EVERY_S)
        ids, submitted, known = zip(*await asyncio.gather(*tasks), strict=True)
        jobs = await adapter.get_jobs(ids)
    ends = [job.finished_at.timestamp() for job in jobs if job is not None and job.finished_at is not None]
    return sorted((end - begin) * 1e3 for begin, end in zip(submitted, ends, strict=True)), sorted(known)


async def _waiting(running: System) -> tuple[float, float]:
    """Jobs per second of 200 ms each on one worker with 256 slots, until the last result is in the submitter's hands.

    From the first claim, as for a backlog (the peers' figures begin when the first handler does), and from the submit.
    """
    payload = {**PAYLOAD, "provider": "waiting"}
    async with client(running) as adapter:
        await adapter.submit_job_with_callback(payload)  # the worker's start is no part of this
        submitted = time.time()
        infos = await adapter.wait_all(await adapter.submit_jobs([payload] * _WAITING))
        finished = time.time()
    claimed = min(info.started_at.timestamp() for info in infos if info.started_at)
    return _WAITING / (finished - claimed), _WAITING / (finished - submitted)
