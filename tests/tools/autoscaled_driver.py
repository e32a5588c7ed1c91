"""Runs inside the cluster of `autoscaled_ray`: a burst, its end, a killed and a drained node. Prints facts as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import ray

from actors.cluster import names_in
from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.scaling.load import decode_report
from aiqueue.views import JobInfo
from tests.running_system import chat
from tests.tools.autoscaled_ray import processes_of
from tests.tools.pool_events import PoolEvents, eventually

_NAMESPACE = "tests-autoscaled"
_WORKER = "aiqueue-worker-"  # what the names of workers begin with
_SCALED = {
    "slots": 2,
    "min_workers": 0,
    "default_workers": 0,
    "scale_up_threshold": 4,
    "scale_down_cooldown_ms": 1_000,
    "health_check_interval_ms": 5_000,
}


def main(folder: Path) -> None:
    """Run the scenes in turn."""
    settings = Settings(
        namespace=_NAMESPACE,
        providers={
            "cpu": {"kind": "simulated", "latency_ms": 1_000},
            "gpu": {"kind": "simulated", "latency_ms": 1_000},
        },
        pools={
            "cpu": {"providers": ["cpu"], "num_cpus": 1, "max_workers": 2, **_SCALED},
            "gpu": {"providers": ["gpu"], "num_gpus": 1, "max_workers": 1, **_SCALED},
        },
        journal={"path": folder / "journal.db"},
        scaling_interval_ms=200,
    )
    ray.init(namespace=_NAMESPACE, log_to_driver=False)
    with launch.start(settings, http=False) as system:
        events = PoolEvents(system)
        try:
            facts = {"burst": burst(system), "killed": killed_node(system, events)}
            facts |= {"drained": drained_node(system, events), "room": room_kept(folder)}
        except BaseException:
            explain(events)
            raise
        facts["events"] = events.seen
    print(json.dumps(facts))


def explain(events: PoolEvents) -> None:
    """Say what is known of a scene that did not come to its end."""
    print("events:", events.seen, "\nworkers:", workers(), "\nnodes:", ray.nodes(), file=sys.stderr)
    for path in sorted(Path(os.environ["RAY_TMPDIR"]).glob("ray/session_latest/logs/monitor.*")):
        print(f"{path.name}: ...{path.read_text()[-2_500:]}", file=sys.stderr)


def burst(system: launch.System) -> dict[str, Any]:
    """Jobs for both kinds of nodes where there is none of either; then nothing, until all nodes are gone."""
    began, most, gpus = time.monotonic(), {"CPU": 0, "GPU": 0}, set[str]()
    ids = system.adapter.submit_jobs([chat(kind, str(n)) for kind in ("cpu", "gpu") for n in range(60)])
    up_s = 0.0
    while system.adapter.get_stats().completed_jobs < len(ids):
        assert time.monotonic() < began + 180, "the burst is not worked off"
        for kind in most:
            most[kind] = max(most[kind], len(worker_nodes(kind)))
        up_s = up_s or (time.monotonic() - began if all(most.values()) else 0.0)
        if any("-gpu-" in name for name in workers()) and worker_nodes("GPU") and not gpus:
            gpus.update(gpu_of(name) for name in workers() if "-gpu-" in name)
        time.sleep(0.2)
    infos = system.adapter.wait_all(ids)
    ended = time.monotonic()
    eventually(lambda: not worker_nodes() and not workers(), "no node and no worker left", 90)
    facts = {"up_s": up_s, "down_s": time.monotonic() - ended, "most_nodes": most, "gpus": sorted(gpus)}
    return {**facts, **described(system, infos)}


def killed_node(system: launch.System, events: PoolEvents) -> dict[str, Any]:
    """The raylet of a node that works dies. Enough jobs for Ray to notice while they run: it takes some 20 s."""
    ids = system.adapter.submit_jobs([chat("cpu", str(n % 60)) for n in range(160)])
    system.adapter.wait_all(ids[:4])
    victim = sorted(report_of(name).node for name in workers())[0]
    raylets = processes_of(f"RAY_OVERRIDE_NODE_ID_FOR_TESTING={victim}", "raylet/raylet")
    assert raylets, f"no raylet of {victim} is found"
    for pid in raylets:
        os.kill(pid, signal.SIGKILL)
    reason = f"its node {victim[:8]} died"
    infos = system.adapter.wait_all(ids)
    events.wait_for("worker-unhealthy", 90, pool="cpu")
    return {"reason": reason, **described(system, infos)}


def drained_node(system: launch.System, events: PoolEvents) -> dict[str, Any]:
    """A node gets the notice that it will be taken away."""
    ids = system.adapter.submit_jobs([chat("cpu", str(n)) for n in range(60)])
    system.adapter.wait_all(ids[:4])
    node = sorted(report_of(name).node for name in workers())[0]
    client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    preemption = 2  # DRAIN_NODE_REASON_PREEMPTION
    accepted, message = client.drain_node(node, preemption, "spot notice", int((time.time() + 60) * 1e3))
    assert accepted, message
    reason = f"its node {node[:8]} is being drained"
    events.wait_for("worker-unhealthy", 60, reason=reason)
    infos = system.adapter.wait_all(ids)
    after = time.time()
    ran_on = {info.worker_id for info in infos}
    return {"reason": reason, "seconds": time.time() - after, "workers": len(ran_on), **described(system, infos)}


def room_kept(folder: Path) -> dict[str, Any]:
    """A system whose pool keeps room for a worker that it does not have; then its end."""
    eventually(lambda: not worker_nodes(), "no node is left", 90)
    settings = Settings(
        namespace=f"{_NAMESPACE}-prewarmed",
        providers={"gpu": {"kind": "simulated"}},
        pools={"gpu": {"providers": ["gpu"], "num_gpus": 1, "prewarm_workers": 1, **_SCALED}},
        journal={"path": folder / "prewarmed.db"},
    )
    with launch.start(settings, http=False):
        eventually(lambda: worker_nodes("GPU"), "a GPU node for nobody yet", 60)
        facts = {"workers": len([name for name in names_in(settings.namespace) if name.startswith(_WORKER)])}
    eventually(lambda: not worker_nodes(), "nobody wants it any more", 90)
    return facts


def described(system: launch.System, infos: list[JobInfo]) -> dict[str, Any]:
    """How these jobs ended, and what became of attempts that came to nothing."""
    again = [
        attempt for info in system.adapter.get_jobs([i.job_id for i in infos]) if info for attempt in info.attempts
    ]
    return {
        "statuses": sorted({info.status for info in infos}),
        "jobs": len(infos),
        "answers_right": all(info.result and info.result.text == str(at % 60) for at, info in enumerate(infos)),
        "lost": [attempt.error.message if attempt.error else "" for attempt in again if attempt.outcome == "lost"],
        "other": sorted({attempt.outcome for attempt in again} - {"lost"}),
    }


def workers() -> list[str]:
    """Names of the living workers."""
    return [name for name in names_in(_NAMESPACE) if name.startswith(_WORKER)]


def worker_nodes(kind: str = "") -> list[str]:
    """Nodes beside the head, those that have a resource of this kind."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"][-5:] != "00000"]
    return [node["NodeID"] for node in nodes if not kind or node["Resources"].get(kind)]


def report_of(name: str) -> Any:
    """What a worker says of itself."""
    return decode_report(ray.get(ray.get_actor(name, namespace=_NAMESPACE).report.remote(), timeout=60))


def gpu_of(name: str) -> str:
    """The GPUs that a worker may see."""
    actor = ray.get_actor(name, namespace=_NAMESPACE)
    return str(ray.get(actor.__ray_call__.remote(lambda self: os.environ.get("CUDA_VISIBLE_DEVICES", "")), timeout=60))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
