"""Rows of a program without an event loop: read in its own thread, sent from the adapter's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from aiqueue.client.adapter import AnyPayload
from aiqueue.orchestrator.rows import Chunked, Rows, chunks, read_rows

_T = TypeVar("_T")
_Chunk = list[AnyPayload]


class RowFeed(Chunked):
    """Hands chunks of rows to a coroutine on another thread's loop, one whenever it asks.

    The rows' iterator is the caller's: it may use the adapter (the results of another batch), a connection that belongs
    to its thread, or wait for a terminal. On the adapter's loop it would hold up everything, itself included.
    """

    def __init__(self, rows: Rows) -> None:
        self._chunks = chunks(read_rows(rows))
        self._asked: SimpleQueue[Future[_Chunk] | None] = SimpleQueue()

    async def chunks(self) -> AsyncIterator[_Chunk]:
        """Yield the chunks, on the loop."""
        while True:
            wanted: Future[_Chunk] = Future()
            self._asked.put(wanted)
            chunk = await asyncio.wrap_future(wanted)
            if not chunk:
                return
            yield chunk

    def serve(self, future: Future[_T]) -> Future[_T]:
        """Read in this thread what a call on the loop asks for, and return the call when it has ended."""
        future.add_done_callback(lambda _: self._asked.put(None))
        try:
            while (wanted := self._asked.get()) is not None:
                self._answer(wanted)
        except BaseException:  # Ctrl-C: nothing may go on behind the caller's back
            future.cancel()
            raise
        return future

    def _answer(self, wanted: Future[_Chunk]) -> None:
        if not wanted.set_running_or_notify_cancel():
            return
        try:
            wanted.set_result(next(self._chunks, []))
        except Exception as error:
            wanted.set_exception(error)
