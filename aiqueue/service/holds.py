"""Results that a submit or a retry under way looks up: they are kept until the jobs that need them are accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


class Holds:
    """Whether a job's result is needed: by a live job (``is_needed``), or by one that is about to be accepted."""

    def __init__(self, is_needed: Callable[[str], bool]) -> None:
        self._is_needed = is_needed
        self._held = Counter[str]()

    def needed(self, job_id: str) -> bool:
        """Return True if the job must not be deleted now."""
        return self._is_needed(job_id) or job_id in self._held

    def take(self, job_ids: Collection[str]) -> None:
        """Keep jobs until ``release``."""
        self._held.update(job_ids)

    def release(self, job_ids: Collection[str]) -> None:
        """Undo one ``take`` of these jobs."""
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
