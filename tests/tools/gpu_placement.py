"""Starts two llama.cpp workers on a Ray with two logical GPUs, and prints which devices each one sees, as JSON.

A process of its own, since a process can be in one Ray at a time and that of the other tests has no GPUs.

python -m tests.tools.gpu_placement MODEL
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray

from actors.llama_worker_actor import LlamaWorkerActor
from actors.options import worker_options
from aiqueue.config import Settings

NAMESPACE = "tests-placement"


def main(model: str) -> None:
    """Start, ask and print."""
    settings = Settings(
        namespace=NAMESPACE,
        providers={"tiny": {"kind": "llama_cpp", "model_path": Path(model), "context_tokens": 256}},
        pools={"tiny": {"providers": ["tiny"], "workers": 2, "num_gpus": 1}},
    )
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, namespace=NAMESPACE, log_to_driver=False)
    workers = [_worker(settings, number) for number in range(2)]
    devices = ray.get([worker.devices.remote() for worker in workers], timeout=120)
    third = _worker(settings, 2)
    ready, _ = ray.wait([third.devices.remote()], timeout=2)
    print(json.dumps({"devices": devices, "third_found_room": bool(ready)}))
    ray.shutdown()


def _worker(settings: Settings, number: int) -> ray.actor.ActorHandle:
    options = worker_options(settings.pools["tiny"], f"worker-{number}", NAMESPACE)
    return ray.remote(LlamaWorkerActor).options(**options).remote(settings.model_dump_json(), "tiny")


if __name__ == "__main__":
    main(*sys.argv[1:])
