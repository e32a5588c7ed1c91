"""What the pool manager asks of the Ray cluster itself: named actors, nodes, room for workers to come."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray._private import services
from ray._private.state import state as cluster_state
from ray.autoscaler import sdk as autoscaler
from ray.experimental import internal_kv
from ray.util import list_named_actors

from aiqueue.errors import StartError
from aiqueue.journal.identity import KnownJournal, decode, encode

ALIVE, RESTARTING = "ALIVE", "RESTARTING"  #: of an actor's states: its process is there; it has died and will be again

_ROOM = b"aiqueue:room"  # in Ray's store: the namespace of the system whose request for room counts
_SMALL_CPUS = 4  # with fewer than that on its only node, a machine has no room to set aside


class Nodes(NamedTuple):
    """The cluster's nodes by Ray's id."""

    dead: frozenset[str]  #: known to be; a node in neither may be newer than this list
    draining: dict[str, float]  #: when each will be gone, in seconds since the epoch; 0.0: not said


def nodes() -> Nodes:
    """Return the nodes as the GCS knows them. Blocks for a call.

    Ray has no public list of the nodes that drain: this is where its own libraries look.
    """
    dead = frozenset(node["NodeID"] for node in _all_nodes() if not node["Alive"])
    return Nodes(dead, {node: until_ms / 1e3 for node, until_ms in cluster_state.get_draining_nodes().items()})


def is_one_small_machine() -> bool:
    """Tell whether all there is is one node with few cores: then workers run beside each other, however many."""
    cpus = [node["Resources"].get("CPU", 0.0) for node in _all_nodes() if node["Alive"]]
    return len(cpus) == 1 and 0 < cpus[0] < _SMALL_CPUS


def addresses(*, resource: str = "") -> list[str]:
    """Return the addresses of the nodes that are there, or of those that have this resource."""
    alive = [node for node in _all_nodes() if node["Alive"]]
    return [node["NodeManagerAddress"] for node in alive if not resource or resource in node["Resources"]]


def _all_nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray has no types here
    return found


def has_resource(name: str) -> bool:
    """Return True if a node has this resource."""
    return name in ray.cluster_resources()  # type: ignore[no-untyped-call]


def names_in(namespace: str) -> list[str]:
    """Return the names of the living actors of ``namespace``."""
    return [entry["name"] for entry in list_named_actors(all_namespaces=True) if entry["namespace"] == namespace]


def find(name: str, namespace: str) -> Any:
    """Return the actor of this name, None if there is none; one that Ray is starting again still has its name."""
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None


def is_gone(name: str, namespace: str) -> bool:
    """Tell whether no actor has this name any more."""
    return find(name, namespace) is None


def state_of(actor: Any) -> str:
    """Return Ray's name for an actor's state, empty if it knows none. Blocks for a call, whatever the actor does."""
    return str(cluster_state.actor_table(actor._actor_id.hex()).get("State", ""))


def start_error(error: Exception) -> str:
    """Return what an actor's constructor said in a StartError; empty if it raised none. ``error``: of a call to it."""
    kinds: list[type[StartError]] = [StartError, *StartError.__subclasses__()]
    names = {kind.__name__ for kind in kinds}
    for line in reversed(str(error).splitlines()):
        raised, _, said = line.partition(": ")
        if raised.rpartition(".")[2] in names:
            return said
    return ""


def process_of(actor: Any) -> tuple[int, str]:
    """Return an actor's process id and node, as Ray knows them. Blocks for a call, whatever the actor does."""
    found = cluster_state.actor_table(actor._actor_id.hex())
    return int(found.get("Pid", 0)), str(found.get("Address", {}).get("NodeID", ""))


def this_node() -> str:
    """Return what people call the node of this process: its host name and address."""
    return f"{socket.gethostname()} ({services.get_node_ip_address()})"  # type: ignore[no-untyped-call]


def tell_journal(namespace: str, known: KnownJournal) -> None:
    """Keep which journal the system in ``namespace`` has, for as long as this Ray keeps its store."""
    internal_kv._internal_kv_put(_journal_key(namespace), encode(known), overwrite=True)


def journal_of(namespace: str) -> KnownJournal | None:
    """Return the journal that the system in ``namespace`` had last; None if this Ray knows of none.

    Raises StartError for what can't be read.
    """
    try:
        return decode(internal_kv._internal_kv_get(_journal_key(namespace)))
    except ValueError as error:
        raise StartError(
            f"which journal the namespace {namespace!r} had, as Ray keeps it, {error}. If what lies at journal.path is "
            "the right one, or a new one is meant, start once with `aiqueue up --new-journal`"
        ) from error


def _journal_key(namespace: str) -> bytes:
    return f"aiqueue:journal:{namespace}".encode()


def tell_trouble(namespace: str, trouble: str) -> None:
    """Leave word of what keeps the queue of ``namespace`` from starting again; "" when nothing does any more."""
    internal_kv._internal_kv_put(_trouble_key(namespace), trouble.encode(errors="replace"), overwrite=True)


def trouble_of(namespace: str) -> str:
    """Return what keeps the queue of ``namespace`` from starting again, empty if nothing is known."""
    return (internal_kv._internal_kv_get(_trouble_key(namespace)) or b"").decode()


def tell_settings(namespace: str, json: str) -> None:
    """Keep the settings that the queue of ``namespace`` runs with."""
    internal_kv._internal_kv_put(_settings_key(namespace), json.encode(), overwrite=True)


def settings_of(namespace: str) -> str:
    """Return the settings that the queue of ``namespace`` runs with, empty if nothing is known."""
    return (internal_kv._internal_kv_get(_settings_key(namespace)) or b"").decode()


def _settings_key(namespace: str) -> bytes:
    return f"aiqueue:settings:{namespace}".encode()


def _trouble_key(namespace: str) -> bytes:
    return f"aiqueue:trouble:{namespace}".encode()


def keep_room(namespace: str, bundles: Sequence[dict[str, float]]) -> None:
    """Let Ray's autoscaler keep nodes for these demands, used or not.

    Replaces what was asked before, by whatever system: Ray keeps one such request for the whole cluster, also when who
    asked is gone. None takes back what the system in ``namespace`` asked last, and leaves another one's.
    """
    if bundles:
        internal_kv._internal_kv_put(_ROOM, namespace.encode(), overwrite=True)
        autoscaler.request_resources(bundles=list(bundles))
    elif internal_kv._internal_kv_get(_ROOM) == namespace.encode():
        autoscaler.request_resources(bundles=[])
        internal_kv._internal_kv_del(_ROOM)


def end_actor(actor: Any) -> None:
    """End an actor for good. Ray ends a process that is stopped, and so hears nothing, after five seconds."""
    ray.kill(actor, no_restart=True)
