"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

from aiqueue.errors import StartError

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_FINISH_S = 1.0  # for calls of other threads, when the loop is ended; as much again for what they do when cancelled

_STOPPED = "the adapter was stopped; make a new one"
_FORKED = (
    "the adapter belongs to the process that this one was forked from, and its thread stayed there; make a new one "
    "here, or start processes with multiprocessing's 'spawn'"
)
_INSIDE = (
    "called in the adapter's own thread, which would wait for itself: give it a list in place of what calls the "
    "adapter when it is read, and in a coroutine await what adapter.asynchronous has"
)
_EXITING = "the program is ending, and the adapter's thread with it"


class LoopThread:
    """Runs coroutines for any thread. Every call has an answer, or StartError, whenever ``end`` comes."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.RLock()  # between calls and the end; a signal's handler may call inside a call
        self._last: Future[None] | None = None  # set: nothing is begun any more
        self._is_over = False
        self._begun = set[Future[Any]]()
        self._cut_off: set[asyncio.Task[Any]] = set()  # by the end, not by their callers
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def begin(self, call: Coroutine[Any, Any, _T], *, waits: bool = False) -> Future[_T]:
        """Start a coroutine; return what will hold its answer. Raises StartError where there would be none.

        ``waits``: the caller is about to wait for it, which the thread itself can't, so there it is refused.
        """
        try:
            self._check_place(waits=waits)
            with self._lock:
                if self._last is not None:
                    raise StartError(_STOPPED)
                return self._start(self._answer(call))
        except StartError:
            call.close()
            raise

    def run(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine and return what it returns."""
        future = self.begin(call, waits=True)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: what was asked for must not go on behind the caller's back
            future.cancel()
            raise

    def end(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin nothing any more, run ``last``, let go of what is under way and end the thread.

        Only the first call runs its ``last``; others wait for the same end.
        """
        self._check_place(waits=True)
        with self._lock:
            if self._last is None:
                self._last = self._start(self._finish(last))
        self._thread.join()
        self._last.result()

    def is_alive(self) -> bool:
        """Return True until the thread has ended."""
        return self._thread.is_alive()

    def _check_place(self, *, waits: bool) -> None:
        """Raise StartError where no answer would come. Before the lock is taken: a fork may have left it locked."""
        if os.getpid() != self._process:
            raise StartError(_FORKED)
        if waits and threading.current_thread() is self._thread:
            raise StartError(_INSIDE)
        if sys.is_finalizing():
            raise StartError(_EXITING)

    def _start(self, call: Coroutine[Any, Any, _T]) -> Future[_T]:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        return future

    async def _answer(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Return what a call returns. Raises StartError in place of CancelledError where the end is the reason."""
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            is_callers_own = task is not None and task.cancelling() and task not in self._cut_off
            if self._last is None or is_callers_own:
                raise
            raise StartError(_STOPPED) from None

    async def _finish(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await last()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                _, others = await asyncio.wait(others, timeout=_FINISH_S)
            if others:
                self._cut_off = {call for call in others if not call.cancelling()}
                for call in others:
                    call.cancel()
                await asyncio.wait(others, timeout=_FINISH_S)
            self._loop.call_soon(self._stop)  # beside what tells the callers, not before it

    def _stop(self) -> None:
        self._is_over = True
        self._loop.stop()

    def _serve(self) -> None:
        """Turn the loop until its end; runs in the thread."""
        try:
            while not self._is_over:
                try:
                    self._loop.run_forever()
                except BaseException as error:  # sys.exit() in one caller's coroutine ends no other caller's
                    _log.warning("%r went through the loop of the adapter, which goes on", error)
        finally:
            self._loop.close()
            for future in list(self._begun):  # of a coroutine that does not let itself be cancelled
                with suppress(InvalidStateError):
                    future.set_exception(StartError(_STOPPED))
