"""What is said of a graph that can't work: little, however large the graph is."""

from __future__ import annotations

from typing import Any

import pytest

from aiqueue.errors import ValidationError
from aiqueue.orchestrator.graphs import chain_of, graph_of
from aiqueue.testing.jobs import chat

_MANY = 1_000


def size_of(refused: pytest.ExceptionInfo[ValidationError]) -> int:
    assert len(refused.value.errors) == _MANY
    return max(len(error.message) for error in refused.value.errors)


@pytest.mark.parametrize("node", [{"depends_on": ["nobody"]}, {"payload": chat("{{steps.nobody}}")}])
def test_an_error_of_each_node_names_some_nodes_only(node: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"and {_MANY - 20} more") as refused:
        graph_of({f"node-{number}": {"payload": chat("x")} | node for number in range(_MANY)})
    assert size_of(refused) < 500


def test_an_error_of_each_step_names_some_steps_only() -> None:
    with pytest.raises(ValidationError, match="there are: none") as refused:
        chain_of([chat("{{steps.nobody}}")] * _MANY, stop_on_error=True)
    assert size_of(refused) < 500
