"""One Ray and one running system for all tests that need them: a Ray takes seven seconds to start."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from aiqueue import launch
from aiqueue.config import Settings

SIMULATED: dict[str, Any] = {
    "providers": {"instant": {"kind": "simulated"}, "slow": {"kind": "simulated", "latency_ms": 300}},
    "pools": {
        "fast": {"providers": ["instant"], "slots": 32, "workers": 1},
        "slow": {"providers": ["slow"], "slots": 8, "workers": 1},
    },
}


def chat(provider: str = "instant", text: str = "Why?", **more: Any) -> dict[str, Any]:
    """A chat payload."""
    messages = [{"role": "user", "content": text}]
    return {"type": "chat_completion", "provider": provider, "model": "m", "messages": messages, **more}


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    """A Ray of the tests' own, with its own folder and ports."""
    # A short path: Ray's sockets lie below it, and a socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="aiq"))
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(folder)
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        namespace="tests",
        runtime_env={"env_vars": {"RAY_allow_out_of_band_object_ref_serialization": "0"}},
    )
    yield
    ray.shutdown()
    if before is None:
        del os.environ["RAY_TMPDIR"]
    else:
        os.environ["RAY_TMPDIR"] = before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def running_system(
    shared_ray: None, exact_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[launch.System]:
    """A system with HTTP, simulated providers, a tiny local model, and one whose file is missing."""
    folder = tmp_path_factory.mktemp("system")
    local = {"kind": "llama_cpp", "context_tokens": 512}
    settings = Settings(
        namespace="tests-shared",
        providers={
            **SIMULATED["providers"],
            "tiny": {**local, "model_path": exact_gguf, "models": ["tiny"], "llama": {"flash_attention": False}},
            "missing": {**local, "model_path": folder / "missing.gguf"},
        },
        pools={
            **SIMULATED["pools"],
            "tiny": {"providers": ["tiny"], "workers": 1},
            "missing": {"providers": ["missing"], "workers": 1},
        },
        journal={"path": folder / "journal.db"},
        http={"port": 0},
    )
    with launch.start(settings) as running:
        yield running


@pytest.fixture
def own_system(shared_ray: None, tmp_path: Path) -> Iterator[launch.System]:
    """A system of the test's own, without HTTP, whose actors it may kill."""
    # Of its own: a namespace that had another journal is refused.
    name = f"tests-{tmp_path.name}"
    journal = {"path": tmp_path / "journal.db"}
    with launch.start(Settings(namespace=name, journal=journal, **SIMULATED), http=False) as running:
        yield running
