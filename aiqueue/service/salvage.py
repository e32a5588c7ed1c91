"""What can be loaded of a journal that can't be loaded whole: a row that can't be decoded costs no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from aiqueue.engine.soundness import fault_in, printable
from aiqueue.journal.base import Journal, Recovered
from aiqueue.protocol import decode_spec

_T = TypeVar("_T")
_NAMED = 20  # rows that the log names


class Salvage:
    """The rows of one journal that can't be loaded. ``loads`` loads rows of one kind, alone; it raises if it can't.

    Jobs of a batch that can't be loaded are lost with it: it may be paused, or cancelled, and they must not run then.
    """

    def __init__(self, journal: Journal, loads: Callable[..., object], levels: int) -> None:
        self._loads, self._said = loads, list[str]()
        with journal.recover() as found:
            self._gates = self._sound("gates", found.gates)
            self._schedules = self._sound("schedules", found.schedules)
            self._batches = self._sound("batches", found.batches)
            self.jobs: dict[int, str] = {}  #: id by seq
            for row in found.rows:
                if why := fault_in(row, levels):
                    self.jobs[row[0]] = row[1]
                    self._lose("jobs", f"{row[0]} ({printable(row[1])})", why)
        self._lose_with_batches(journal, {row[0] for row in found.batches} - {row[0] for row in self._batches})
        #: of jobs whose own header may not say it
        self.batch_of = {
            seq: decode_spec(spec).id
            for number, spec, _ in (self._batches if self.jobs else ())
            for part in journal.parts(number)
            for seq in self.jobs
            if part.first_seq <= seq < part.first_seq + part.jobs
        }

    def __str__(self) -> str:
        more = f"; and {len(self._said) - _NAMED} more" if len(self._said) > _NAMED else ""
        return "; ".join(self._said[:_NAMED]) + more

    def is_empty(self) -> bool:
        """Return True if each row can be loaded."""
        return not self._said

    def left_of(self, found: Recovered) -> Recovered:
        """Return what can be loaded of all but the jobs."""
        return found._replace(gates=self._gates, schedules=self._schedules, batches=self._batches)

    def _sound(self, table: str, rows: Sequence[_T]) -> list[_T]:
        return [row for row in rows if self._is_sound(table, row)]

    def _is_sound(self, table: str, row: _T) -> bool:
        try:
            self._loads(**{table: [row]})
        except Exception as error:
            self._lose(table, printable(str(row[0])), printable(str(error)))  # type: ignore[index]
            return False
        return True

    def _lose(self, table: str, row: str, why: str) -> None:
        self._said.append(f"{table}, row {row}: {why}")

    def _lose_with_batches(self, journal: Journal, numbers: set[int]) -> None:
        parts = [part for number in numbers for part in journal.parts(number)]
        if not parts:
            return
        with journal.recover() as found:
            for row in found.rows:
                if any(part.first_seq <= row[0] < part.first_seq + part.jobs for part in parts):
                    self.jobs[row[0]] = row[1]
