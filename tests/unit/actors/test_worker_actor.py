"""A worker that is told to stop, whatever it is doing."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from actors.llama_worker_actor import LlamaWorkerActor
from aiqueue.config import Settings
from aiqueue.providers.llama_cpp import LlamaCppProvider
from tests.tools.turns import until


async def test_a_worker_that_still_loads_its_model_stops_at_once_and_claims_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *numbers: None)
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
