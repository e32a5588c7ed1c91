"""The orchestrator for programs without an event loop: the asynchronous one, run on its adapter's loop."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from aiqueue.batch_views import BatchInfo, BatchResult, GraphInfo
from aiqueue.client.adapter import AnyPayload
from aiqueue.client.given import read_here
from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.orchestrator.feed import RowFeed
from aiqueue.orchestrator.handles import FanOut, JobChain, JobGraph, Options
from aiqueue.orchestrator.mapping import Key, MapResult
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.orchestrator.rows import Rows, read_rows
from aiqueue.views import OrchestratorStats

_T = TypeVar("_T")


class AIJobOrchestrator:
    """As AsyncAIJobOrchestrator, method by method; each call blocks until its answer is there.

    What a call is given is read in the caller's thread, so it may use the adapter when it is read.
    """

    def __init__(self, adapter: AIQueueAdapter) -> None:
        self._adapter = adapter
        self._async = AsyncAIJobOrchestrator(adapter.asynchronous)

    def start(self) -> None:
        """Check that the adapter is started. Raises StartError."""
        self._run(self._async.start())

    def stop(self) -> None:
        """Let go. Batches and chains go on without this process."""
        self._run(self._async.stop())

    def __enter__(self) -> AIJobOrchestrator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get_stats(self) -> OrchestratorStats:
        """Return how many batches, chains and graphs there were and are, and how many schedules."""
        return self._run(self._async.get_stats())

    def schedule_job(
        self, payload: AnyPayload, name: str | Mapping[str, Any], cron_expression: str = "", **rules: Any
    ) -> str:
        """Return the id of a schedule that submits ``payload`` again and again; ``rules`` as in ScheduleClient.add."""
        return self._run(self._async.schedule_job(payload, name, cron_expression, **rules))

    def cancel_schedule(self, schedule_id: str) -> None:
        """Let a schedule fire no more. Raises ScheduleNotFound."""
        self._run(self._async.cancel_schedule(schedule_id))

    def submit_batch_job(self, jobs: Rows, options: Options = None, **more: Any) -> str:
        """Return the id of a batch once all of it is on the queue's disk. The rows are read in this thread."""
        feed = RowFeed(jobs)
        return self._feeding(feed, self._async.submit_batch_job(feed, options, **more))

    def fan_out(self, jobs: Rows, options: Options = None, **more: Any) -> FanOut:
        """Submit jobs that run beside each other; return the batch's id and theirs."""
        feed = RowFeed(jobs)
        return self._feeding(feed, self._async.fan_out(feed, options, **more))

    def get_batch_job_status(self, batch_id: str, *, results: bool = False) -> BatchInfo:
        """Return how a batch stands; ``results``: with all that have ended."""
        return self._run(self._async.get_batch_job_status(batch_id, results=results))

    def wait_batch(self, batch_id: str) -> BatchInfo:
        """Wait until all jobs of a batch have ended."""
        return self._run(self._async.wait_batch(batch_id))

    def iter_results(
        self, batch_id: str, *, after: int = 0, ordered: bool = True, wait: bool = True
    ) -> Iterator[BatchResult]:
        """Yield what the jobs of a batch came to, a page at a time."""
        return self._each(self._async.iter_results(batch_id, after=after, ordered=ordered, wait=wait))

    def cancel_batch_job(self, batch_id: str) -> BatchInfo:
        """Stop a batch, its running jobs too. What is done is kept."""
        return self._run(self._async.cancel_batch_job(batch_id))

    def pause_batch_job(self, batch_id: str) -> BatchInfo:
        """Start no more jobs of a batch; those that run go on."""
        return self._run(self._async.pause_batch_job(batch_id))

    def resume_batch_job(self, batch_id: str) -> BatchInfo:
        """Undo ``pause_batch_job``."""
        return self._run(self._async.resume_batch_job(batch_id))

    def retry_failed(self, batch_id: str, *, idempotency_key: str | None = None) -> BatchInfo:
        """Start new jobs in the place of those that failed."""
        return self._run(self._async.retry_failed(batch_id, idempotency_key=idempotency_key))

    def map(
        self, rows: Rows, *, run_id: str, key: Key | None = None, options: Options = None, **more: Any
    ) -> Iterator[MapResult]:
        """Run rows and yield what each came to, in order; what ``run_id`` has completed before is not run again.

        Rows and their keys are made in this thread.
        """
        made = deque[Any]()
        feed = RowFeed(rows if key is None else _with_keys(rows, key, made.append))
        made_key = None if key is None else lambda _: made.popleft()
        return self._each(self._async.map(feed, run_id=run_id, key=made_key, options=options, **more), feed)

    def create_job_chain(
        self, steps: Sequence[Any], options: Options = None, *, stop_on_error: bool = True, **more: Any
    ) -> JobChain:
        """Submit jobs that run one after the other; return their ids."""
        return self._run(self._async.create_job_chain(read_here(steps), options, stop_on_error=stop_on_error, **more))

    def submit_graph(self, nodes: Mapping[str, Any], options: Options = None, **more: Any) -> JobGraph:
        """Submit jobs that wait for each other; return their ids by name."""
        return self._run(self._async.submit_graph(_with_needs(nodes), options, **more))

    def get_graph_status(self, graph_id: str) -> GraphInfo:
        """Return how a chain or a graph stands, step by step. A notebook shows it as a picture."""
        return self._run(self._async.get_graph_status(graph_id))

    def to_mermaid(self, graph_id: str) -> str:
        """Return a picture of a chain or a graph, its steps coloured by their states."""
        return self._run(self._async.to_mermaid(graph_id))

    def fan_in(
        self,
        job_ids: Sequence[str],
        fn: Callable[[list[Any]], Any],
        *,
        on_error: str = "fail",
        timeout: float | None = None,
    ) -> Any:
        """Wait for jobs and return ``fn(results)``, which runs as a Ray task."""
        return self._run(self._async.fan_in(read_here(job_ids), fn, on_error=on_error, timeout=timeout))

    def fan_in_job(
        self,
        job_ids: Sequence[str],
        payload_template: AnyPayload,
        options: Options = None,
        *,
        on_error: str = "fail",
        **more: Any,
    ) -> str:
        """Submit one more job that gets all results; return its id."""
        call = self._async.fan_in_job(read_here(job_ids), payload_template, options, on_error=on_error, **more)
        return self._run(call)

    def result_ref(self, job_id: str) -> Any:
        """Return a Ray ObjectRef of a job's JobResult, for tasks of your own."""
        return self._run(self._async.result_ref(job_id))

    def _run(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self._adapter.run(call)

    def _feeding(self, feed: RowFeed, call: Coroutine[Any, Any, _T]) -> _T:
        return feed.serve(self._adapter.begin(call, waits=True)).result()

    def _each(self, results: AsyncIterator[_T], feed: RowFeed | None = None) -> Iterator[_T]:
        while True:
            found = self._feeding(feed, _next(results)) if feed else self._run(_next(results))
            if not found:
                return
            yield found[0]


async def _next(results: AsyncIterator[_T]) -> list[_T]:
    """Return the next one, or nothing: StopAsyncIteration would not pass through a future."""
    async for each in results:
        return [each]
    return []


def _with_keys(rows: Rows, key: Key, keep: Callable[[Any], None]) -> Iterator[AnyPayload]:
    """Yield the rows, and give the key of each to ``keep``."""
    for row in read_rows(rows):
        keep(key(row))
        yield row


def _with_needs(nodes: Any) -> Any:
    """Return the nodes of a graph with their lists of needs read; what is no node as it is."""
    if not isinstance(nodes, Mapping):
        return nodes
    return {name: _read_needs(node) if isinstance(node, Mapping) else node for name, node in nodes.items()}


def _read_needs(node: Mapping[str, Any]) -> dict[str, Any]:
    return {**node, **{field: read_here(node[field]) for field in ("depends_on", "dependsOn") if field in node}}
