"""The workers of one pool: who is there, who comes, who goes, and what has to be done about it.

The roster knows no Ray: it is told what happened and answers with actions, in order. A worker is pending (asked for,
maybe waiting for a node), ready (has spoken) or draining; each of the first two counts for the pool's size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiqueue.scaling.load import WorkerReport

SCALED_UP, SCALED_DOWN = "worker-pool:scaled-up", "worker-pool:scaled-down"
UNHEALTHY, REPLACED = "worker-pool:worker-unhealthy", "worker-pool:worker-replaced"

WORKER_PREFIX = "aiqueue-worker-"  #: of the names of all workers

_NUMBER = re.compile("[0-9]+")
_MOST_WAIT_S = 60.0
_SHORT_LIFE_S = 180.0  # two health checks and more: what is ill by then would be so again


class Stage(StrEnum):
    """Where a worker is in its life."""

    PENDING = "pending"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Let the worker end what it runs (within ``limit_s``; None: as configured), then end it."""

    name: str
    limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Kill:
    """End the worker at once. What it held is given back by the GiveBack that follows."""

    name: str


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Tell the queue that a worker process is gone and why: its jobs run again elsewhere.

    ``crashed``: the process ended or hung by itself, so one of its jobs may be the cause.
    """

    worker_id: str
    reason: str
    crashed: bool


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell whoever listens."""

    event: str
    data: Mapping[str, Any]


Action = Start | Drain | Kill | GiveBack | Announce


@dataclass(slots=True)
class Vacancy:
    """The place of a worker that was not well: whose it was, and why it is free."""

    worker_id: str = ""
    reason: str = ""


@dataclass(slots=True)
class Member:
    """One worker by its name, which it keeps when Ray starts its process again."""

    name: str
    stage: Stage = Stage.PENDING
    worker_id: str = ""
    node: str = ""
    place: Vacancy = field(default_factory=Vacancy)
    adopted: bool = False  #: found by a new manager, and has not spoken since
    since: float = 0.0  #: when it was first heard of
    trouble: str = ""  #: of its own telling


class Roster:
    """See the module. ``goal`` is the size that the pool is to have."""

    def __init__(self, pool: str, goal: int) -> None:
        self._pool = pool
        self.goal = goal
        self.members: dict[str, Member] = {}
        self._vacancies: list[Vacancy] = []
        self._next_number = 0
        self._inherited: set[str] | None = None
        self._now = 0.0  # the last look
        self._failed_starts = 0
        self._short_lives = 0  # in a row
        self._last_short = 0.0  # when the last of these ended
        self._start_at = 0.0  # not before: what fails at once must not be started in a tight loop

    @property
    def prefix(self) -> str:
        """What the names of this pool's workers begin with."""
        return worker_prefix(self._pool)

    @property
    def size(self) -> int:
        """How many workers are there or on their way; those that drain do not count."""
        return sum(member.stage is not Stage.DRAINING for member in self.members.values())

    def adopt(self, names: list[str]) -> None:
        """Take in workers of this pool that an earlier manager started; they are pending until they speak."""
        for name in names:
            if is_worker_of(self._pool, name) and name not in self.members:
                self.members[name] = Member(name, adopted=True)
                self._next_number = max(self._next_number, int(name.removeprefix(self.prefix)) + 1)

    def settle(self, held: Mapping[str, int]) -> list[Action]:
        """Give back what was held, at the first look, by workers of whom no trace is left.

        They died while no manager watched. It is known once all that were found have spoken; later ones are not judged.
        """
        if self._inherited is None:
            self._inherited = set(held)
        if not self._inherited or any(m.adopted and m.stage is Stage.PENDING for m in self.members.values()):
            return []
        gone = self._inherited - {member.worker_id for member in self.members.values()}
        self._inherited = set()
        reason = "it died while no pool manager ran"
        return [GiveBack(worker_id, reason, crashed=False) for worker_id in sorted(gone)]

    def resize(self, target: int, held: Mapping[str, int], *, now: float) -> list[Action]:
        """Move towards ``target``: start what is missing, drain what is too much and idle. Nothing busy is touched.

        ``held``: jobs in hand by worker id. A worker that the queue has not heard of yet holds none.
        """
        self._now = now
        actions: list[Action] = []
        before = self.goal
        if target > self.goal:
            self.goal = target
        elif target < self.goal:
            empty = min(self.goal - target, max(0, self.goal - self.size))  # places that nobody has filled yet
            spare = self._spare(self.goal - target - empty, held)
            self.goal -= empty + len(spare)
            actions += [self._leave(member, Drain(member.name)) for member in spare]
        del self._vacancies[max(0, self.goal - self.size) :]
        actions += self._start_missing(now)
        if self.goal != before:
            name = SCALED_UP if self.goal > before else SCALED_DOWN
            data = {"pool": self._pool, "previous_size": before, "new_size": self.goal}
            actions.append(Announce(name, data))
        return actions

    def spoke(self, name: str, report: WorkerReport) -> list[Action]:
        """Note a worker's report; a new worker id under an old name is a process that Ray started again."""
        member = self.members.get(name)
        if member is None:
            return []
        if member.stage is Stage.DRAINING:
            return [] if member.worker_id in ("", report.worker_id) else self._restarted(member)
        actions: list[Action] = []
        if member.worker_id and member.worker_id != report.worker_id:
            actions += self._restarted(member)
        fresh = member.stage is not Stage.READY
        member.worker_id, member.node, member.stage, member.adopted = report.worker_id, report.node, Stage.READY, False
        member.since = self._now if fresh else member.since
        self._failed_starts = 0
        if member.since >= self._last_short and self._now - member.since >= _SHORT_LIFE_S:
            self._short_lives = 0
        if report.trouble and report.trouble != member.trouble and not report.refused:  # its replacement tells that
            actions.append(self._unhealthy(member, report.trouble))
        member.trouble = report.trouble
        if report.draining:  # as an earlier manager told it
            member.stage = Stage.DRAINING
            return [*actions, Drain(name)]
        if fresh and member.place.reason:
            old, reason = member.place.worker_id, member.place.reason
            data = {"pool": self._pool, "worker_id": old, "new_worker_id": report.worker_id, "reason": reason}
            actions.append(Announce(REPLACED, data))
            member.place = Vacancy()
        return actions

    def fell(self, name: str, reason: str, *, crashed: bool) -> list[Action]:
        """Note that a worker's process is gone, and that Ray starts another one under its name when there is room.

        ``crashed``: it ended by itself, and not with its node.
        """
        member = self.members.get(name)
        return [] if member is None or not member.worker_id else self._fell(member, reason, crashed=crashed)

    def died(self, name: str, reason: str, *, crashed: bool, now: float) -> list[Action]:
        """Note that a worker is gone for good. Its place is filled by the next ``resize``."""
        member = self.members.pop(name, None)
        if member is None:
            return []
        if member.stage is Stage.PENDING:
            self._failed_starts += 1
            self._start_at = now + min(_MOST_WAIT_S, 2.0**self._failed_starts)
        back: list[Action] = [GiveBack(member.worker_id, reason, crashed)] if member.worker_id else []
        if member.stage is Stage.DRAINING:
            return back
        self._vacancies.append(Vacancy(member.worker_id or name, reason))
        return [*back, self._unhealthy(member, reason)]

    def replace(self, name: str, reason: str, *, hard: bool, limit_s: float | None = None) -> list[Action]:
        """Take an ill worker out; its place is filled by the next ``resize``.

        ``hard``: end it now, its jobs go back. Else it may end its jobs. ``limit_s``: within that time, for its node is
        about to go. Workers that fall ill soon after their start, one after the other, are replaced after 4, 8 … 60 s;
        meanwhile one that can still work does.
        """
        member = self.members.get(name)
        if member is None or (member.stage is Stage.DRAINING and not hard):
            return []
        drained, moves = member.stage is Stage.DRAINING, limit_s is not None
        if not drained and not moves:
            if not hard and self._now < self._start_at:
                return []
            reason += self._note_life(member)
        told: list[Action] = [] if drained else [self._unhealthy(member, reason)]
        if not drained:
            self._vacancies.append(Vacancy(member.worker_id or name, reason))
        if not hard:
            return [*told, self._leave(member, Drain(name, limit_s))]
        del self.members[name]
        back: list[Action] = [GiveBack(member.worker_id, reason, crashed=True)] if member.worker_id else []
        return [*told, Kill(name), *back]

    def drained(self, name: str) -> list[Action]:
        """Note that a worker that drained is gone. The queue need not wait for its heartbeat any more."""
        member = self.members.pop(name, None)
        if member is None or not member.worker_id:
            return []
        return [GiveBack(member.worker_id, "it was stopped", crashed=False)]

    def on_node(self, node: str) -> list[str]:
        """Return the names of the workers on a node that do not drain yet."""
        return [m.name for m in self.members.values() if m.node == node and m.stage is Stage.READY]

    def _restarted(self, member: Member) -> list[Action]:
        return self._fell(member, "its process died", crashed=True)

    def _fell(self, member: Member, reason: str, *, crashed: bool) -> list[Action]:
        back = GiveBack(member.worker_id, reason, crashed)
        if member.stage is Stage.DRAINING:  # nobody waits for its return
            del self.members[member.name]
            return [Kill(member.name), back]
        place = Vacancy(member.worker_id, reason)
        actions = [back, self._unhealthy(member, reason)]
        member.worker_id, member.node, member.stage, member.place = "", "", Stage.PENDING, place
        return actions

    def _spare(self, count: int, held: Mapping[str, int]) -> list[Member]:
        """Up to ``count`` workers that nobody would miss: those still awaited, then idle ones, the newest first."""
        idle = [
            member
            for member in reversed(self.members.values())
            if (member.stage is Stage.PENDING and not member.adopted)  # an adopted one may be at work
            or (member.stage is Stage.READY and not held.get(member.worker_id))
        ]
        return sorted(idle, key=lambda member: member.stage is Stage.READY)[:count]

    def _note_life(self, member: Member) -> str:
        """Count a worker that fell ill soon after its start; return what there is to say of that."""
        if member.stage is Stage.READY and self._now - member.since >= _SHORT_LIFE_S:
            return ""
        self._short_lives += 1
        self._last_short = self._now
        if self._short_lives == 1:
            return ""
        wait_s = min(_MOST_WAIT_S, 2.0**self._short_lives)
        self._start_at = max(self._start_at, self._now + wait_s)
        return (
            f" (early failures in a row in this pool: {self._short_lives}; next start in {wait_s:g} s. "
            f"See the workers' log, and check whether the limits in pools.{self._pool} are too low)"
        )

    def _leave(self, member: Member, action: Drain) -> Drain:
        member.stage = Stage.DRAINING
        return action

    def _start_missing(self, now: float) -> list[Action]:
        if now < self._start_at:
            return []
        actions: list[Action] = []
        for _ in range(self.goal - self.size):
            name = f"{self.prefix}{self._next_number}"
            self._next_number += 1
            place = self._vacancies.pop(0) if self._vacancies else Vacancy()
            self.members[name] = Member(name, place=place)
            actions.append(Start(name))
        return actions

    def _unhealthy(self, member: Member, reason: str) -> Action:
        who = member.worker_id or member.name
        return Announce(UNHEALTHY, {"pool": self._pool, "worker_id": who, "reason": reason})


def worker_prefix(pool: str) -> str:
    """Return what the names of a pool's workers begin with; their number follows."""
    return f"{WORKER_PREFIX}{pool}-"


def is_worker_of(pool: str, name: str) -> bool:
    """Tell whether ``name`` is that of a worker of ``pool``: another pool's name may begin with this one's."""
    prefix = worker_prefix(pool)
    return name.startswith(prefix) and _NUMBER.fullmatch(name.removeprefix(prefix)) is not None
