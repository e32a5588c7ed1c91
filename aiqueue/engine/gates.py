"""Gates: whether a provider may be asked now, and how many calls at once.

A gate belongs to (provider, credential, model), since that is what providers limit. While it is closed its lane's jobs
keep their places and spend no attempt. Four things decide what it lets through:

- the provider's own word (``Retry-After`` and its relatives, on a 429 or a 5xx): closed until then, for a
  second at least and an hour at most;
- a circuit breaker: closed after several failures in a row, or when most of the last calls failed; then one probe;
- the configured limits: calls at once, requests and tokens per minute;
- an adaptive limit of calls at once: halved when the provider says it is overloaded (once per flight: what was under
  way at that time can't cut it again), one more after each window of successes. Source: AIMD, as in TCP.

What an outcome says: a 5xx, a broken connection, an answer that is none, and a timeout of a job that gave the provider
``breaker_timeout_s`` or more are failures of the provider. A result is an answer, and so is any other HTTP status, as a
400: the provider is there. All else says nothing, neither way: a template that asks for what is not there, a worker
without memory or with a bug, a timeout so short that it tells more of the job than of the provider (else a few jobs
with a limit of 100 ms would close the model for everybody). If that was the probe, another one follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from aiqueue.engine.gate_times import GateTimes
from aiqueue.engine.lanes import FEW_LANES
from aiqueue.engine.policy import GatePolicy
from aiqueue.engine.records import LaneKey
from aiqueue.engine.retry import MAX_ASKED_S
from aiqueue.protocol import Failure, Wire

_UNLIMITED = 1_000_000_000
_OVERLOADED = frozenset({429, 503, 529})
_OUTAGE = frozenset({"provider_server_error", "provider_connection", "malformed_response"})
_REFUSED = "rate_limited"
_ANSWERED = frozenset({"result_too_large"})  # beside whatever has an HTTP status
_ASKED_TO_WAIT = {True: "rate limited by the provider", False: "overloaded, and the provider asked to wait"}
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0  # when no time is named, or less than the first: doubled at each refusal


def asks_to_wait(failure: Failure) -> bool:
    """Tell whether the provider asked everybody to wait: with a 429, or on a 5xx with a time."""
    return failure.kind == _REFUSED or ((failure.status or 0) >= 500 and (failure.retry_after_s or 0.0) > 0.0)


class GateKey(NamedTuple):
    """What a provider limits together. In the journal: a JSON list, as a model's name may contain anything."""

    provider: str
    credential: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"

    def to_json(self) -> str:
        """Return the key as the journal has it."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, stored: str) -> GateKey:
        """Return the key that ``to_json`` wrote."""
        return msgspec.json.decode(stored, type=cls)


class GateChange(NamedTuple):
    """A gate closed (``until`` a time, for a ``reason``) or opened (``until`` 0)."""

    key: GateKey
    until: float
    reason: str


class StoredGate(Wire):
    """What a restart must not forget."""

    closed_until: float = 0.0
    reason: str = ""
    probing: bool = False
    tripped_at: float = 0.0


decode_gate = msgspec.msgpack.Decoder(StoredGate).decode


class Bucket:
    """A budget that refills steadily. It may go below zero: tokens are known only after they are spent."""

    __slots__ = ("_at", "_level", "_per_s", "_size")

    def __init__(self, per_minute: float, *, now: float) -> None:
        self._size, self._per_s = max(1.0, per_minute), per_minute / 60.0  # less than one a minute: one at a time
        self._level, self._at = self._size, now

    def level(self, now: float) -> float:
        """Return what may be spent at ``now``."""
        self._level = min(self._size, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = max(self._at, now)
        return self._level

    def spent(self, now: float) -> bool:
        """Tell whether some of the budget has not come back yet."""
        return self.level(now) < self._size

    def spend(self, amount: float, now: float) -> None:
        """Take ``amount``."""
        self._level = self.level(now) - amount

    def next_at(self, now: float) -> float:
        """Return when there is one unit again."""
        return now + max(0.0, 1.0 - self.level(now)) / self._per_s


class Gate:
    """One gate's state."""

    def __init__(
        self, key: GateKey, policy: GatePolicy, *, now: float, on_wait: Callable[[Gate], None] = lambda _: None
    ) -> None:
        """``on_wait`` is told when there is a time that the gate may wait for, or another one."""
        self.key, self._policy, self._on_wait = key, policy, on_wait
        self.closed_until, self.reason = 0.0, ""
        self.emptying = 0  #: times it closed for jobs that would rather fail than wait, and have not all ended yet
        self.in_flight = 0
        self.limit: int | None = None  #: adaptive; None: as many as the workers have slots
        self.probing = False  #: half open: one call tells whether the provider is back
        self._probe_under_way = False
        self._tripped_at = 0.0  #: when the breaker last opened; calls that started before tell nothing new
        self._failures_in_row = 0
        self._recent: deque[bool] = deque(maxlen=policy.breaker_window)
        self._flight_ends = 0.0  #: calls that started before this were part of a flight that was refused already
        self._successes = 0  # since the limit last grew
        self._refusals = 0  # flights in a row that met a 429
        self._requests = Bucket(policy.requests_per_minute, now=now) if policy.requests_per_minute else None
        self._tokens = Bucket(policy.tokens_per_minute, now=now) if policy.tokens_per_minute else None

    def room(self, now: float) -> int:
        """Return how many calls may start at ``now``."""
        if now < self.closed_until or self.emptying:
            return 0
        room = _UNLIMITED
        if self.probing:
            room = 0 if self._probe_under_way else 1
        for limit in (self._policy.max_concurrent, self.limit):
            if limit is not None:
                room = min(room, limit - self.in_flight)
        if self._requests is not None:
            room = min(room, int(self._requests.level(now)))
        if self._tokens is not None and self._tokens.level(now) < 1:
            room = 0
        return max(0, room)

    def next_at(self, now: float) -> float | None:
        """Return when time alone may open the gate; None if it is not time that it waits for."""
        waits = [self.closed_until] if now < self.closed_until else []
        waits += [bucket.next_at(now) for bucket in (self._requests, self._tokens) if bucket and bucket.level(now) < 1]
        return max(waits, default=None)

    def started(self, now: float) -> None:
        """Count a call that starts."""
        self.in_flight += 1
        self._probe_under_way = self.probing
        if self._requests is not None:
            self._requests.spend(1, now)
            self._on_wait(self)

    def used(self, tokens: int, now: float) -> None:
        """Count the tokens of a call, however it ended."""
        if self._tokens is not None:
            self._tokens.spend(tokens, now)
            self._on_wait(self)

    def succeeded(self, *, started_at: float, now: float) -> GateChange | None:
        """Count a call that brought an answer (also one that refuses the request: the provider is there)."""
        self.ended(started_at)
        self._failures_in_row = self._refusals = 0
        self._recent.append(True)
        if self.limit is not None:
            self._successes += 1
            if self._successes >= self.limit:
                self.limit, self._successes = self.limit + 1, 0
        if self.probing and self.is_probe(started_at):
            self.probing = False
            self._recent.clear()
            return self._closed() if now < self.closed_until else self._opened()
        return None

    def failed(self, failure: Failure, *, limit_s: float, started_at: float, now: float) -> GateChange | None:
        """Count a call that failed; return what that did to the gate. ``limit_s``: what its job allows an attempt."""
        refused = failure.kind == _REFUSED
        if not refused and not self._is_outage(failure, min(limit_s, now - started_at)):
            if failure.status is not None or failure.kind in _ANSWERED:
                return self.succeeded(started_at=started_at, now=now)
            self.ended(started_at)
            return None
        self.ended(started_at)
        if (refused or failure.status in _OVERLOADED) and started_at >= self._flight_ends:
            self._flight_ends = now
            self._refusals += asks_to_wait(failure)
            self._cut()
        asked = None
        if asks_to_wait(failure):
            asked = self._close_until(now + self._wait_s(failure), _ASKED_TO_WAIT[refused])
        if refused:
            return asked
        self._failures_in_row += 1
        self._recent.append(False)
        if self.is_probe(started_at) if self.probing else self._is_broken():
            return self._trip(now, failure)
        return asked

    def ended(self, started_at: float) -> None:
        """Count a call out. Alone: one that says nothing about the provider, as its worker died or it was stopped."""
        self.in_flight -= 1
        if self.probing and self.is_probe(started_at):
            self._probe_under_way = False

    def reopen(self, now: float) -> GateChange | None:
        """Return the change if the gate's time has come. A tripped breaker then lets one call through."""
        return self._opened() if self.closed_until and now >= self.closed_until and not self.emptying else None

    def is_fresh(self, now: float) -> bool:
        """Tell whether a new gate would do the same: nothing has been learned that still counts."""
        buckets = [bucket for bucket in (self._requests, self._tokens) if bucket]
        learned = self.closed_until or self.probing or self.limit is not None or self._refusals or False in self._recent
        return not (learned or self.in_flight or self.emptying or any(bucket.spent(now) for bucket in buckets))

    def stored(self) -> StoredGate:
        """Return what to journal."""
        return StoredGate(self.closed_until, self.reason, self.probing, self._tripped_at)

    def restore(self, stored: StoredGate, *, now: float) -> None:
        """Take up what was journaled, no longer than a gate can stay closed: it may be of another clock."""
        self.closed_until = min(stored.closed_until, now + max(MAX_ASKED_S, self._policy.breaker_open_s))
        self.reason, self.probing = stored.reason, stored.probing
        self._tripped_at = min(stored.tripped_at, now)
        self._on_wait(self)

    def is_probe(self, started_at: float) -> bool:
        """Tell whether the call that started then is the one that looks whether the provider is back."""
        return self.probing and started_at > self._tripped_at

    def _is_outage(self, failure: Failure, had_s: float) -> bool:
        """Tell whether a failure is the provider's. ``had_s``: how long it had to answer."""
        if failure.kind == "timeout":
            return had_s >= self._policy.breaker_timeout_s
        return failure.kind in _OUTAGE

    def _is_broken(self) -> bool:
        recent, policy = self._recent, self._policy
        if self._failures_in_row >= policy.breaker_failures:
            return True
        return len(recent) == policy.breaker_window and recent.count(False) >= policy.breaker_ratio * len(recent)

    def _wait_s(self, failure: Failure) -> float:
        """Return how long the gate stays closed. A provider that says "0 s" is not asked again at once."""
        asked = failure.retry_after_s
        if asked is not None and asked >= _FIRST_WAIT_S:
            return min(asked, MAX_ASKED_S)
        return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(max(self._refusals - 1, 0), 10))

    def _cut(self) -> None:
        if self._policy.adaptive:
            under_way = self.in_flight + 1
            self.limit, self._successes = max(1, min(under_way, self.limit or under_way) // 2), 0

    def _close_until(self, until: float, reason: str) -> GateChange | None:
        if until <= self.closed_until:
            return None
        self.closed_until, self.reason = until, reason
        return self._closed()

    def _trip(self, now: float, failure: Failure) -> GateChange:
        self.probing, self._failures_in_row, self._tripped_at = True, 0, now
        self.closed_until = max(self.closed_until, now + self._policy.breaker_open_s)
        self.reason = f"circuit breaker open: {failure.message}"
        return self._closed()

    def _closed(self) -> GateChange:
        self._on_wait(self)
        return GateChange(self.key, self.closed_until, self.reason)

    def _opened(self) -> GateChange:
        self.closed_until, self.reason = 0.0, ""
        self._on_wait(self)
        return GateChange(self.key, 0.0, "probing" if self.probing else "")


class Gates:
    """All gates, made when first needed."""

    def __init__(self, policies: Mapping[str, GatePolicy]) -> None:
        self._policies = policies
        self._gates: dict[GateKey, Gate] = {}
        self._of_lane: dict[LaneKey, Gate] = {}
        self._times: GateTimes[Gate] = GateTimes()
        self._most = FEW_LANES  # then those that know nothing are forgotten

    def __iter__(self) -> Iterator[Gate]:
        return iter(self._gates.values())

    def __len__(self) -> int:
        return len(self._gates)

    def prune(self, now: float) -> None:
        """Forget the gates that know nothing, once there are many: callers may name any number of models."""
        if len(self._gates) <= self._most:
            return
        self._gates = {key: gate for key, gate in self._gates.items() if not gate.is_fresh(now)}
        self._of_lane = {lane: gate for lane, gate in self._of_lane.items() if gate.key in self._gates}
        self._times.keep(self._gates.values())
        self._most = max(FEW_LANES, 2 * len(self._gates))

    def of(self, lane: LaneKey, *, now: float) -> Gate:
        """Return the gate that ``lane`` goes through; lanes of several pools may share one."""
        gate = self._of_lane.get(lane)
        if gate is None:
            key = GateKey(lane.provider, lane.credential, lane.model)
            gate = self._of_lane[lane] = self.at(key, now=now)
        return gate

    def at(self, key: GateKey, *, now: float) -> Gate:
        """Return the gate with this key."""
        gate = self._gates.get(key)
        if gate is None:
            policy = self._policies.get(key.provider, GatePolicy())
            gate = self._gates[key] = Gate(key, policy, now=now, on_wait=self._times.note)
        return gate

    def reopen(self, now: float) -> list[GateChange]:
        """Open the gates whose time has come."""
        return [change for gate in self._times.take(now) if (change := gate.reopen(now))]

    def next_at(self, now: float) -> float | None:
        """Return when the next gate may let something through because of time alone."""
        return self._times.next_at(now)
