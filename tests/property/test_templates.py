"""Whatever steps are called, a template gets the answer of the step that the submit's check found for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from aiqueue.engine.states import JobState
from aiqueue.errors import TemplateFailed, ValidationError
from aiqueue.journal.base import StoredJob
from aiqueue.orchestrator.graphs import Graph, chain_in_parts, check_fan_in, graph_in_parts
from aiqueue.protocol import JobInput, Need
from aiqueue.results import encode_result
from aiqueue.service.lookup import input_of
from aiqueue.templates import fill
from aiqueue.testing.jobs import chat, result
from aiqueue.waiting import at_once

NAMES = (
    "0",
    "1",
    "2",
    "3",
    "01",
    "²",
    "\u0661",
    "1²",
    "previous",
    "steps",
    "results",
    "items",
    "json",
    "a",
    "ä",
    "-1",
    "_",
)
names = st.sampled_from(NAMES)
#: What stands between the braces, of a graph, a chain or a fan-in.
wanted = st.one_of(
    st.just("previous"),
    names.map(lambda name: f"steps.{name}"),
    st.integers(0, 4).map(lambda place: f"steps[{place}]"),
    st.integers(0, 4).map(lambda place: f"results[{place}]"),
    st.integers(0, 4).map(lambda place: f"results.{place}"),
)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[list[str], list[str]]]:
    """Return what each node needs, and what its templates name: mostly nodes before it, so that many graphs work."""
    made: dict[str, tuple[list[str], list[str]]] = {}
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        before = st.lists(st.sampled_from(sorted(made)), max_size=3) if made else st.just([])
        templates = [f"steps.{other}" for other in draw(before)] + draw(st.lists(wanted, max_size=1))
        made[name] = (draw(before), templates)
    return dict(draw(st.permutations(list(made.items()))))


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[str | None, list[str]]]:
    """Return names and templates of steps: mostly of steps before them, so that many chains work."""
    steps: list[tuple[str | None, list[str]]] = []
    free = draw(st.permutations(NAMES)) if draw(st.booleans()) else [name for name in NAMES if not name.isdecimal()]
    for at in range(draw(st.integers(1, 5))):
        before = [f"steps.{name or place}" for place, (name, _) in enumerate(steps)] + [f"steps.{n}" for n in range(at)]
        templates = draw(st.lists(st.sampled_from(before), max_size=3)) if before else []
        name = draw(st.sampled_from([None, str(at), free[at], free[at], "a"]))
        steps.append((name, templates + draw(st.lists(wanted, max_size=1))))
    return steps


def payload_of(templates: Sequence[str]) -> dict[str, Any]:
    return chat("|".join(f"{{{{{each}.content}}}}" for each in templates))


def asked(
    payload: Mapping[str, Any], needs: Sequence[Need], failed: frozenset[str] = frozenset(), on_error: str = "fail"
) -> str:
    """Return what the worker asks the model, if each job's answer is its own id."""
    inputs: list[JobInput] = []
    for place, need in enumerate(needs):
        state = JobState.FAILED if need.job_id in failed else JobState.COMPLETED
        stored = StoredJob(0, need.job_id, b"", state.value, b"", encode_result(result(need.job_id)), b"")
        given = input_of(need, place, on_error, stored)
        inputs += [given] if given is not None else []
    return str(fill(dict(payload), inputs)["messages"][-1]["content"])


def accepted(make: Callable[[], Graph]) -> Graph | None:
    try:
        return make()
    except ValidationError:
        return None


def in_graph(name: str, nodes: Mapping[str, tuple[list[str], list[str]]]) -> list[str] | None:
    """Return the nodes that the templates of one name, None if one names none: in a graph only names count."""
    depends_on, templates = nodes[name]
    by_name = [each.replace("[", ".").rstrip("]").partition(".")[2] for each in templates if each.startswith("steps")]
    needs = list(dict.fromkeys([*depends_on, *by_name]))
    found: list[str] = []
    for each in templates:
        root, _, which = each.replace("[", ".").rstrip("]").partition(".")
        if root == "steps":
            found.append(which)
        elif root == "previous":
            found += needs if len(needs) == 1 else [""]
        elif f"results[{which}]" != each:
            found.append("")
        else:
            found.append(needs[int(which)] if int(which) < len(needs) else "")
    return found if set(found) <= set(nodes) else None


@example(nodes={"1": ([], []), "2": ([], []), "3": ([], []), "a": ([], ["steps.1", "steps.2", "steps.3"])})
@example(nodes={"b": ([], []), "a": (["b"], ["previous", "steps.c"]), "c": ([], [])})
@settings(max_examples=300)
@given(nodes=graphs())
def test_a_template_of_a_graph_gets_the_node_that_it_names(nodes: dict[str, tuple[list[str], list[str]]]) -> None:
    named = {name: in_graph(name, nodes) for name in nodes}
    given_nodes = {name: {"payload": payload_of(node[1]), "depends_on": node[0]} for name, node in nodes.items()}
    graph = accepted(lambda: at_once(graph_in_parts(given_nodes)))
    event(f"accepted: {graph is not None}")
    if graph is None:
        assert None in named.values() or has_circle(nodes, named)
        return
    ids = [step.name for step in graph.steps]
    for step, needs in zip(graph.steps, at_once(graph.needs_in_parts(ids)), strict=True):
        assert step.needs == tuple(ids.index(need.job_id) for need in needs)
        assert asked(given_nodes[step.name]["payload"], needs) == "|".join(named[step.name] or [])  # type: ignore[arg-type]


def has_circle(nodes: Mapping[str, tuple[list[str], list[str]]], named: Mapping[str, list[str] | None]) -> bool:
    left = {name: {*nodes[name][0], *(named[name] or [])} for name in nodes}
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    return bool(left)


@example(steps=[("2", []), ("x", []), ("1", []), ("y", ["steps.2", "steps.1", "steps[0]"])])
@example(steps=[(None, []), ("a", ["steps.²"])])
@example(steps=[(None, []), (None, []), (None, ["steps.01"])])
@settings(max_examples=300)
@given(steps=chains())
def test_a_template_of_a_chain_gets_the_step_that_it_names(steps: list[tuple[str | None, list[str]]]) -> None:
    called = [name or str(at) for at, (name, _) in enumerate(steps)]
    places = {str(at): at for at in range(len(steps))}
    may_be_called = all(called[at] not in places or places[called[at]] == at for at in range(len(steps)))
    where = places | {name: at for at, name in enumerate(called)}

    def place(at: int, template: str) -> int:
        root, _, which = template.replace("[", ".").rstrip("]").partition(".")
        return at - 1 if root == "previous" else where.get(which, at) if root == "steps" else at

    named = [[place(at, each) for each in templates] for at, (_, templates) in enumerate(steps)]
    given_steps = [{"payload": payload_of(each), **({"name": name} if name else {})} for name, each in steps]
    chain = accepted(lambda: at_once(chain_in_parts(given_steps, stop_on_error=True)))
    event(f"accepted: {chain is not None}")
    if chain is None:
        is_number = any(
            name and name.isascii() and name.isdigit() and name != str(at) for at, (name, _) in enumerate(steps)
        )
        twice = len(set(called)) < len(called)
        assert is_number or twice or any(not 0 <= of < at for at, found in enumerate(named) for of in found)
        return
    assert may_be_called
    ids = [f"job-{at}" for at in range(len(steps))]
    for at, needs in enumerate(at_once(chain.needs_in_parts(ids))):
        assert asked(given_steps[at]["payload"], needs) == "|".join(ids[of] for of in named[at])


@example(count=3, failed={1}, place=1)
@given(count=st.integers(1, 4), failed=st.sets(st.integers(0, 3)), place=st.integers(0, 4))
def test_a_result_by_its_place_is_that_of_the_job_at_it_whichever_jobs_are_skipped(
    count: int, failed: set[int], place: int
) -> None:
    ids, payload = [f"job-{at}" for at in range(count)], payload_of([f"results[{place}]"])
    try:
        check_fan_in(payload, count)
    except ValidationError:
        assert place >= count
        return
    try:
        said = asked(payload, [Need(job_id) for job_id in ids], frozenset(f"job-{at}" for at in failed), "skip")
    except TemplateFailed:
        assert place in failed
    else:
        assert (said, place in failed) == (ids[place], False)
