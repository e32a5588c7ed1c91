"""Large graphs: what is said of one that can't work is little, and one that works is made in parts."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Any

import pytest

from aiqueue.errors import ValidationError
from aiqueue.orchestrator.graphs import chain_in_parts, check_fan_in, graph_in_parts
from aiqueue.testing.jobs import chat
from aiqueue.validation import validate_job_payload
from aiqueue.waiting import Parts, at_once

_MANY = 1_000


def size_of(refused: pytest.ExceptionInfo[ValidationError]) -> int:
    assert len(refused.value.errors) == _MANY
    return max(len(error.message) for error in refused.value.errors)


@pytest.mark.parametrize("node", [{"depends_on": ["nobody"]}, {"payload": chat("{{steps.nobody}}")}])
def test_an_error_of_each_node_names_some_nodes_only(node: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"and {_MANY - 20} more") as refused:
        at_once(graph_in_parts({f"node-{number}": {"payload": chat("x")} | node for number in range(_MANY)}))
    assert size_of(refused) < 500


def test_an_error_of_each_step_names_some_steps_only() -> None:
    with pytest.raises(ValidationError, match="there are: none") as refused:
        at_once(chain_in_parts([chat("{{steps.nobody}}")] * _MANY, stop_on_error=True))
    assert size_of(refused) < 500


@pytest.mark.parametrize("template", ["{{steps[²]}}", "{{nobody}}", "{{steps.b}}", "{{previous}}", "{{results[0]}}"])
def test_an_error_in_a_template_names_its_node(template: str) -> None:
    with pytest.raises(ValidationError) as refused:
        at_once(graph_in_parts({"a": {"payload": chat(template)}}))
    assert [error.field for error in refused.value.errors] == ["nodes.a.payload.messages.0.content"]


def full_graph(count: int) -> dict[str, Any]:
    """Return a graph in which each node needs all that come before it."""
    return {f"n{at}": {"payload": chat("x"), "depends_on": [f"n{n}" for n in range(at)]} for at in range(count)}


def parts(work: Parts[Any]) -> int:
    """Return after how many parts others had a turn."""
    return len(list(work))


def test_a_graph_of_few_nodes_with_many_edges_is_made_in_parts() -> None:
    count = 150
    edges = count * (count - 1) // 2
    assert parts(graph_in_parts(full_graph(count))) >= 4 * edges // (1_000 + count), "each pass over its edges"
    graph = at_once(graph_in_parts(full_graph(count)))
    assert [step.name for step in graph.steps] == [f"n{at}" for at in range(count)]
    assert sum(len(step.needs) for step in graph.steps) == edges
    assert parts(graph.needs_in_parts([step.name for step in graph.steps])) >= edges // (1_000 + count)


@pytest.mark.parametrize("kind", ["dict", "model"])
@pytest.mark.parametrize("text", ["x", "{{previous}}"])
def test_of_a_few_large_payloads_256_kib_are_looked_at_in_a_step(kind: str, text: str) -> None:
    count, of_each = 20, 100 * 1_024
    first, other = (
        chat("x") | {"messages": [{"role": "user", "content": "x" * 1_000}] * 100 + [{"role": "user", "content": last}]}
        for last in ("x", text)
    )
    if kind == "model":
        first, other = validate_job_payload(first), validate_job_payload(other)
    expected = count * of_each // (256 * 1_024 + of_each)
    assert parts(chain_in_parts([first, *[other] * (count - 1)], stop_on_error=True)) >= expected
    nodes = {f"n{at}": {"payload": other if at else first, "depends_on": [f"n{at - 1}"][:at]} for at in range(count)}
    assert parts(graph_in_parts(nodes)) >= expected


def test_what_is_no_json_is_a_part_of_its_own() -> None:
    payload = chat("x") | {"config": {"extra_body": {"x": object()}}}
    assert parts(chain_in_parts([payload] * 3, stop_on_error=True)) == 3


def test_a_long_chain_is_made_in_parts() -> None:
    assert parts(chain_in_parts([chat("x")] * 5_000, stop_on_error=True)) == 9, "a step counts, and its need"


def test_the_order_of_a_graph_is_that_of_its_waves() -> None:
    needs = {"d": ["b", "c"], "a": [], "c": ["a"], "b": ["a"], "e": []}
    nodes = {name: {"payload": chat("x"), "depends_on": parents} for name, parents in needs.items()}
    assert [step.name for step in at_once(graph_in_parts(nodes)).steps] == list(TopologicalSorter(needs).static_order())


@pytest.mark.parametrize(
    ("nodes", "limit"),
    [
        ({"last": {"payload": chat("x"), "depends_on": [f"n{n}" for n in range(10_001)]}}, "10000 at most"),
        (full_graph(450), "100000 times at most: where many jobs need the same many others, put one job in between"),
    ],
)
def test_a_graph_with_too_many_edges_is_refused_with_its_limit(nodes: dict[str, Any], limit: str) -> None:
    with pytest.raises(ValidationError, match=limit):
        at_once(graph_in_parts(nodes))


def test_a_name_that_a_node_needs_twice_is_one_edge() -> None:
    nodes = {
        "first": {"payload": chat("x")},
        "second": {"payload": chat("{{steps.first}}" * 5), "depends_on": ["first"]},
    }
    first, second = at_once(graph_in_parts(nodes)).steps
    assert (first.needs, second.needs) == ((), (0,))


def test_a_fan_in_over_too_many_jobs_is_refused_with_its_limit() -> None:
    check_fan_in(chat("{{results}}"), 10_000)
    with pytest.raises(ValidationError, match="10000 at most"):
        check_fan_in(chat("{{results}}"), 10_001)
