"""Groups that are accepted whole, in one step and one commit, however large they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import isqrt

from msgspec.structs import replace

from aiqueue.engine.dependencies import MAX_EDGES, MAX_NEEDS
from aiqueue.ids import ids_from, new_job_ids
from aiqueue.orchestrator.graphs import graph_in_parts
from aiqueue.protocol import BatchSpec, Need, Submission, SubmitGroup
from aiqueue.submit_format import encode_groups, receive_in_parts
from aiqueue.testing.jobs import chat, header
from aiqueue.waiting import in_parts
from benchmarks.stall_stage import PAYLOAD, Case, Stage, Steps, jobs_of, parts_of, steps_of

_CHAT = chat("Hello")


async def _accept_a_chain(stage: Stage, size: int) -> Steps:
    chain = SubmitGroup(list(steps_of("chain", new_job_ids(size))), batch=BatchSpec("chain", "chain"))
    yield
    await stage.send(chain)


async def _accept_a_list(stage: Stage, size: int) -> Steps:
    jobs = list(jobs_of(ids_from(new_job_ids(1)[0], size), header()))
    jobs[0].header = replace(jobs[0].header, idempotency_key="scope:key")
    sent = encode_groups([SubmitGroup(jobs)])
    yield
    await stage.send(*(await in_parts(receive_in_parts(sent))).groups)
    await stage.quiet()


async def _a_list_again(stage: Stage, size: int) -> Steps:
    jobs = list(jobs_of(ids_from(new_job_ids(1)[0], size), header()))
    jobs[0].header = replace(jobs[0].header, idempotency_key="scope:key")
    await stage.send(SubmitGroup(jobs))
    await stage.quiet()
    yield
    await stage.send(SubmitGroup(jobs, maybe_known=True))


def _full_graph(edges: int) -> SubmitGroup:
    """Return a graph in which each job needs all that come before it; ``edges``: how many at most."""
    ids = new_job_ids((1 + isqrt(1 + 8 * edges)) // 2)
    jobs = [
        Submission(
            job_id,
            replace(header(batch_id="graph"), index=at, needs=_all_of(ids[:at]), on_error="fail" if at else ""),
            PAYLOAD,
        )
        for at, job_id in enumerate(ids)
    ]
    return SubmitGroup(jobs, batch=BatchSpec("graph", "graph"))


def _all_of(ids: Sequence[str]) -> tuple[Need, ...]:
    return tuple(Need(job_id, (f"steps.{at}", f"steps.n{at}")) for at, job_id in enumerate(ids))


async def _accept_a_full_graph(stage: Stage, size: int) -> Steps:
    sent = encode_groups([_full_graph(size)])
    yield
    await stage.send(*(await in_parts(receive_in_parts(sent))).groups)


async def _make_a_full_graph(stage: Stage, size: int) -> Steps:
    count = (1 + isqrt(1 + 8 * size)) // 2
    nodes = {f"n{at}": {"payload": _CHAT, "depends_on": [f"n{n}" for n in range(at)]} for at in range(count)}
    yield
    graph = await in_parts(graph_in_parts(nodes))
    await in_parts(graph.needs_in_parts([step.name for step in graph.steps]))


async def _cancel_in_a_full_graph(stage: Stage, size: int) -> Steps:
    graph = _full_graph(size)
    await stage.send(graph)
    yield
    await stage.service.cancel([graph.jobs[0].id])
    await stage.no_live()


def _over_others(name: str, ids: Sequence[str], each: int) -> SubmitGroup:
    """Return a graph whose jobs need ``each`` of these jobs of others."""
    jobs = [
        Submission(
            job_id,
            replace(header(batch_id=name), index=at, needs=tuple(map(Need, needed)), on_error="fail"),
            PAYLOAD,
        )
        for at, (job_id, needed) in enumerate(zip(new_job_ids(len(ids)), parts_of(ids, each), strict=False))
    ]
    return SubmitGroup(jobs, batch=BatchSpec(name, "graph"))


async def _accept_over_others(stage: Stage, size: int) -> Steps:
    ids = await stage.submit(size)
    await stage.send(_over_others("first", ids, MAX_NEEDS - 1))
    yield
    await stage.send(_over_others("second", ids, MAX_NEEDS - 1))


async def _accept_over_failed(stage: Stage, size: int) -> Steps:
    ids = await stage.submit(size)
    await stage.service.cancel(ids)
    graph = _over_others("graph", ids, 2)
    yield
    await stage.send(graph)
    await stage.no_live()


async def _many_fan_ins_in_a_call(stage: Stage, size: int, *, keyed: bool = False) -> Steps:
    ids = await stage.submit(990)
    made = [_over_others(f"fan-in-{at}", ids, len(ids)) for at in range(size // len(ids))]
    for fan_in in made if keyed else ():
        first = fan_in.jobs[0]
        first.header = replace(first.header, idempotency_key=f"scope:{first.id}")
    yield
    await stage.send(*made)


def _many_keyed_fan_ins_in_a_call(stage: Stage, size: int) -> Steps:
    return _many_fan_ins_in_a_call(stage, size, keyed=True)


async def _refuse_a_chain(stage: Stage, size: int) -> Steps:
    await stage.chain("chain", 2)
    chain = SubmitGroup(list(steps_of("chain", new_job_ids(size))), batch=BatchSpec("chain", "chain"))
    yield
    (refusal,) = await stage.service.submit([chain])
    assert refusal
    assert refusal.kind == "duplicate_batch", refusal


async def _chain_beside_a_drop(stage: Stage, size: int) -> Steps:
    await stage.open_batch(10_000)
    chain = SubmitGroup(list(steps_of("chain", new_job_ids(size))), batch=BatchSpec("chain", "chain"))
    yield
    drop = asyncio.create_task(stage.steer("drop"))
    await asyncio.sleep(0)
    await stage.send(chain)
    await drop


GROUP_CASES = (
    Case("accept a chain", _accept_a_chain, 100_000),
    Case("accept a list with a key", _accept_a_list, 240_000),
    Case("the same list again", _a_list_again, 240_000),
    Case("make a graph whose edges are all there can be", _make_a_full_graph, MAX_EDGES),
    Case("accept a graph whose edges are all there can be", _accept_a_full_graph, MAX_EDGES),
    Case("cancel its first job", _cancel_in_a_full_graph, MAX_EDGES),
    Case("accept a second graph over the same jobs of others", _accept_over_others, MAX_EDGES - 10),
    Case("accept a graph over cancelled jobs of others", _accept_over_failed, MAX_EDGES),
    Case("many fan-ins in a call", _many_fan_ins_in_a_call, 400_000),
    Case("many fan-ins with keys in a call", _many_keyed_fan_ins_in_a_call, 400_000),
    Case("refuse a chain whose id is used", _refuse_a_chain, 100_000),
    Case("accept a chain while a batch is dropped", _chain_beside_a_drop, 100_000),
)
