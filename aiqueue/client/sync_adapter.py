"""The client for programs without an event loop: the asynchronous one, run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from aiqueue.client import given
from aiqueue.client.adapter import AnyOptions, AnyPayload, AsyncAIQueueAdapter
from aiqueue.client.dead_letters import SyncDeadLetterClient
from aiqueue.client.headers import checked_options
from aiqueue.client.listeners import AnyEvent, Listener
from aiqueue.client.loop_thread import LoopThread
from aiqueue.client.schedules import SyncScheduleClient
from aiqueue.client.transport import QueueTransport
from aiqueue.protocol import Welcome
from aiqueue.results import JobResult
from aiqueue.validation import PayloadChecker
from aiqueue.views import Cancellation, JobInfo, QueueStats, Stats

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class AIQueueAdapter:
    """As AsyncAIQueueAdapter, method by method; each call blocks until its answer is there.

    Usable from several threads and as a context manager. Lists are read, and callables but listeners called, in the
    caller's thread; listeners run one after the other in a thread of their own. So all of them may call the adapter.
    ``aiqueue.connect()`` makes one that is started.
    """

    def __init__(self, transport: QueueTransport) -> None:
        self._async = AsyncAIQueueAdapter(transport)
        self._home = LoopThread("aiqueue-client")
        self._run = self._home.run
        self._listener_thread = ThreadPoolExecutor(1, thread_name_prefix="aiqueue-listeners")
        self._listener_loop = asyncio.new_event_loop()  # of that thread, for listeners that are coroutine functions
        # By what the loop calls, since listeners may be unhashable.
        self._handed_over: dict[Listener, tuple[str, Listener]] = {}

    def start(self) -> None:
        """Find the queue and learn what it can run. Raises QueueUnavailable if there is none."""
        self._run(self._async.start())

    def stop(self) -> None:
        """Send what is still to be sent and let go; the adapter can't be started again. To stop it twice does no harm.

        Calls of other threads get their answer or StartError. It does not wait for listeners, which go on with the
        events they have; the program's end waits for them.
        """
        self._home.end(self._async.stop)
        with suppress(RuntimeError):  # a second call, or one while the program ends, which ends the listeners' thread
            self._listener_thread.submit(self._listener_loop.close)  # behind what listeners still have to do
        self._listener_thread.shutdown(wait=False)

    def __enter__(self) -> AIQueueAdapter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def submit_job(self, payload: AnyPayload, options: AnyOptions = None) -> str:
        """Return the id of the job once it is on the queue's disk."""
        return self._run(self._async.submit_job(payload, options))

    def submit_jobs(
        self, payloads: Sequence[AnyPayload], options: AnyOptions = None, *, batch_id: str = ""
    ) -> list[str]:
        """Submit many jobs with the same options; return their ids in order."""
        jobs = self._read_jobs(payloads, options, batch_id=batch_id)
        return self._run(self._async.submit_jobs(jobs, options, batch_id=batch_id))

    def submit_batch(
        self, payloads: Sequence[AnyPayload], options: AnyOptions = None, *, idempotency_key: str | None = None
    ) -> tuple[str, list[str]]:
        """Submit jobs as one batch, whole or not at all; return its id and, in order, those of its jobs."""
        jobs = self._read_jobs(payloads, options, key=idempotency_key)
        return self._run(self._async.submit_batch(jobs, options, idempotency_key=idempotency_key))

    def submit_job_with_callback(
        self, payload: AnyPayload, options: AnyOptions = None, callback: Callable[[JobResult], Any] | None = None
    ) -> JobResult:
        """Submit a job, wait for its end and return its result; raises the JobError that ended it."""
        result = self._run(self._async.submit_job_with_callback(payload, options))
        if callback is not None:
            callback(result)
        return result

    def wait(self, job_id: str) -> JobInfo:
        """Wait until the job has ended, whoever submitted it."""
        return self._run(self._async.wait(job_id))

    def wait_all(self, job_ids: Sequence[str], on_end: Callable[[JobInfo], None] | None = None) -> list[JobInfo]:
        """Wait until all jobs have ended; ``on_end`` is called, in the caller's thread, as each one ends."""
        job_ids = given.read_here(job_ids)
        if on_end is None:
            return self._run(self._async.wait_all(job_ids))
        ended: SimpleQueue[JobInfo | None] = SimpleQueue()
        future = self.begin(self._async.wait_all(job_ids, ended.put), waits=True)
        future.add_done_callback(lambda _: ended.put(None))
        try:
            while (info := ended.get()) is not None:
                _tell_end(on_end, info)
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def get_job_status(self, job_id: str) -> JobInfo | None:
        """Return the job as it is on disk; None if it is not known."""
        return self._run(self._async.get_job_status(job_id))

    def get_jobs(self, job_ids: Sequence[str]) -> list[JobInfo | None]:
        """Return many jobs in the order of ``job_ids``."""
        return self._run(self._async.get_jobs(given.read_here(job_ids)))

    def cancel_job(self, job_id: str) -> Cancellation:
        """Stop a job: at once if it waits, through its worker if it runs."""
        return self._run(self._async.cancel_job(job_id))

    @property
    def asynchronous(self) -> AsyncAIQueueAdapter:
        """The adapter behind this one. Its coroutines belong on this one's loop: see ``run``."""
        return self._async

    def run(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the adapter's own loop and return what it returns."""
        return self._run(call)

    def begin(self, call: Coroutine[Any, Any, _T], *, waits: bool = False) -> Future[_T]:
        """As ``run``, and return at once what will hold the answer; also from a callback of such a future.

        ``waits``: you are about to wait for it. Raises StartError where that would be for ever, as in a callback.
        """
        return self._home.begin(call, waits=waits)

    @property
    def dead_letters(self) -> SyncDeadLetterClient:
        """List, inspect, redrive and delete jobs that are out of attempts."""
        return SyncDeadLetterClient(self._run, self._async.dead_letters)

    @property
    def schedules(self) -> SyncScheduleClient:
        """Add, list, pause, resume, run and remove jobs that come again by a cron line."""
        return SyncScheduleClient(self._run, self._async.schedules)

    def get_stats(self) -> QueueStats:
        """Return the queue's statistics."""
        return self._run(self._async.get_stats())

    def get_system_stats(self) -> Stats:
        """Return the queue's statistics and the orchestrator's, as ``GET /ai/stats`` does."""
        return self._run(self._async.get_system_stats())

    def ping(self) -> Welcome:
        """Return what the queue says of itself, if it answers; raises QueueUnavailable."""
        return self._run(self._async.ping())

    def on(self, name: str, listener: Listener | None = None) -> Any:
        """Call ``listener`` (a function or a coroutine function) on every event called ``name``; also a decorator."""
        if listener is None:
            return lambda function: self.on(name, function) or function
        self._add(name, listener, once=False)
        return None

    def once(self, name: str, listener: Listener | None = None) -> Any:
        """As ``on``, for the next such event alone. ``off`` undoes it as long as there was none."""
        if listener is None:
            return lambda function: self.once(name, function) or function
        self._add(name, listener, once=True)
        return None

    def off(self, name: str, listener: Listener) -> None:
        """Undo ``on`` or ``once``."""
        if isinstance(name, str):
            for hand_over, of in list(self._handed_over.items()):
                if of == (name, listener):  # equal, not the same: each look at a bound method makes another
                    self._run(self._in_loop(self._async.off, name, hand_over))
                    self._handed_over.pop(hand_over, None)
                    return
        self._run(self._in_loop(self._async.off, name, listener))  # it was not there, or the name is refused

    def _read_jobs(self, payloads: Any, options: AnyOptions, **more: Any) -> Any:
        """Return what any iterable yields, read and checked in this thread, unless the call is refused without that.

        They are checked as they come, since what is wrong may have no end. ``more``: as for ``checked_options``.
        """
        if not given.is_to_be_read(payloads):
            return payloads
        return self._run(self._checker_for(options, **more)).check_all(payloads)

    async def _checker_for(self, options: AnyOptions, **more: Any) -> PayloadChecker:
        checker = self._async.session.checker
        checked_options(checker, options, **more)
        return checker

    def _add(self, name: str, listener: Listener, *, once: bool) -> None:
        def hand_over(event: AnyEvent) -> None:
            if once:
                self._handed_over.pop(hand_over, None)
            self._listener_thread.submit(self._tell, listener, event)

        self._handed_over[hand_over] = name, listener
        try:
            self._run(self._in_loop(self._async.once if once else self._async.on, name, hand_over))
        except BaseException:
            self._handed_over.pop(hand_over, None)
            raise

    def _tell(self, listener: Listener, event: AnyEvent) -> None:
        """Call a listener; runs in the listeners' thread."""
        try:
            answer = listener(event)
            if inspect.isawaitable(answer):
                self._listener_loop.run_until_complete(answer)
        except BaseException:  # sys.exit() too: the thread would say nothing of it, and go on
            _log.exception("listener %r failed on event %d, %s", listener, event.number, event.name)

    @staticmethod
    async def _in_loop(function: Callable[..., Any], *args: object) -> None:
        function(*args)


def _tell_end(on_end: Callable[[JobInfo], None], info: JobInfo) -> None:
    try:
        on_end(info)
    except (Exception, asyncio.CancelledError, GeneratorExit):  # of the function's own: the wait goes on
        _log.exception("%r failed on the end of job %s", on_end, info.job_id)
