"""An event loop without a clock: when nothing is left to do now, time jumps to the next timer.

Everything runs as part of a *node* (a process of the real system), which a context variable names. A node that is
killed stops in the middle of whatever it does: none of its callbacks and tasks runs again, not even a ``finally``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from functools import partial
from heapq import heappop, heappush
from typing import Any

_MOST_CLOSES = 10
_SAME_S = 1e-9  # timers of that much later run in the same turn, as asyncio's


class Node:
    """One process: what it started dies with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.context = copy_context()
        self.context.run(_node.set, self)

    def __repr__(self) -> str:
        return self.name


_node: ContextVar[Node | None] = ContextVar("node", default=None)


class Stuck(Exception):
    """Nothing is left to do, and somebody still waits."""


class Call:
    """A callback that is to run soon."""

    __slots__ = ("args", "callback", "context")

    def __init__(self, callback: Callable[..., object] | None, args: tuple[Any, ...], context: Context) -> None:
        self.callback, self.args, self.context = callback, args, context

    def cancel(self) -> None:
        """Never run it."""
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        """Return True if it will not run."""
        return self.callback is None


class Timer(float):
    """A callback that is to run at a time. It is that time, so that a heap of timers compares numbers."""

    __slots__ = ("args", "callback", "context")

    callback: Callable[..., object] | None
    args: tuple[Any, ...]
    context: Context

    def when(self) -> float:
        """Return the time."""
        return float(self)

    def cancel(self) -> None:
        """Never run it."""
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        """Return True if it will not run."""
        return self.callback is None


class SimulatedLoop(asyncio.BaseEventLoop):
    """``stall_s`` says for how long the loop stands still before its next turn; ``read_s`` how long a read takes.

    asyncio's own loop does the same; a third of a simulated run was spent in it. The overrides take fewer kinds of
    arguments than asyncio's and return lean handles, which is why the type checker has to be told to let them pass.
    """

    def __init__(self, stall_s: Callable[[], float], read_s: Callable[[], float]) -> None:
        super().__init__()
        self.now = 0.0  #: simulated seconds since the start
        self._stall_s, self._read_s = stall_s, read_s
        self._soon: deque[Call | Timer] = deque()
        self._timers: list[Timer] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.problems: list[dict[str, Any]] = []  #: exceptions that nobody awaited
        self.calm = False  #: stands still no more
        # Each future asks for the one and is made by the other, so neither is a function of Python's.
        self.get_debug = bool  # type: ignore[method-assign]
        self.create_future = partial(asyncio.Future, loop=self)  # type: ignore[method-assign]
        self.set_exception_handler(self._note_problem)

    def time(self) -> float:
        """Return the simulated seconds since the start."""
        return self.now

    def spawn(self, node: Node, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` as a part of ``node``."""
        return self.create_task(work, context=node.context.copy())

    def kill(self, node: Node) -> None:
        """Stop all that ``node`` does, now."""
        node.alive = False
        for call in (*self._soon, *self._timers):
            if call.context.get(_node) is node:
                call.cancel()

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Call:
        """As asyncio's; a dead node's callback is never run."""
        call = Call(callback, args, copy_context() if context is None else context)
        node = call.context.get(_node)
        if node is None or node.alive:
            self._soon.append(call)
        return call

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Call | Timer:
        """As uvloop's, on which actors run: what is due has no ``when``. A dead node's callback is never run."""
        if when <= self.now:
            return self.call_soon(callback, *args, context=context)
        timer = Timer(when)
        timer.context = copy_context() if context is None else context
        node = timer.context.get(_node)
        timer.callback, timer.args = callback if node is None or node.alive else None, args
        heappush(self._timers, timer)
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Call | Timer:
        """As ``call_at``."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """As asyncio's."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        self._tasks.append(task)
        return task

    def _run_once(self) -> None:
        """Run what is to run now; where there is nothing, let time pass. Raises Stuck where no timer is left."""
        soon, timers = self._soon, self._timers
        while timers and timers[0].callback is None:
            heappop(timers)
        if not soon:
            if not timers:
                raise Stuck("no timer is left")
            self.now = max(self.now, timers[0].when())
        if not self.calm:
            self.now += self._stall_s()
        until = self.now + _SAME_S
        while timers and timers[0] < until:
            soon.append(heappop(timers))
        for _ in range(len(soon)):
            call = soon.popleft()
            if call.callback is not None:
                try:
                    call.context.run(call.callback, *call.args)
                except (Exception, asyncio.CancelledError) as error:
                    self._note_problem(self, {"message": f"{call.callback} raised", "exception": error})

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Call ``func`` on this thread a little later: a read of the disk."""
        future = self.create_future()
        self.call_later(self._read_s(), _work, future, func, args)
        return future

    def bury(self) -> None:
        """End all that never will go on, so that nothing runs when it is collected."""
        self.set_exception_handler(lambda *_: None)
        grave = Node("grave")
        grave.alive = False
        asyncio.events._set_running_loop(self)
        try:
            grave.context.run(self._close_tasks)
        finally:
            asyncio.events._set_running_loop(None)
        self.close()

    def _close_tasks(self) -> None:
        for generator in list(self._asyncgens):  # type: ignore[attr-defined]
            _close(generator.ag_await)  # a task that is closed does not close the generator that it reads
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        self._tasks.clear()

    def _note_problem(self, _: Any, problem: dict[str, Any]) -> None:
        if "exception" in problem:
            self.problems.append(problem)


def _close(coro: Any) -> None:
    """End a coroutine at each place where it waits: its ``finally`` may wait again."""
    for _ in range(_MOST_CLOSES if coro is not None else 0):
        try:
            coro.close()
        except Exception:  # a dead process's own trouble
            continue
        return


def _work(future: asyncio.Future[Any], func: Any, args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = func(*args)
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)
