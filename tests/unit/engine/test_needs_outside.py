"""Large graphs that need jobs of others: how those ended is looked at in parts, and a restart knows what is to fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as changed

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aiqueue.engine import Cancel, Submit, Tick
from aiqueue.engine.prepared import Prepared
from aiqueue.protocol import BatchSpec, Need, SubmitGroup
from aiqueue.testing.jobs import header, submission
from tests.tools.queue_harness import POLICY, QueueHarness


def graph(*needs: list[str], on_error: str = "fail") -> SubmitGroup:
    """Return a graph of jobs g0, g1, ... with these needs."""
    jobs = [
        submission(f"g{at}", replace(header(batch_id="g"), index=at, needs=tuple(map(Need, each)), on_error=on_error))
        for at, each in enumerate(needs)
    ]
    return SubmitGroup(jobs, batch=BatchSpec("g", "graph"))


def parts_of(work: Iterator[None]) -> int:
    return sum(1 for _ in work)


def ready(queue: QueueHarness, group: SubmitGroup, ended: dict[str, str]) -> Prepared:
    """Make a group ready, and let it know how jobs outside ended."""
    made = queue.engine.prepare(group)
    parts_of(made.in_parts(100, now=queue.clock.now()))
    parts_of(made.meet(ended, 100))
    return made


def send(queue: QueueHarness, made: Prepared, ended: dict[str, str]) -> None:
    (refusal,) = queue.do(Submit([made.group], ended=ended, prepared={id(made.group): made})).reply
    assert refusal is None


def test_needs_outside_are_looked_at_in_parts() -> None:
    queue = QueueHarness()
    names = [f"d{n}" for n in range(2_000)]
    made = queue.engine.prepare(graph(names, names[:1_000]))
    parts_of(made.in_parts(100, now=1.0))
    assert parts_of(made.meet(dict.fromkeys(names, "failed"), 100)) >= 2_000 // 100


@pytest.mark.parametrize("count", [200])
def test_what_many_failed_needs_stop_ends_some_at_a_time_and_writes_little(count: int) -> None:
    queue = QueueHarness(changed(POLICY, most_at_once=2))
    names = [[f"d{at}-{n}" for n in range(30)] for at in range(count)]
    ended = {name: "failed" for each in names for name in each}
    made = ready(queue, graph(*names), ended)
    send(queue, made, ended)
    assert len(queue.engine.core.live) >= count - 2
    turns = 0
    while queue.engine.core.live:
        effects = queue.do(Tick())
        assert len(effects.rows.counters) < 1_000, "what is yet to end is not written again in each turn"
        assert len(effects.rows.states) <= 2
        turns += 1
    assert turns >= count // 2 - 1


@given(
    needs=st.lists(st.lists(st.sampled_from(["live", "ok", "bad", "worse"]), unique=True, max_size=4), min_size=1),
    on_error=st.sampled_from(["fail", "skip", "include"]),
    ends=st.booleans(),
)
def test_a_restart_between_any_two_turns_goes_on_with_what_is_to_fail(
    needs: list[list[str]], on_error: str, ends: bool
) -> None:
    queue = QueueHarness(changed(POLICY, most_at_once=2))
    queue.submit("live")
    ended = {"ok": "completed", "bad": "failed", "worse": "cancelled"}
    made = ready(queue, graph(*needs, on_error=on_error), ended)
    if ends:
        queue.do(Cancel(["live"]))
        ended["live"] = "cancelled"
    send(queue, made, ended)
    for _ in range(100):
        before = queue.engine.fingerprint()
        queue.restart()
        after = queue.engine.fingerprint()
        assert after["links"] == before["links"]
        if not queue.engine.core.pending:
            break
        queue.tick()
    bad = {"bad", "worse"} | ({"live"} if ends else set())
    for at, each in enumerate(needs):
        stopped = on_error == "fail" and bool(bad & set(each))
        waits = not stopped and not ends and "live" in each
        assert queue.state_of(f"g{at}") == ("failed" if stopped else "queued")
        assert queue.engine.core.links.waits(f"g{at}") == waits
