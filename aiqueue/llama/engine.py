"""Continuous batching: many requests in one context, joining and leaving between any two steps.

Not a thread of its own and not safe for several: see ``engine_thread.py``.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass

from aiqueue.llama.backend import Backend
from aiqueue.llama.planner import plan_step
from aiqueue.llama.requests import EndReason, Generation, GenerationRequest, PromptTooLong
from aiqueue.llama.sequence import NOWHERE, OnEnd, Sequence
from aiqueue.llama.slots import Join, Slots

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How many at once, ``urgent`` of them for level 0 only, and what prompts may take of a step (see the planner).

    ``remember``: cells for what has ended; None: a quarter.
    """

    parallel: int = 8
    urgent: int = 0
    prompt_tokens: int = 128
    remember: int | None = None


@dataclass(slots=True)
class EngineCounts:
    """What the engine did so far."""

    steps: int = 0
    tokens_read: int = 0
    tokens_generated: int = 0
    evictions: int = 0  #: requests that had to give their cells back and be read again


class BatchingEngine:
    """Runs requests on a backend, a step at a time."""

    def __init__(self, backend: Backend, options: EngineOptions) -> None:
        if backend.batch_tokens < options.parallel:
            raise ValueError(f"a batch of {backend.batch_tokens} tokens is too small for {options.parallel} requests")
        self._backend = backend
        self._options = options
        remember = backend.cells // 4 if options.remember is None else options.remember
        self._slots = Slots(backend, parallel=options.parallel, urgent=options.urgent, remember=remember)
        self._waiting: list[tuple[tuple[int, int], Sequence]] = []  # a heap
        self._pins: set[int] = set()
        self._numbers = 0
        self.counts = EngineCounts()

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._slots.running)

    def add(self, request: GenerationRequest, on_end: OnEnd) -> Sequence:
        """Take a request; ``on_end`` is called with its Generation, or with the error that ended it.

        Raises PromptTooLong, ValueError for a prompt without tokens or a grammar that can't be followed.
        """
        if not request.tokens:
            raise ValueError("the prompt has no tokens")
        if len(request.tokens) >= self._backend.cells:  # one must be left for the answer
            raise PromptTooLong(len(request.tokens), self._backend.cells - 1)
        self._numbers += 1
        sequence = Sequence(self._numbers, request, self._backend.sampler(request.sampling), on_end)
        heapq.heappush(self._waiting, (sequence.rank, sequence))
        return sequence

    def pin(self, tokens: Sequence_[int], on_end: OnEnd) -> None:
        """Read ``tokens`` and remember them longer than anything else: a system prompt that many requests share."""
        request = GenerationRequest(tokens=tuple(tokens), max_tokens=1)
        self._pins.add(self.add(request, on_end).number)

    def cancel(self, sequence: Sequence) -> None:
        """End ``sequence`` before the next step; its Generation holds the text so far."""
        sequence.cancelled = True

    def step(self) -> None:
        """Let requests leave and join, then have the model read once and choose the next tokens."""
        for sequence in [*self._slots.running, *(waiting for _, waiting in self._waiting)]:
            if sequence.cancelled:
                self._end(sequence, "cancelled")
        self._join()
        try:
            self._read()
        except Exception as error:
            self.fail_all(error)
            raise

    def _join(self) -> None:
        stay = []
        while self._waiting:
            entry = heapq.heappop(self._waiting)
            came_of_it = self._slots.join(entry[1])
            if came_of_it is not Join.JOINED:
                stay.append(entry)
            if came_of_it is Join.NO_ROOM:
                break
        for entry in stay:
            heapq.heappush(self._waiting, entry)

    def _read(self) -> None:
        plan = self._plan()
        while evicted := list(self._slots.make_room(sum(plan.values()))):
            self.counts.evictions += len(evicted)
            for sequence in evicted:
                heapq.heappush(self._waiting, (sequence.rank, sequence))
            plan = self._plan()
        reading = [sequence for sequence in self._slots.running if sequence.place in plan]
        if not reading:
            return
        chunks = [sequence.chunk(plan[sequence.place]) for sequence in reading]
        for sequence in reading:
            self._slots.advance(sequence, plan[sequence.place])
        self._backend.decode(chunks)
        self.counts.steps += 1
        self.counts.tokens_read += sum(plan.values())
        scored = [sequence for sequence, chunk in zip(reading, chunks, strict=True) if chunk.scores]
        for row, sequence in enumerate(scored):
            self._choose(sequence, row)

    def _plan(self) -> dict[int, int]:
        return plan_step(
            [sequence.want() for sequence in self._slots.running],
            batch_tokens=self._backend.batch_tokens,
            prompt_tokens=self._options.prompt_tokens,
        )

    def _choose(self, sequence: Sequence, row: int) -> None:
        if sequence.number in self._pins:
            self._end(sequence, "stop")
            return
        try:
            token = sequence.sampler.next(row)
            if self._backend.is_end(token):
                self._end(sequence, "stop")
                return
            sequence.produced.append(token)
            self.counts.tokens_generated += 1
            sequence.show(self._backend.piece(token))
        except Exception as error:  # of one request: a listener that raises, a sampler that can't go on
            self._end(sequence, error)
            return
        if sequence.stream.stopped:
            self._end(sequence, "stop")
        elif sequence.still_to_produce <= 0 or sequence.length >= self._backend.cells:
            self._end(sequence, "length")

    def _end(self, sequence: Sequence, reason: EndReason | Exception) -> None:
        if sequence.place == NOWHERE:
            self._waiting = [entry for entry in self._waiting if entry[1] is not sequence]
            heapq.heapify(self._waiting)
        else:
            self._slots.leave(sequence, pinned=sequence.number in self._pins)
        self._report(sequence, reason)

    def _report(self, sequence: Sequence, reason: EndReason | Exception) -> None:
        self._pins.discard(sequence.number)
        outcome: Generation | Exception
        try:
            sequence.sampler.close()
            outcome = reason if isinstance(reason, Exception) else sequence.finish(reason)
        except Exception as error:
            outcome = error
        try:
            sequence.on_end(outcome)
        except Exception:  # of this request; the others that end with it are still to be told
            _log.exception("the end of a request can't be told")

    def fail_all(self, error: Exception) -> None:
        """End every request with ``error`` and forget all that was read."""
        ended = [*self._slots.running, *(sequence for _, sequence in self._waiting)]
        self._slots.reset()
        self._waiting.clear()
        for sequence in ended:
            self._report(sequence, error)
