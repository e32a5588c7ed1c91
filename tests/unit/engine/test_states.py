"""The table of moves."""

from __future__ import annotations

import itertools

import pytest

from aiqueue.engine.core import Core, IllegalMove, Turn
from aiqueue.engine.counters import Counters
from aiqueue.engine.policy import EnginePolicy
from aiqueue.engine.states import MOVES, TERMINAL, JobState, mermaid
from aiqueue.testing.jobs import header
from tests.tools.queue_harness import POLICY

ILLEGAL = [(source, target) for source, target in itertools.product(JobState, repeat=2) if target not in MOVES[source]]


def test_every_state_has_a_row() -> None:
    assert set(MOVES) == set(JobState)


def test_every_state_can_be_reached_from_blocked() -> None:
    reached, new = set[JobState](), {JobState.BLOCKED}
    while new:
        reached |= new
        new = {target for source in new for target in MOVES[source]} - reached
    assert reached == set(JobState)


def test_every_state_leads_to_an_end() -> None:
    ends = set(TERMINAL)
    for _ in JobState:
        ends |= {source for source, targets in MOVES.items() if targets & ends}
    assert ends == set(JobState)


def test_no_move_leaves_an_end() -> None:
    ends = {JobState.COMPLETED, JobState.FAILED, JobState.DEAD_LETTER, JobState.CANCELLED}
    assert ends <= TERMINAL
    assert not any(MOVES[state] for state in TERMINAL)


def test_no_state_moves_to_itself() -> None:
    assert not [state for state, targets in MOVES.items() if state in targets]


@pytest.mark.parametrize(("source", "target"), ILLEGAL, ids=lambda state: state.value)
def test_a_move_outside_the_table_is_refused_and_changes_nothing(source: JobState, target: JobState) -> None:
    core = Core(POLICY, Counters())
    job = core.record(1, "a", header())
    job.state = source
    turn = Turn(1.0)
    with pytest.raises(IllegalMove, match=f"{source} -> {target}"):
        core.move(turn, job, target)
    assert job.state is source
    assert not turn.rows
    assert not turn.events


def test_the_diagram_has_every_move_and_every_end() -> None:
    lines = [line.strip() for line in mermaid().splitlines()]
    assert lines[0] == "stateDiagram-v2"
    assert "[*] --> queued" in lines
    drawn = [line for line in lines[1:] if not line.startswith("[*]")]
    moves = {f"{source} --> {target}" for source, targets in MOVES.items() for target in targets}
    ends = {f"{state} --> [*]" for state in TERMINAL}
    assert set(drawn) == moves | ends
    assert len(drawn) == len(moves | ends)


def test_the_diagram_is_the_same_each_time() -> None:
    assert mermaid() == mermaid()


def test_a_policy_without_routes_is_a_whole_one() -> None:
    assert EnginePolicy().routes == {}
