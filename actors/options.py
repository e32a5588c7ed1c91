"""How each actor is started.

``max_task_retries=0`` everywhere: Ray must not repeat a mutation by itself; callers do, under the same ids.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors import cluster
from aiqueue.config import PoolConfig, Settings

POOL_MANAGER_NAME = "aiqueue-pool-manager"
JOURNAL_RESOURCE = "aiqueue_journal"  #: a custom resource that marks the node with the journal's disk

_LEAST_CPUS = 0.05  # a worker that waits for answers uses little, but what asks for nothing is no demand for a node

_DETACHED: dict[str, Any] = {
    "lifetime": "detached",
    "get_if_exists": True,
    "max_restarts": -1,
    "max_task_retries": 0,
    "enable_task_events": False,  # nobody looks at our long polls in the dashboard, and each would be reported to Ray
}


def queue_actor_options(name: str, namespace: str) -> dict[str, Any]:
    """Return the queue actor's options: on the node that is marked for the journal, else on this one.

    One event loop and no concurrency groups: a group would have a thread of its own, and the queue takes no locks.
    """
    options = {**_DETACHED, "name": name, "namespace": namespace, "num_cpus": 0, "max_concurrency": 20_000}
    return {**options, **_beside_the_journal()}


def _beside_the_journal() -> dict[str, Any]:
    if cluster.has_resource(JOURNAL_RESOURCE):
        return {"resources": {JOURNAL_RESOURCE: 0.001}}
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=here, soft=False)}


def pool_manager_options(namespace: str) -> dict[str, Any]:
    """Return the pool manager's options: where the queue is, so that it keeps no other node from going away."""
    options = {**_DETACHED, "name": POOL_MANAGER_NAME, "namespace": namespace, "num_cpus": 0, "max_concurrency": 1_000}
    return {**options, **_beside_the_journal()}


def worker_options(pool: PoolConfig, name: str, namespace: str, *, least_cpus: float = 0.0) -> dict[str, Any]:
    """Return a worker's options; ``least_cpus`` are reserved where its pool asks for nothing at all.

    Workers restart like the queue: Ray's memory monitor ends what can restart first, and must not find only the queue.
    """
    return {
        **_DETACHED,
        "name": name,
        "namespace": namespace,
        "max_concurrency": 100,
        **demand(pool, least_cpus=least_cpus),
    }


def least_cpus() -> float:
    """Return what a worker reserves whose pool asks for nothing. Blocks for a call.

    Something, or it would find room on any node: none would be added for it, and no node could keep it away. On one
    small machine nothing: there, workers must not wait for each other's room.
    """
    return 0.0 if cluster.is_one_small_machine() else _LEAST_CPUS


def settings_mark(settings: Settings) -> str:
    """Return a short text that tells apart the settings of two workers; those of HTTP and the journal are none."""
    return blake2b(settings.model_dump_json(exclude={"http", "journal"}).encode(), digest_size=8).hexdigest()


def demand(pool: PoolConfig, *, least_cpus: float = 0.0) -> dict[str, Any]:
    """Return what Ray reserves for a worker of ``pool``."""
    found: dict[str, Any] = {
        "num_cpus": _cpus(pool, least_cpus),
        "num_gpus": pool.num_gpus,
        "resources": dict(pool.resources),
    }
    return {**found, "memory": int(pool.memory_mb * 2**20)} if pool.memory_mb else found


def _cpus(pool: PoolConfig, least_cpus: float) -> float:
    if pool.num_cpus is not None:
        return pool.num_cpus
    return 0.0 if pool.num_gpus or pool.memory_mb or pool.resources else least_cpus


def bundle(pool: PoolConfig, *, least_cpus: float = 0.0) -> dict[str, float]:
    """Return the same as one bundle of resources; empty where a worker takes none."""
    named = {"CPU": _cpus(pool, least_cpus), "GPU": pool.num_gpus, "memory": pool.memory_mb * 2**20, **pool.resources}
    return {name: amount for name, amount in named.items() if amount}
