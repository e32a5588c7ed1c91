"""What a seed decides, what was seen, and what was wrong."""

from __future__ import annotations

import contextvars
import random
from collections.abc import Callable, Collection
from typing import Any

from aiqueue.testing.manual_clock import START
from aiqueue.testing.simulation.loop import Node, SimulatedLoop

_DELAYS_S = (0.0, 0.25, 0.5, 0.5, 1.0, 1.0, 2.0, 5.0)
_WORK_S = (0.001, 0.001, 0.001, 0.001, 0.25, 0.5, 1.0, 2.0)
_NO_NODE = contextvars.Context()
Line = tuple[float, tuple[Any, ...]]


class World:
    """One simulated run. Faults happen while ``storm`` is set."""

    def __init__(self, seed: int, only: Collection[str] = ()) -> None:
        self.seed = seed
        self.draws = random.Random(seed)
        self.storm = True
        self.over = False
        self.quiet_at = 0.0  #: when the last call that is on its way arrives
        self.set_s = 0.0  #: by how much the machine's clock was set wrong
        self.latest = 0.0  #: that the machine's clock ever said
        self.clock_changed_at = -1e9
        self.booted_s = 0.0
        self.slept_s = 0.0  #: for how long the machine slept, which no timer noticed
        self.lines: list[Line] = []
        self.violations: list[str] = []
        self.happened: dict[str, int] = {}  #: faults by name
        draws = self.draws
        #: What kind of storm this is: most runs have a few kinds of trouble, so that each is seen alone as well.
        self.odds = {name: draws.choice((0.0, 0.0, 1.0, 3.0)) for name in FAULTS}
        for name in FAULTS if only else ():
            self.odds[name] = 3.0 if name in only else 0.0
        self.loop = SimulatedLoop(self._stall_s, self._read_s)
        self.crash_queue: Callable[[], None] = lambda: None

    def change_clock(self, *, set_s: float | None = None, slept_s: float = 0.0) -> None:
        """Set the machine's clock wrong by ``set_s``, or let the machine sleep."""
        self.latest = max(self.latest, self.wall())
        self.set_s = self.set_s if set_s is None else set_s
        self.slept_s += slept_s
        self.clock_changed_at = self.loop.time()
        self.note("clock", self.set_s, "slept", self.slept_s)

    def wall(self) -> float:
        """Return what the machine's clock says."""
        return START + self.loop.now + self.set_s + self.slept_s

    def passed(self) -> float:
        """Return the seconds since the simulation began, the machine's sleep included."""
        return self.loop.now + self.slept_s

    def counted(self) -> float:
        """Return the seconds since the machine booted: nobody can set them."""
        return self.loop.now + self.slept_s - self.booted_s

    def boot(self) -> str:
        """Return what names this boot of the machine."""
        return f"boot {self.booted_s}"

    def reboot(self) -> None:
        """Begin to count anew."""
        self.booted_s += self.counted() - 1.0
        self.note("reboot")

    def wall_ns(self) -> int:
        """Return what the machine's clock says, in nanoseconds."""
        return int(self.wall() * 1e9)

    def note(self, *what: Any) -> None:
        """Put a line into the trace."""
        self.lines.append((self.loop.now, what))

    def violated(self, rule: str, *what: Any) -> None:
        """Note that a promise was broken."""
        found = f"{rule}: {' '.join(map(str, what))}"
        if not self.over and found not in self.violations:
            self.violations.append(found)
            self.note("VIOLATED", rule, *what)

    def strikes(self, fault: str, odds: float) -> bool:
        """Tell whether a fault happens now; ``odds`` are those of a storm of its usual strength."""
        if not self.storm or not self.odds[fault]:
            return False
        struck = self.draws.random() < odds * self.odds[fault]
        if struck:
            self.happened[fault] = self.happened.get(fault, 0) + 1
        return struck

    def delay_s(self) -> float:
        """Return how long a call travels."""
        return self.draws.choice(_DELAYS_S) if self.strikes("slow call", 0.15) else 0.001

    def work_s(self) -> float:
        """Return how long an answer takes: often the same, so that things meet in one moment."""
        return self.draws.choice(_WORK_S) if self.storm else 0.001

    def later(self, wait_s: float, what: Callable[..., object], *args: object) -> None:
        """Let something happen after a time, whoever dies until then."""
        at = self.loop.now + wait_s
        if at > self.quiet_at:
            self.quiet_at = at
        self.loop.call_at(at, what, *args, context=_NO_NODE)

    def node(self, name: str) -> Node:
        """Return a new process."""
        return Node(name)

    def _stall_s(self) -> float:
        if self.strikes("stall", 0.004):
            stalled = self.draws.choice((0.05, 0.5, 1.0, 7.0))
            self.note("stall", stalled)
            return stalled
        return 0.0

    def _read_s(self) -> float:
        if self.strikes("slow reads", 0.1):
            return self.draws.choice((0.01, 0.5, 2.0))
        return 0.0


FAULTS = (
    "stall",
    "slow call",
    "slow reads",
    "failed read",
    "slow commit",
    "failed commit",
    "queue crash",
    "lost call",
    "lost answer",
    "silence",
    "late call",
    "call twice",
    "worker death",
    "worker stop",
    "stop after a loss",
    "client death",
    "reboot",
    "clock set",
    "sleep",
    "bad answer",
    "odd text",
    "limits",
    "hang",
    "poison",
)
