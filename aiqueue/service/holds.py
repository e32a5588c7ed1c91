"""Results that a submit or a retry under way looks up: they are kept until the jobs that need them are accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

_FEW = 1_000


class Holds:
    """Whether a job's result is needed: by a live job (``is_needed``), or by one that is about to be accepted."""

    def __init__(self, is_needed: Callable[[str], bool]) -> None:
        self._is_needed = is_needed
        self._held = Counter[str]()
        self._many: list[Collection[str]] = []  # of large groups: to count them all took long

    def needed(self, job_id: str) -> bool:
        """Return True if the job must not be deleted now."""
        return self._is_needed(job_id) or job_id in self._held or any(job_id in held for held in self._many)

    def take(self, job_ids: Collection[str]) -> None:
        """Keep jobs until ``release``."""
        if len(job_ids) > _FEW:
            self._many.append(job_ids)
        else:
            self._held.update(job_ids)

    def release(self, job_ids: Collection[str]) -> None:
        """Undo one ``take`` of these jobs."""
        if len(job_ids) > _FEW:
            self._many = _without(self._many, job_ids)
            return
        for job_id in job_ids:
            self._held[job_id] -= 1
            if not self._held[job_id]:
                del self._held[job_id]

    @contextmanager
    def hold(self, job_ids: Collection[str]) -> Iterator[None]:
        """Keep jobs inside the block."""
        self.take(job_ids)
        try:
            yield
        finally:
            self.release(job_ids)


def _without(held: list[Collection[str]], job_ids: Collection[str]) -> list[Collection[str]]:
    """Return what is held without one entry that is equal to ``job_ids``."""
    at = next(at for at, one in enumerate(held) if one is job_ids or one == job_ids)
    return held[:at] + held[at + 1 :]
