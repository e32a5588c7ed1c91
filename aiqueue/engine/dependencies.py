"""Jobs that wait for other jobs. A job may need only jobs that were accepted before it, so there are no cycles."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from aiqueue.engine.records import JobRecord
from aiqueue.engine.states import JobState
from aiqueue.errors import DependencyFailed
from aiqueue.protocol import Failure, Need

ON_ERROR = frozenset({"fail", "skip", "include"})
MAX_NEEDS = 10_000  #: jobs that one job may need
MAX_EDGES = 100_000  #: needs of all jobs of a chain or a graph together: each takes time in a step of the queue
_NEEDS_PER_CANCEL = 32  #: needs that are let go in the time it takes to cancel a job without any
_T = TypeVar("_T")


class Ended(NamedTuple):
    """A job that has ended."""

    id: str
    state: JobState


class Links:
    """Who waits for whom, among the jobs that have not ended."""

    def __init__(self) -> None:
        self.needs: dict[str, Sequence[Need]] = {}  #: of live jobs that have any
        self.on_error: dict[str, str] = {}
        self._missing: dict[str, int] = {}  #: blocked job -> jobs it still waits for
        self._children: dict[str, list[str]] = {}  #: live job -> who waits for it
        self._needed: dict[str, int] = {}  #: job, ended or not -> live jobs that need it
        #: Jobs that ended, and who has yet to hear of it, the last one first.
        self.freed: list[tuple[Ended, list[str]]] = []
        #: Jobs of large groups that can't run since one that they needed had failed before, and why, to end in turn.
        self.lost: dict[str, Failure] = {}

    def add(self, job_id: str, needs: Sequence[Need], on_error: str, live: Mapping[str, JobRecord]) -> bool:
        """Take a new or loaded job; tell whether it must wait."""
        self.needs[job_id], self.on_error[job_id] = needs, on_error
        for need in needs:
            self._needed[need.job_id] = self._needed.get(need.job_id, 0) + 1
        waits_for = {need.job_id for need in needs if need.job_id in live}
        for parent in waits_for:
            self._children.setdefault(parent, []).append(job_id)
        if waits_for:
            self._missing[job_id] = len(waits_for)
        return bool(waits_for)

    def add_all(
        self,
        needs: dict[str, Sequence[Need]],
        on_error: dict[str, str],
        missing: dict[str, int],
        children: dict[str, list[str]],
        needed: dict[str, int],
    ) -> None:
        """Take many new jobs at once, made ready beforehand; ``children``: the jobs that wait for each.

        The mappings are this object's from now on.
        """
        self.needs = _merged(self.needs, needs)
        self.on_error = _merged(self.on_error, on_error)
        self._missing = _merged(self._missing, missing)
        self._children = _merged(self._children, children)
        self._needed = _summed(self._needed, needed)

    def await_all(self, children: dict[str, list[str]]) -> None:
        """Let jobs that were just taken wait for live ones. The mapping and its lists are this object's from now on."""
        if self._children.keys().isdisjoint(children.keys()):
            self._children = _merged(self._children, children)
            return
        for job_id, more in children.items():
            known = self._children.setdefault(job_id, more)
            if known is not more:
                known += more

    def lose(self, job_id: str, failure: Failure) -> None:
        """A job can't run. It waits for nothing any more but its turn to end."""
        self.lost[job_id] = failure
        self._missing.pop(job_id, None)

    def hear(self, job_id: str, parents: Mapping[str, JobState]) -> None:
        """A job is loaded that did not start, and has yet to hear of the ends of those of ``parents`` that it needs."""
        for parent in {need.job_id for need in self.needs[job_id]} & parents.keys():
            self._children.setdefault(parent, []).append(job_id)
            self._missing[job_id] = self._missing.get(job_id, 0) + 1

    def restore_freed(self, parents: Mapping[str, JobState]) -> None:
        """All jobs are loaded: the ends that some of them had not heard of are as they were."""
        for parent, state in parents.items():
            if children := self._children.pop(parent, None):
                children.reverse()
                self.freed.append((Ended(parent, state), children))

    def needs_of(self, jobs: Iterable[JobRecord]) -> dict[str, tuple[Sequence[Need], str]]:
        """Return what those of ``jobs`` needed that needed anything, and what a failed one means to them."""
        return {job.id: (self.needs[job.id], self.on_error[job.id]) for job in jobs if job.id in self.needs}

    def waits(self, job_id: str) -> bool:
        """Tell whether jobs that this one needs have not ended."""
        return job_id in self._missing or job_id in self.lost

    def ended(self, job: JobRecord) -> None:
        """A job has ended: note who waited for it."""
        if job.id in self.needs:
            self.drop(job.id)
        if children := self._children.pop(job.id, None):
            children.reverse()  # they are taken from the end
            self.freed.append((Ended(job.id, job.state), children))

    def drop(self, job_id: str) -> None:
        """Forget a job that is gone."""
        for need in self.needs.pop(job_id, ()):
            self._needed[need.job_id] -= 1
            if not self._needed[need.job_id]:
                del self._needed[need.job_id]
        self.on_error.pop(job_id, None)
        self._missing.pop(job_id, None)
        self.lost.pop(job_id, None)

    def work_to_drop(self, job_id: str) -> int:
        """Return how many jobs without needs could be cancelled in the time it takes to let go of this one's needs."""
        return len(self.needs.get(job_id, ())) // _NEEDS_PER_CANCEL

    def is_needed(self, job_id: str) -> bool:
        """Return True if a job that has not ended needs this one, or its result."""
        return job_id in self._needed

    def met(self, child: str) -> bool:
        """One of the jobs that ``child`` needs has ended; tell whether it was the last one."""
        left = self._missing.get(child)
        if left is None:  # it has ended itself
            return False
        if left > 1:
            self._missing[child] = left - 1
            return False
        del self._missing[child]
        return True

    def fingerprint(self) -> dict[str, object]:
        """Return what a restart must bring back."""
        waits: dict[str, list[str]] = {}  # only jobs that still wait: the others are skipped when a parent ends
        ended = ((parent.id, children) for parent, children in self.freed)
        for parent, children in (*self._children.items(), *ended):
            for child in children:
                if child in self._missing:
                    waits.setdefault(child, []).append(parent)
        return {
            "missing": dict(self._missing),
            "lost": dict(self.lost),
            "waits": {child: sorted(parents) for child, parents in waits.items()},
            "needed": dict(self._needed),
            "needs": dict(self.needs),
            "on_error": dict(self.on_error),
        }


def _merged(one: dict[str, _T], other: dict[str, _T]) -> dict[str, _T]:
    """Return the larger mapping, updated with the smaller one."""
    few, many = (one, other) if len(one) < len(other) else (other, one)
    many.update(few)
    return many


def _summed(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Return the larger mapping, with the counts of the smaller one added."""
    few, many = (one, other) if len(one) < len(other) else (other, one)
    if many.keys().isdisjoint(few):
        many.update(few)
        return many
    for key, count in few.items():
        many[key] = many.get(key, 0) + count
    return many


def excess(counts: Iterable[int]) -> str:
    """Return why jobs may not have so many needs, and what to do; empty if they may. ``counts``: the needs of each job.

    >>> excess([3, 10_000]), excess([10_001])[:47]
    ('', 'a job needs 10001 others, and may need 10000 at')
    """
    most = total = 0
    for count in counts:
        most, total = max(most, count), total + count
    if most > MAX_NEEDS:
        return f"a job needs {most} others, and may need {MAX_NEEDS} at most: put jobs in between that each need some"
    if total > MAX_EDGES:
        return (
            f"the jobs need others {total} times in all, and may {MAX_EDGES} times at most: where many jobs need the "
            "same many others, put one job in between that needs those and is needed instead; or submit several graphs"
        )
    return ""


def broken(on_error: str, parent: JobState) -> bool:
    """Tell whether a job can't run since one that it needs ended as ``parent``."""
    return on_error == "fail" and parent is not JobState.COMPLETED


def lost_need(needs: Iterable[Need], on_error: str, ended: Mapping[str, str], live: Mapping[str, JobRecord]) -> str:
    """Return the first job without which one can't run: it did not complete, or is not kept any more."""
    if on_error != "fail":
        return ""
    gone = (need.job_id for need in needs if need.job_id not in live)
    return next((job_id for job_id in gone if ended.get(job_id) != JobState.COMPLETED), "")


def failure_of(parent_id: str, state: str | None) -> Failure:
    """Return why a job did not run whose parent did not complete, or is not kept any more (None)."""
    if state is None:
        return not_kept(parent_id).to_failure()
    return DependencyFailed(f"Dependency failed: job {parent_id} ended as {state}, and this job needs it").to_failure()


def not_kept(parent_id: str) -> DependencyFailed:
    """Return the error of a job whose parent's result was deleted."""
    return DependencyFailed(
        f"Dependency failed: the result of job {parent_id} is not kept any more, and this job needs it"
    )


def unknown(needs: Iterable[Need], known: Container[str], live: Mapping[str, JobRecord]) -> str:
    """Return the first job that is needed and not there; empty if all are."""
    return next((need.job_id for need in needs if need.job_id not in live and need.job_id not in known), "")
