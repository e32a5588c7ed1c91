"""Holds one model at a time for requests that may be for several: loads, lends and swaps it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar

from aiqueue.llama.affinity import AffinityRule, Held, Waiting, decide


class Closable(Protocol):
    """What a host can hold."""

    def close(self) -> None:
        """End its work and free its memory. May block."""
        ...


Model = TypeVar("Model", bound=Closable)


class ModelHost(Generic[Model]):
    """Lends the model that ``load`` (which may block) returns for a name. For one event loop.

    A name that could not be loaded is not tried again if its error is one of ``lasting``: that is then everybody's
    answer. After any other error the next request tries again.
    """

    def __init__(
        self,
        load: Callable[[str], Model],
        *,
        rule: AffinityRule,
        name: str,
        lasting: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._rule = rule
        self._lasting = lasting
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"load-{name}")
        self._model: Model | None = None
        self._held: Held | None = None
        self._waiting: list[tuple[Waiting, asyncio.Future[Model]]] = []
        self._failed: dict[str, Exception] = {}
        self._swap: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def loaded(self) -> str | None:
        """Name of the model that is in memory."""
        return self._held.model if self._held else None

    @asynccontextmanager
    async def lend(self, name: str) -> AsyncIterator[Model]:
        """Wait for model ``name`` and keep it in memory meanwhile. Raises what ``load`` raised for it."""
        if error := self._failed.get(name):
            raise error.with_traceback(None)
        future: asyncio.Future[Model] = asyncio.get_running_loop().create_future()
        entry = (Waiting(name, self._clock()), future)
        self._waiting.append(entry)
        self._consider()
        try:
            model = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._returned()  # it was lent in the very moment in which nobody wanted it any more
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise
        try:
            yield model
        finally:
            self._returned()

    async def close(self) -> None:
        """Let go of the model. Called when nobody has it."""
        if self._timer:
            self._timer.cancel()
        if self._swap:
            await asyncio.gather(self._swap, return_exceptions=True)
        await self._unload()
        self._thread.shutdown(wait=False)

    def _returned(self) -> None:
        if self._held:
            self._held = self._held._replace(running=self._held.running - 1)
        self._consider()

    def _consider(self) -> None:
        if self._swap is not None:
            return  # asked again when it is over
        decision = decide(self._held, [entry for entry, _ in self._waiting], self._rule, now=self._clock())
        if decision.admit:
            self._admit(decision.admit)
        elif decision.load is not None:
            self._swap = asyncio.create_task(self._swap_to(decision.load))
        elif decision.look_again is not None and self._timer is None:
            delay = max(0.0, decision.look_again - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._consider()

    def _admit(self, count: int) -> None:
        held, model = self._held, self._model
        if held is None or model is None:
            raise RuntimeError("there is no model to lend")
        admitted = [entry for entry in self._waiting if entry[0].model == held.model][:count]
        self._waiting = [entry for entry in self._waiting if entry not in admitted]
        passes = held.passes + len(admitted) if self._waiting else 0
        self._held = held._replace(running=held.running + len(admitted), passes=passes)
        for _, future in admitted:
            if future.cancelled():
                self._held = self._held._replace(running=self._held.running - 1)
            else:
                future.set_result(model)

    async def _swap_to(self, name: str) -> None:
        started = self._clock()
        loop = asyncio.get_running_loop()
        try:
            await self._unload()
            self._model = await loop.run_in_executor(self._thread, self._load, name)
        except Exception as error:
            self._fail(name, error)
        else:
            now = self._clock()
            self._held = Held(name, running=0, passes=0, stays_until=now + (now - started))
            # All that wait for it now: they did so while another was served, so they do not pass anybody.
            self._admit(len(self._waiting))
            self._held = self._held._replace(passes=0)
        finally:
            self._swap = None
            self._consider()

    def _fail(self, name: str, error: Exception) -> None:
        if isinstance(error, self._lasting):
            self._failed[name] = error
        mine = [entry for entry in self._waiting if entry[0].model == name]
        self._waiting = [entry for entry in self._waiting if entry not in mine]
        for _, future in mine:
            if not future.cancelled():
                future.set_exception(error)

    async def _unload(self) -> None:
        model, self._model, self._held = self._model, None, None
        if model is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, model.close)
