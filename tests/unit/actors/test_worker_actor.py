"""A worker that is told to stop, whatever it is doing, and one that is told nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import RpcError

from actors import cluster, worker_actor
from actors.llama_worker_actor import LlamaWorkerActor
from actors.options import settings_mark
from actors.worker_actor import WorkerActor
from aiqueue.config import Settings
from aiqueue.providers.llama_cpp import LlamaCppProvider
from aiqueue.scaling.load import decode_report
from tests.tools.turns import until


@pytest.fixture(autouse=True)
def myself(monkeypatch: pytest.MonkeyPatch) -> object:
    """Let workers be made in this process."""
    myself = object()
    monkeypatch.setattr(
        ray, "get_runtime_context", lambda: SimpleNamespace(current_actor=myself, get_node_id=lambda: "n0")
    )
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *numbers: None)
    return myself


async def test_a_worker_that_no_manager_calls_ends_when_its_system_is_gone(
    monkeypatch: pytest.MonkeyPatch, myself: object
) -> None:
    ended: list[object] = []

    async def gone(namespace: str) -> None:
        pass

    def end(actor: object) -> None:
        ended.append(actor)
        if len(ended) == 1:
            raise RpcError("the control store does not answer")

    monkeypatch.setattr(worker_actor, "wait_until_orphaned", gone)
    monkeypatch.setattr(worker_actor, "_RETRY_S", 0.0)
    monkeypatch.setattr(cluster, "end_actor", end)
    settings = Settings(providers={"a": {"kind": "simulated"}}, pools={"p": {"providers": ["a"]}})
    WorkerActor(settings.model_dump_json(), "p")
    await until(lambda: ended == [myself, myself])  # also after a failure to end it


async def test_a_worker_says_with_which_settings_it_runs() -> None:
    marks = []
    for slots, port in ((8, 8000), (8, 8001), (9, 8000)):
        pools = {"p": {"providers": ["a"], "slots": slots}}
        settings = Settings(providers={"a": {"kind": "simulated"}}, pools=pools, http={"port": port})
        marks.append(decode_report(await WorkerActor(settings.model_dump_json(), "p").report()).settings)
        assert marks[-1] == settings_mark(settings), "as a pool manager with these settings has it"
    assert marks[0] == marks[1] != marks[2]


async def test_a_worker_that_still_loads_its_model_stops_at_once_and_claims_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def load(provider: LlamaCppProvider, name: str) -> None:
        loading.set()
        go_on.wait()
        raise ValueError("it was let go")

    monkeypatch.setattr(LlamaCppProvider, "_load", load)
    settings = Settings(
        providers={"local": {"kind": "llama_cpp", "model_path": "m.gguf"}}, pools={"p": {"providers": ["local"]}}
    )
    worker = LlamaWorkerActor(settings.model_dump_json(), "p")
    serving = asyncio.create_task(worker.serve_jobs())
    await until(loading.is_set)
    try:
        async with asyncio.timeout(120):
            await worker.stop(3_600.0)
        assert not serving.done(), "the load goes on in its thread"
    finally:
        go_on.set()
    await asyncio.gather(serving, return_exceptions=True)
    assert worker._loop is None
