"""A model on a real GPU. Skipped where there is none, or where llama.cpp was built without it."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest
import ray

from actors.llama_worker_actor import LlamaWorkerActor
from actors.options import worker_options
from aiqueue.config import Settings
from aiqueue.llama import native_log, native_model
from aiqueue.llama.model import LoadedModel, ModelOptions
from aiqueue.llama.requests import GenerationRequest, Sampling

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    """Skip, saying what is missing."""
    if shutil.which("nvidia-smi") is None or subprocess.run(["nvidia-smi", "-L"], check=False).returncode:
        pytest.skip("no CUDA device on this machine")
    if not llama_cpp.llama_supports_gpu_offload():
        pytest.skip("llama.cpp was built without CUDA: make .venv CMAKE_ARGS=-DGGML_CUDA=ON")


@pytest.fixture(scope="module")
def model(tiny_gguf: Path) -> Iterator[LoadedModel]:
    found = LoadedModel(tiny_gguf, ModelOptions(gpu_layers=-1, context_tokens=2_048, parallel=16))
    yield found
    found.close()


def question(model: LoadedModel, number: int) -> GenerationRequest:
    tokens = model.chat_tokens([{"role": "user", "content": f"What is said of job {number}?"}])
    return GenerationRequest(tokens=tokens, sampling=Sampling(temperature=0.0), max_tokens=32)


def test_sixteen_requests_share_steps_on_the_gpu(model: LoadedModel) -> None:
    tickets = [model.generate(question(model, number)) for number in range(16)]
    answers = [ticket.future.result(timeout=60) for ticket in tickets]
    assert all(answer.text for answer in answers)
    assert model.counts.steps < model.counts.tokens_generated


def test_vectors_are_made_on_the_gpu(model: LoadedModel) -> None:
    one, other = model.embed([model.tokens_to_embed(text, 0) for text in ("the job", "the queue")]).result(timeout=60)
    assert len(one) == len(other) > 0
    assert one != other


@pytest.mark.parametrize("gpu_layers", [-1, 1, 0])
def test_as_many_layers_lie_on_the_gpu_as_were_asked_for(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, gpu_layers: int
) -> None:
    """By llama.cpp's own word: in a container, nvidia-smi has no memory of this process."""
    said: list[str] = []
    keep = llama_cpp.llama_log_callback(lambda level, text, _: said.append(text.decode(errors="replace")))
    monkeypatch.setattr(native_model, "capture_native_log", lambda: llama_cpp.llama_log_set(keep, ctypes.c_void_p(0)))
    try:
        LoadedModel(tiny_gguf, ModelOptions(gpu_layers=gpu_layers)).close()
    finally:
        native_log.capture_native_log()
    ((on_gpu, of),) = re.findall(r"offloaded (\d+)/(\d+) layers to GPU", "".join(said))
    assert int(on_gpu) == (int(of) if gpu_layers < 0 else gpu_layers)


def test_a_worker_with_a_fraction_of_a_gpu_sees_one(tiny_gguf: Path, shared_ray: None) -> None:
    settings = Settings(
        namespace="tests-gpu",
        providers={"tiny": {"kind": "llama_cpp", "model_path": tiny_gguf, "gpu_layers": -1}},
        pools={"tiny": {"providers": ["tiny"], "num_gpus": 0.5}},
    )
    options = worker_options(settings.pools["tiny"], "gpu-worker", settings.namespace)
    worker = ray.remote(LlamaWorkerActor).options(**options).remote(settings.model_dump_json(), "tiny")
    try:
        assert ray.get(worker.devices.remote(), timeout=60).isdecimal(), "one, by its number"
    finally:
        ray.kill(worker)
