"""An event loop without a clock: when nothing is left to do now, time jumps to the next timer.

Everything runs as part of a *node* (a process of the real system), which a context variable names. A node that is
killed stops in the middle of whatever it does: none of its callbacks and tasks runs again, not even a ``finally``.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any


class Node:
    """One process: what it started dies with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.context = contextvars.copy_context()
        self.context.run(_node.set, self)

    def __repr__(self) -> str:
        return self.name


_node: contextvars.ContextVar[Node | None] = contextvars.ContextVar("node", default=None)


class Stuck(Exception):
    """Nothing is left to do, and somebody still waits."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """``stall_s`` says for how long the loop stands still before its next turn; ``read_s`` how long a read takes."""

    def __init__(self, stall_s: Callable[[], float], read_s: Callable[[], float]) -> None:
        super().__init__()
        self._selector = self  # asks ``select`` what happened outside: nothing, but time passes
        self._now = 0.0
        self._stall_s, self._read_s = stall_s, read_s
        self._tasks: list[asyncio.Task[Any]] = []
        self.problems: list[dict[str, Any]] = []  #: exceptions that nobody awaited
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_problem)

    def time(self) -> float:
        """Return the simulated seconds since the start."""
        return self._now

    def select(self, timeout: float | None) -> tuple[()]:
        """Let time pass. Raises Stuck where no timer is left."""
        if timeout is None:
            raise Stuck("no timer is left")
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        self._now += self._stall_s()
        return ()

    def spawn(self, node: Node, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` as a part of ``node``."""
        return node.context.copy().run(self.create_task, work)

    def kill(self, node: Node) -> None:
        """Stop all that ``node`` does, now."""
        node.alive = False
        for handle in [*self._ready, *self._scheduled]:  # type: ignore[attr-defined]
            if handle._context.get(_node) is node:
                handle.cancel()

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's; a dead node's callback is never run."""
        node = _node.get() if context is None else context.get(_node)
        if node is not None and not node.alive:
            return _never(self, callback, context)
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; a dead node's callback is never run."""
        timer = super().call_at(when, callback, *args, context=context)
        node = _node.get() if context is None else context.get(_node)
        if node is not None and not node.alive:
            timer.cancel()
        return timer

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

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
        grave.context.run(self._close_tasks)
        self.close()

    def _close_tasks(self) -> None:
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(Exception):  # a dead process's own trouble
                    task.get_coro().close()
        self._tasks.clear()

    def _make_task(self, _: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        self._tasks.append(task)
        return task

    def _note_problem(self, _: Any, problem: dict[str, Any]) -> None:
        if "exception" in problem:
            self.problems.append(problem)

    def _process_events(self, _: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""


def _never(loop: SimulatedLoop, callback: Any, context: contextvars.Context | None) -> asyncio.Handle:
    handle = asyncio.Handle(callback, (), loop, context)
    handle.cancel()
    return handle


def _work(future: asyncio.Future[Any], func: Any, args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = func(*args)
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)
