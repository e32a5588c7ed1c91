"""What the pool manager asks of the Ray cluster itself: named actors, nodes, room for workers to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray._private.state import state as cluster_state
from ray.autoscaler import sdk as autoscaler
from ray.util import list_named_actors


class Nodes(NamedTuple):
    """The cluster's nodes by Ray's id."""

    alive: frozenset[str]
    draining: dict[str, float]  #: when each will be gone, in seconds since the epoch; 0.0: not said


def nodes() -> Nodes:
    """Return the nodes as the GCS knows them. Blocks for a call.

    Ray has no public list of the nodes that drain: this is where its own libraries look.
    """
    alive = frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])  # type: ignore[no-untyped-call]  # Ray has no types here
    return Nodes(alive, {node: until_ms / 1e3 for node, until_ms in cluster_state.get_draining_nodes().items()})


def names_in(namespace: str) -> list[str]:
    """Return the names of the living actors of ``namespace``."""
    return [entry["name"] for entry in list_named_actors(all_namespaces=True) if entry["namespace"] == namespace]


def is_gone(name: str, namespace: str) -> bool:
    """Tell whether no actor has this name any more; one that Ray is starting again still has it."""
    try:
        ray.get_actor(name, namespace=namespace)
    except ValueError:
        return True
    return False


def keep_room(bundles: Sequence[dict[str, float]]) -> None:
    """Let Ray's autoscaler keep nodes for these demands, used or not. Replaces what was asked before."""
    autoscaler.request_resources(bundles=list(bundles))


def end_actor(actor: Any) -> None:
    """End an actor for good. Ray ends a process that is stopped, and so hears nothing, after five seconds."""
    ray.kill(actor, no_restart=True)
