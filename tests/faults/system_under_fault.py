"""A whole system in a process and a Ray of its own, so that a test can give its Ray faults from the start.

Submits jobs in waves, waits for all, prints one line of JSON: what became of them. ``… JOURNAL_FOLDER WAVES``
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from aiqueue import launch
from aiqueue.config import Settings
from aiqueue.errors import AIQueueError
from aiqueue.testing.simulated_provider import SimulatedServer

_WAVE = 20
_TRIES = 60  # to start at all: of its three calls, each is lost four times in ten


def settings_for(provider: SimulatedServer, folder: Path) -> Settings:
    """Two workers that call the provider; short leases, so that a lost call shows."""
    entry = {"kind": "openai", "base_url": provider.openai_url, "gate": {"breaker_failures": 10_000, "adaptive": False}}
    return Settings(
        namespace="tests-fault",
        providers={"http": entry},
        pools={"http": {"providers": ["http"], "workers": 2, "slots": 8}},
        journal={"path": folder / "journal.db"},
        lease={"heartbeat_s": 5.0},
        retry={"base_s": 0.05},
    )


def start(settings: Settings) -> launch.System:
    """Start the system, as often as that takes."""
    for _ in range(_TRIES):
        try:
            return launch.start(settings, http=False)
        except (AIQueueError, RayActorError) as error:
            print(f"start: {error}", file=sys.stderr)
    raise SystemExit(f"the system did not start in {_TRIES} tries")


def payload(text: str) -> dict[str, Any]:
    """A chat whose text says which job it is."""
    messages = [{"role": "user", "content": text}]
    return {"type": "chat_completion", "provider": "http", "model": "sim:ok+latency=0.05", "messages": messages}


def run(folder: Path, waves: int) -> dict[str, Any]:
    """Return what became of the jobs, by their texts, and what the provider was asked."""
    with SimulatedServer() as provider, start(settings_for(provider, folder)) as system:
        adapter = system.adapter
        ids: dict[str, str] = {}
        for wave in range(waves):
            texts = [f"{wave}-{job}" for job in range(_WAVE)]
            ids |= dict(zip(texts, adapter.submit_jobs([payload(text) for text in texts]), strict=True))
            time.sleep(0.1)
        infos = dict(zip(ids, adapter.wait_all(list(ids.values())), strict=True))
        stats = adapter.get_stats()
        calls = Counter(str(request.body["messages"][0]["content"]) for request in list(provider.requests))
        return {
            "jobs": {text: [info.status, info.attempt, calls[text]] for text, info in infos.items()},
            "stats": [stats.total_jobs, stats.completed_jobs, stats.queued_jobs, stats.processing_jobs],
        }


if __name__ == "__main__":
    # Here, so that a start that fails does not cost a new Ray.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, namespace="tests-fault")
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))), flush=True)
    ray.shutdown()
