"""Who has which of the model's sequences, and when another request may join.

A request joins when there is a sequence for it and cells for its prompt and a little of its answer. How long answers
become is not known beforehand, so cells may run out later: then remembered prefixes are forgotten, and after them the
last in the line gives its cells back and waits, to be read again later. The first in the line never does, so somebody
always gets to the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto

from aiqueue.llama.backend import Backend
from aiqueue.llama.cells import CellLedger
from aiqueue.llama.prefixes import LEAST_SHARED, NO_MATCH, Match, PrefixCache, common_length
from aiqueue.llama.sequence import NOWHERE, Sequence

_ANSWER_CELLS = 32  # kept for each answer on joining


class Join(Enum):
    """What came of a request's wish to join."""

    JOINED = auto()
    WAITS_FOR_PREFIX = auto()  #: another is just reading the same; those behind in the line may pass
    NO_ROOM = auto()  #: nor is there any for those behind: small ones must not starve a big one


class Slots:
    """The sequences of a backend: ``parallel`` for requests, the others for remembered prefixes.

    ``urgent`` of the ``parallel`` are for requests of level 0 only. At most ``remember`` cells are kept for what has
    ended and is not pinned: a step of llama.cpp looks at every cell in use, whoever it is for.
    """

    def __init__(self, backend: Backend, *, parallel: int, urgent: int = 0, remember: int = 0) -> None:
        if not 0 <= urgent < parallel <= backend.sequences:
            raise ValueError(
                f"{urgent} urgent of {parallel} requests at once does not fit {backend.sequences} sequences"
            )
        self._backend = backend
        self._parallel, self._urgent, self._remember = parallel, urgent, remember
        self._cells = CellLedger(backend.cells, backend.sequences)
        self._vacant = list(range(backend.sequences))[::-1]
        self.cache = PrefixCache()
        self.running: list[Sequence] = []  #: in the order of the line

    @property
    def free_cells(self) -> int:
        """Cells that hold nothing."""
        return self._cells.free

    def join(self, sequence: Sequence) -> Join:
        """Give ``sequence``, which has none, a place, and what others have read of its prompt."""
        if not self._has_turn(sequence):
            return Join.NO_ROOM
        found = self._match(sequence)
        if self._is_being_read(sequence, found.length):
            return Join.WAITS_FOR_PREFIX
        if not self._make_space(sequence, found):
            return Join.NO_ROOM
        sequence.place = self._vacant.pop()
        if found.length:
            self._backend.share(found.sequence, sequence.place, found.length)
            self._cells.share(found.sequence, sequence.place, found.length)
            self.cache.touch(found.sequence)
        sequence.read = found.length
        if not sequence.produced:  # else it is here for the second time, and what it finds may be its own
            sequence.cached = found.length
        self.running.append(sequence)
        self.running.sort(key=lambda other: other.rank)
        return Join.JOINED

    def _has_turn(self, sequence: Sequence) -> bool:
        if len(self.running) >= self._parallel:
            return False
        others = sum(other.request.level > 0 for other in self.running)
        return sequence.request.level == 0 or others < self._parallel - self._urgent

    def _match(self, sequence: Sequence) -> Match:
        """Return who has read most of what ``sequence`` is to read. One token is left: its scores are needed."""
        if not self._backend.can_share:
            return NO_MATCH
        tokens = sequence.tokens()
        best = self.cache.match(tokens)
        for other in self.running:
            length = min(other.read, common_length(other.prompt, tokens))
            if length > best.length:
                best = Match(other.place, length)
        best = Match(best.sequence, min(best.length, len(tokens) - 1))
        return best if best.length >= LEAST_SHARED else NO_MATCH

    def _is_being_read(self, sequence: Sequence, known: int) -> bool:
        """Tell whether another is just reading more of the same prompt: waiting for it is the shorter way."""
        if not self._backend.can_share:
            return False
        return any(
            other.read < len(other.prompt)
            and common_length(other.prompt, sequence.prompt) >= max(other.read + 1, known + 1, LEAST_SHARED)
            for other in self.running
        )

    def _make_space(self, sequence: Sequence, found: Match) -> bool:
        wanted = sequence.unread - found.length + min(_ANSWER_CELLS, sequence.still_to_produce)
        wanted += sum(other.unread + min(_ANSWER_CELLS, other.still_to_produce) for other in self.running)
        if self.running and wanted > self._cells.cells - self._needed_with(found):
            return False
        wanted = min(wanted, self._cells.cells - found.length)  # alone it may have all there is
        while (self._cells.free < wanted or not self._vacant) and self._forget(but=found.sequence):
            pass
        return bool(self._vacant)

    def _needed_with(self, found: Match) -> int:
        """Return how many cells stay in use if all that is remembered is forgotten, except what was ``found``."""
        needed = [other.place for other in self.running]
        return self._cells.held_by([*needed, found.sequence] if found.length else needed)

    def make_room(self, count: int) -> Iterable[Sequence]:
        """Free ``count`` cells; return those that had to give up their places, and are to join again."""
        while self._cells.free < count and self._forget():
            pass
        gone = []
        while self._cells.free < count and len(self.running) > 1:
            last = self.running[-1]
            self._release(last)
            gone.append(last)
        return gone

    def _forget(self, *, but: int = NOWHERE) -> bool:
        place = self.cache.forget_one(but=but)
        if place is None:
            return False
        self._empty(place)
        return True

    def advance(self, sequence: Sequence, count: int) -> None:
        """Note that the model reads ``count`` more tokens of ``sequence``."""
        self._cells.take(sequence.place, count)
        sequence.read += count

    def leave(self, sequence: Sequence, *, pinned: bool = False) -> None:
        """Take the place of ``sequence`` and remember what it had read, the beginning at least."""
        place, tokens = sequence.place, sequence.tokens()[: sequence.read]
        if not pinned:
            tokens = tokens[: self._remember]
        known = self.cache.match(tokens)
        is_new = len(tokens) >= LEAST_SHARED and len(tokens) != known.length
        if not self._backend.can_share or not (is_new or pinned):
            self.cache.touch(known.sequence)
            self._release(sequence)
            return
        self.running.remove(sequence)
        sequence.place = NOWHERE
        self._backend.drop(place, but=len(tokens))
        self._cells.drop(place, but=len(tokens))
        for superfluous in self.cache.keep(place, tokens, pinned=pinned):
            self._empty(superfluous)
        while self._cells.held_by(self.cache.unpinned) > self._remember:
            self._forget()

    def _release(self, sequence: Sequence) -> None:
        place = sequence.place
        self.running.remove(sequence)
        sequence.place, sequence.read = NOWHERE, 0
        self._empty(place)

    def _empty(self, place: int) -> None:
        self._backend.drop(place)
        self._cells.drop(place)
        self._vacant.append(place)

    def reset(self) -> None:
        """Forget everything: after a failed step nobody knows what the cache holds."""
        self._backend.clear()
        self.cache.clear()
        for sequence in self.running:
            sequence.place, sequence.read = NOWHERE, 0
        self.running.clear()
        self._cells = CellLedger(self._backend.cells, self._backend.sequences)
        self._vacant = list(range(self._backend.sequences))[::-1]
