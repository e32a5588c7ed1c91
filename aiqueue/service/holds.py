"""Results that a submit or a retry under way looks up: they are kept until the jobs that need them are accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

_FEW = 1_000


class Holds:
    """Whether a job's result is needed: by a live job (``is_needed``), or by one that is about to be accepted."""

    def __init__(self, is_needed: Callable[[str], bool]) -> None:
        self._is_needed = is_needed
        self._held = Counter[str]()
        self._many: list[Set[str]] = []  # of large groups: to count them all took long

    def needed(self, job_id: str) -> bool:
        """Return True if the job must not be deleted now."""
        return self._is_needed(job_id) or job_id in self._held or any(job_id in held for held in self._many)

    def take(self, job_ids: Set[str]) -> None:
        """Keep jobs until ``release``."""
        if len(job_ids) > _FEW:
            self._many.append(job_ids)
        else:
            self._held.update(job_ids)

    def release(self, job_ids: Set[str]) -> None:
        """Undo one ``take`` of this very set."""
        if len(job_ids) > _FEW:
            del self._many[next(at for at, held in enumerate(self._many) if held is job_ids)]
            return
        for job_id in job_ids:
            self._held[job_id] -= 1
            if not self._held[job_id]:
                del self._held[job_id]

    @contextmanager
    def hold(self, job_ids: Set[str]) -> Iterator[None]:
        """Keep jobs inside the block."""
        self.take(job_ids)
        try:
            yield
        finally:
            self.release(job_ids)
