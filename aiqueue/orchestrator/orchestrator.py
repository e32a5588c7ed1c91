"""The asynchronous orchestrator. `sync_orchestrator` has the same for programs without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from aiqueue.batch_protocol import BatchCall, ResultsCall, ResultsReply
from aiqueue.batch_views import BatchInfo, BatchResult, GraphInfo, batch_info, graph_info, results_of
from aiqueue.client import given
from aiqueue.client.adapter import AnyPayload, AsyncAIQueueAdapter
from aiqueue.client.headers import DEFAULT_SCOPE, scoped_key
from aiqueue.errors import StartError
from aiqueue.ids import id_of, ids_from, new_id, new_job_ids
from aiqueue.models import MAX_COUNT, BatchOptions, GraphOptions
from aiqueue.orchestrator import mapping
from aiqueue.orchestrator.graphs import Graph, chain_in_parts, check_fan_in, graph_in_parts
from aiqueue.orchestrator.handles import (
    FanOut,
    JobChain,
    JobGraph,
    Options,
    checked_inputs,
    for_batch,
    for_graph,
    schedule_of,
    take_stop_flag,
)
from aiqueue.orchestrator.rows import AnyRows, chunks_of
from aiqueue.orchestrator.submitting import Linked, PartSender, options_of, submit_linked
from aiqueue.orchestrator.waiting import wait_for
from aiqueue.protocol import JobView, Need
from aiqueue.views import OrchestratorStats
from aiqueue.waiting import in_parts

_PAGE = 500
_WAIT_S = 20.0  # of one poll for results
_LOOK_S = (0.02, 0.5)  # first and longest wait between looks at what has not ended


class AsyncAIJobOrchestrator:
    """Batches, chains, fan-out and fan-in, graphs, over a started adapter. Usable as an async context manager."""

    def __init__(self, adapter: AsyncAIQueueAdapter) -> None:
        self._adapter = adapter
        self._started = False

    async def start(self) -> None:
        """Check that the adapter is started. Raises StartError."""
        _ = self._adapter.session
        self._started = True

    async def stop(self) -> None:
        """Let go. Batches and chains go on without this process."""
        self._started = False

    async def __aenter__(self) -> AsyncAIJobOrchestrator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def get_stats(self) -> OrchestratorStats:
        """Return how many batches, chains and graphs there were and are, and how many schedules."""
        return (await self._adapter.get_system_stats()).orchestrator

    # --- schedules; all that can be done with them is in ``adapter.schedules`` ---

    async def schedule_job(
        self, payload: AnyPayload, name: str | Mapping[str, Any], cron_expression: str = "", **rules: Any
    ) -> str:
        """Return the id of a schedule that submits ``payload`` again and again; ``rules`` as in ScheduleClient.add.

        All of it may be one dict too, in place of the name: ``{"name": …, "cronExpression": …, "priority": …}``.
        """
        definition, key = schedule_of(name, cron_expression, rules)
        return str(await self._adapter.schedules.put(payload, definition, idempotency_key=key))

    async def cancel_schedule(self, schedule_id: str) -> None:
        """Let a schedule fire no more. Jobs that it has submitted go on. Raises ScheduleNotFound."""
        await self._adapter.schedules.remove(schedule_id)

    # --- batches ---

    async def submit_batch_job(self, jobs: AnyRows, options: Options = None, **more: Any) -> str:
        """Return the id of a batch once all of it is on the queue's disk.

        ``jobs``: payloads in a list or an iterator (asynchronous ones too), or the path of a JSONL file; read and sent
        in parts, and nothing runs or is seen before all of it is there. Options: those of jobs, and ``name``,
        ``max_concurrency``, ``fail_fast``, ``max_failed_ratio``. Raises ValidationError with the index of each bad row,
        and leaves nothing.
        """
        return (await self._submit_rows(jobs, options, more, keep_ids=False)).batch_id

    async def fan_out(self, jobs: AnyRows, options: Options = None, **more: Any) -> FanOut:
        """Submit jobs that run beside each other; return the batch's id and theirs. As ``submit_batch_job``."""
        return await self._submit_rows(jobs, options, more, keep_ids=True)

    async def get_batch_job_status(self, batch_id: str, *, results: bool = False) -> BatchInfo:
        """Return how a batch stands, at the same cost whatever its size; ``results``: with all that have ended.

        Raises BatchNotFound.
        """
        info = await self._ask(batch_id, "status")
        if results:
            info.results = [each async for each in self.iter_results(batch_id, wait=False)]
        return info

    async def wait_batch(self, batch_id: str) -> BatchInfo:
        """Wait until all jobs of a batch have ended."""
        wait = _LOOK_S[0]
        while not (info := await self._ask(batch_id, "status")).has_ended:
            await asyncio.sleep(wait)
            wait = min(_LOOK_S[1], wait * 1.5)
        return info

    async def iter_results(
        self, batch_id: str, *, after: int = 0, ordered: bool = True, wait: bool = True
    ) -> AsyncIterator[BatchResult]:
        """Yield what the jobs of a batch came to, a page at a time.

        ``ordered``: in the order they were submitted; else as they end (one that was retried comes again). ``wait``
        for those that have not ended, or stop at the first of them. ``after`` goes on where a ``BatchResult.after``
        left off.
        """
        after = given.number("after", after)
        while True:
            reply = await self._results(batch_id, after, ordered=ordered, wait_s=_WAIT_S if wait else 0.0)
            moved, is_last = reply.after > after, reply.is_last
            for result in results_of(reply, after, ordered=ordered):
                yield result
            after = reply.after
            if is_last or not (wait or moved):
                return

    async def results_page(
        self, batch_id: str, after: int = 0, *, limit: int = _PAGE, ordered: bool = True
    ) -> tuple[list[BatchResult], int, bool]:
        """Return some results that are there, the cursor behind them, and whether no more will follow."""
        limit, after = given.number("limit", limit, least=1, most=MAX_COUNT), given.number("after", after)
        reply = await self._results(batch_id, after, ordered=ordered, limit=limit)
        return results_of(reply, after, ordered=ordered), reply.after, reply.is_last

    async def cancel_batch_job(self, batch_id: str) -> BatchInfo:
        """Stop a batch, its running jobs too. What is done is kept."""
        return await self._ask(batch_id, "cancel")

    async def pause_batch_job(self, batch_id: str) -> BatchInfo:
        """Start no more jobs of a batch; those that run go on."""
        return await self._ask(batch_id, "pause")

    async def resume_batch_job(self, batch_id: str) -> BatchInfo:
        """Undo ``pause_batch_job``."""
        return await self._ask(batch_id, "resume")

    async def retry_failed(
        self, batch_id: str, *, idempotency_key: str | None = None, scope: str = DEFAULT_SCOPE
    ) -> BatchInfo:
        """Start new jobs in the place of those that failed; ``retried`` in the answer says how many.

        Steps of a chain that did not run since one before them failed are started again too. A second call with the
        same ``idempotency_key`` has the first one's answer, until the queue is restarted. ``scope`` says whose key it
        is. Raises BatchNotFound, and ValidationError for a key that is too long or holds control characters.
        """
        batch_id, key = given.text("batch_id", batch_id), scoped_key(idempotency_key, scope)
        token = id_of("retry", key, batch_id) if key else new_id("retry")  # clear: a key has no separator of words
        call = BatchCall(batch_id, "retry_failed", token=token)
        return batch_info(await self._adapter.session.transport.batch(call))

    async def map(
        self, rows: AnyRows, *, run_id: str, key: mapping.Key | None = None, options: Options = None, **more: Any
    ) -> AsyncIterator[mapping.MapResult]:
        """Run rows and yield what each came to, in order; what ``run_id`` has completed before is not run again.

        ``key(row)`` tells rows apart (default: a hash of the payload). Jobs that run already are waited for; those that
        failed are tried again. Raises ValidationError for a key that comes twice.
        """
        call = mapping.Mapping(self._adapter, run_id, key, options_of(BatchOptions, for_batch(options), more))
        async for result in call.results(rows):
            yield result

    # --- chains and graphs ---

    async def create_job_chain(
        self,
        steps: Sequence[Any],
        options: Options = None,
        *,
        stop_on_error: bool = True,
        idempotency_key: str | None = None,
        scope: str = DEFAULT_SCOPE,
        **more: Any,
    ) -> JobChain:
        """Submit jobs that run one after the other; return their ids.

        A step is a payload, or ``{"name": …, "payload": …}``. It may use what came before: ``{{previous.content}}``,
        ``{{steps[0].content}}``, ``{{steps.name.json.items}}``. ``stop_on_error=False`` goes on after a failed step,
        with the error as the next one's input.

        With the same ``idempotency_key`` and the same steps and options it is the first chain, whose ids are returned;
        with others, IdempotencyConflict. ``scope`` says whose key it is.
        """
        options, stop_on_error = take_stop_flag(options, stop_on_error)
        graph = await in_parts(chain_in_parts(steps, stop_on_error=stop_on_error))
        key = scoped_key(idempotency_key, scope)
        chain_id, ids = await self._submit_graph("chain", graph, options, more, key)
        return JobChain(chain_id, ids)

    async def submit_graph(
        self,
        nodes: Mapping[str, Any],
        options: Options = None,
        *,
        idempotency_key: str | None = None,
        scope: str = DEFAULT_SCOPE,
        **more: Any,
    ) -> JobGraph:
        """Submit jobs that wait for each other: ``{name: {"payload": …, "depends_on": [names], "on_error": "fail"}}``.

        ``on_error``: what a job does when one that it needs did not complete: ``fail``, ``skip`` that one, or
        ``include`` its error. A node may need 10,000 others at most, and all nodes together 100,000. Raises
        ValidationError for more, for unknown names and for cycles. ``idempotency_key``, ``scope``: as for a chain.
        """
        graph, key = await in_parts(graph_in_parts(nodes)), scoped_key(idempotency_key, scope)
        graph_id, ids = await self._submit_graph("graph", graph, options, more, key)
        return JobGraph(graph_id, {step.name: job_id for step, job_id in zip(graph.steps, ids, strict=True)})

    async def get_graph_status(self, graph_id: str) -> GraphInfo:
        """Return how a chain or a graph stands, step by step. Raises BatchNotFound."""
        transport, graph_id = self._adapter.session.transport, given.text("graph_id", graph_id)
        view = await transport.batch(BatchCall(graph_id))
        jobs: list[JobView] = []
        after, is_last = 0, False
        while not is_last:
            reply = await transport.batch_results(ResultsCall(graph_id, after, _PAGE, with_live=True))
            jobs += reply.jobs
            after, is_last = reply.after, reply.is_last or reply.after == after
        return graph_info(view, jobs)

    async def to_mermaid(self, graph_id: str) -> str:
        """Return a picture of a chain or a graph, its steps coloured by their states."""
        return (await self.get_graph_status(graph_id)).to_mermaid()

    # --- fan-in ---

    async def fan_in(
        self,
        job_ids: Sequence[str],
        fn: Callable[[list[Any]], Any],
        *,
        on_error: str = "fail",
        timeout: float | None = None,
    ) -> Any:
        """Wait for jobs and return ``fn(results)``, which runs as a Ray task: no result passes through this process.

        ``results`` are JobResults in the order of ``job_ids``. ``on_error``: ``fail`` raises DependencyFailed when one
        did not complete, ``skip`` leaves it out, ``include`` puts its JobError in its place. Raises JobNotFound,
        RecordUnreadable for a result that can't be read (but with ``include``), TimeoutError after ``timeout`` seconds,
        AggregationFailed with the traceback of what ``fn`` raised.
        """
        from aiqueue.orchestrator.ray_tasks import aggregate  # with Ray, a second to import

        ids, on_error = checked_inputs(job_ids, on_error)
        async with asyncio.timeout(timeout):
            await wait_for(self._adapter, ids, stop_on_error=on_error == "fail")
            return await aggregate(self._namespace(), ids, fn, on_error=on_error)

    async def fan_in_job(
        self,
        job_ids: Sequence[str],
        payload_template: AnyPayload,
        options: Options = None,
        *,
        on_error: str = "fail",
        idempotency_key: str | None = None,
        scope: str = DEFAULT_SCOPE,
        **more: Any,
    ) -> str:
        """Submit one more job that gets all results: ``{{results}}``, ``{{results[0].content}}``; return its id.

        It waits in the queue for the others, whoever submitted them. ``idempotency_key`` as for a chain.
        """
        ids, on_error = checked_inputs(job_ids, on_error)
        check_fan_in(payload_template, len(ids))
        needs = tuple(map(Need, ids))
        linked = Linked("fan_in", new_job_ids(1), [payload_template], [needs], [on_error])
        wanted = options_of(GraphOptions, for_graph(options), more)
        key = scoped_key(idempotency_key, scope)
        _, (job_id,) = await submit_linked(self._adapter.session, linked, wanted, key)
        return job_id

    async def result_ref(self, job_id: str) -> Any:
        """Return a Ray ObjectRef of a job's JobResult, for tasks of your own. It is there when the job has ended."""
        from aiqueue.orchestrator.ray_tasks import result_ref

        return result_ref(self._namespace(), given.job_id(job_id))

    # --- helpers ---

    async def _submit_rows(self, jobs: AnyRows, options: Options, more: Mapping[str, Any], *, keep_ids: bool) -> FanOut:
        batch_id, ids = new_id("batch"), list[str]()
        sender = PartSender(self._adapter.session, batch_id, options_of(BatchOptions, for_batch(options), more))
        try:
            async for chunk in chunks_of(jobs):
                sent = await sender.send(chunk)
                ids += sent if keep_ids else []
            await sender.seal()
        except BaseException:
            await sender.drop()
            raise
        return FanOut(batch_id, ids)

    async def _submit_graph(
        self, kind: str, graph: Graph, options: Options, more: Mapping[str, Any], key: str
    ) -> tuple[str, list[str]]:
        ids = ids_from(new_job_ids(1)[0], len(graph.steps))
        linked = Linked(
            kind,
            ids,
            [step.payload for step in graph.steps],
            await in_parts(graph.needs_in_parts(ids)),
            [step.on_error for step in graph.steps],
            tuple(step.name for step in graph.steps),
        )
        wanted = options_of(GraphOptions, for_graph(options), more)
        return await submit_linked(self._adapter.session, linked, wanted, key)

    async def _ask(self, batch_id: str, action: str) -> BatchInfo:
        call = BatchCall(given.text("batch_id", batch_id), action)
        return batch_info(await self._adapter.session.transport.batch(call))

    async def _results(
        self, batch_id: str, after: int, *, ordered: bool, limit: int = _PAGE, wait_s: float = 0.0
    ) -> ResultsReply:
        call = ResultsCall(given.text("batch_id", batch_id), after, limit, bool(ordered), wait_s=wait_s)
        return await self._adapter.session.transport.batch_results(call)

    def _namespace(self) -> str:
        namespace: str | None = getattr(self._adapter.session.transport, "namespace", None)
        if namespace is None:
            raise StartError("results are Ray objects only where the queue runs on Ray")
        return namespace
