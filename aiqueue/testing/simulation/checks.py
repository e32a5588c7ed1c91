"""What must hold when the storm is over and all has been done."""

from __future__ import annotations

from typing import Any

from aiqueue.engine.core import Core
from aiqueue.testing.simulation.clients import SimulatedClient
from aiqueue.testing.simulation.promises import Promises
from aiqueue.testing.simulation.provider import Bill
from aiqueue.testing.simulation.system import QueueHost
from aiqueue.testing.simulation.world import World


def check_all(world: World, queue: QueueHost, promises: Promises, bill: Bill, clients: list[SimulatedClient]) -> None:
    """Note everything that does not hold."""
    for client in clients:
        if client.node.alive and client.busy:
            world.violated("client still waits", client.name, sorted(client.busy.values()))
    service = queue.service
    assert service is not None
    core = service._engine.core
    _check_jobs(world, promises, core)
    _check_bill(world, promises, bill, queue)
    _check_core(world, core)
    _check_batches(world, queue)
    _check_memory(world, queue)
    for problem in world.loop.problems:
        world.violated("nobody awaited", problem["message"], repr(problem["exception"]))


def _check_jobs(world: World, promises: Promises, core: Core) -> None:
    for job_id, how in promises.acked.items():
        job = core.live.get(job_id)
        if job is not None:
            world.violated("has not ended", how, job_id[-12:], job.state.value)
        elif job_id in promises.history.seqs and not promises.history.end_of(job_id):
            world.violated("accepted, not ended and not live", how, job_id[-12:])
    for job_id, job in core.live.items():
        if job_id not in promises.acked:
            world.violated("has not ended", "unacknowledged", job_id[-12:], job.state.value)


def _check_bill(world: World, promises: Promises, bill: Bill, queue: QueueHost) -> None:
    stored = queue.disk.jobs([job_id for job_id, count in bill.calls.items() if count > 1])
    for job_id, found in stored.items():
        crashes = _crashes(found.progress)
        if bill.calls[job_id] > 1 + bill.excused[job_id] + crashes:
            world.violated("paid too often", job_id[-12:], bill.calls[job_id], "excused", bill.excused[job_id], crashes)


def _crashes(progress: bytes) -> int:
    from aiqueue.engine.records import decode_progress

    return decode_progress(progress).crashes if progress else 0


def _check_core(world: World, core: Core) -> None:
    counters = core.counters
    numbers: dict[str, Any] = {"waiting": sum(core.waiting), "blocked": core.blocked}
    if any(numbers.values()):
        world.violated("counted though nothing is live", numbers)
    if min([0, *counters.ended.values()]) < 0 or min(core.waiting) < 0:
        world.violated("negative counter", counters.ended, core.waiting)
    for gate in core.gates:
        if gate.in_flight:
            world.violated("gate in flight", gate.in_flight)
    for worker in core.leases:
        if worker.held:
            world.violated("worker holds", worker.id, len(worker.held))


def _check_batches(world: World, queue: QueueHost) -> None:
    from aiqueue.engine.batch_records import decode_stored_batch

    disk = queue.disk._disk
    for number, (batch_id, _) in disk.batches.items():
        if number not in disk.batch_states:
            world.violated("batch without a state", batch_id)
            continue
        stored = decode_stored_batch(disk.batch_states[number][0])
        counts = stored.ended
        if min([0, *counts.values()]) < 0:
            world.violated("batch counts below zero", batch_id, dict(counts))
        elif not stored.ended_at:
            world.violated("batch has not ended", batch_id, stored.phase, "of", stored.total, dict(counts))
        elif sum(counts.values()) != stored.total:
            world.violated("batch counts do not add up", batch_id, dict(counts), "of", stored.total)


def _check_memory(world: World, queue: QueueHost) -> None:
    """Memory is what a restart would find, unless a commit is under way: a schedule's tick comes at any time."""
    service, clock = queue.service, queue.clock
    assert service is not None
    assert clock is not None
    if service._commits._waiting:
        return
    mine = service._engine.fingerprint()
    disk = queue.load(clock.now(), service._engine.core.counters.clock).fingerprint()
    for name, value in mine.items():
        if value != disk[name]:
            world.violated("memory is not disk", name, str(value)[:200], "on disk", str(disk[name])[:200])
