"""What is read from Ray's nodes and errors."""

from __future__ import annotations

import pytest

from actors import cluster, system


@pytest.mark.parametrize(("marked", "said"), [(0, "none is marked"), (1, ""), (2, "2 nodes (10.0.0.0, 10.0.0.1)")])
def test_other_than_one_node_for_the_journal_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, marked: int, said: str
) -> None:
    nodes = [
        {
            "Alive": number < 3,
            "NodeManagerAddress": f"10.0.0.{number}",
            "Resources": {"aiqueue_journal": 1.0} if number < marked or number == 3 else {},
        }
        for number in range(4)
    ]
    monkeypatch.setattr("actors.cluster.ray.nodes", lambda: nodes)
    monkeypatch.setattr("actors.cluster.ray.cluster_resources", lambda: {"aiqueue_journal": 1.0} if marked else {})
    assert said in system.warning()
    assert bool(said) == bool(system.warning())


@pytest.mark.parametrize("name", ["errors.base.StartError", "journal.identity.JournalNotHere"])
def test_what_a_constructor_refused_is_told_without_the_name_of_a_class(name: str) -> None:
    error = RuntimeError(f"The actor died because of an error, \x1b[36mray::\n  File\naiqueue.{name}: the path: gone")
    assert cluster.start_error(error) == "the path: gone"
    assert cluster.start_error(RuntimeError("aiqueue.errors.base.QueueUnavailable: not this")) == ""
