"""What every folder of tests may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running_system import own_system, running_system, shared_ray

__all__ = ["exact_gguf", "own_system", "running_system", "shared_ray", "tiny_gguf"]


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a 3.4 MB model that llama.cpp loads; it answers in words and needs half a second to make."""
    # Here, so that a run without a model does not need numpy and gguf.
    from tests.tools.make_tiny_gguf import make

    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    make(path)
    return path


@pytest.fixture(scope="session")
def exact_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one of full precision: without flash attention nobody's answer depends on the company it is in."""
    from tests.tools.make_tiny_gguf import make

    path = tmp_path_factory.mktemp("models") / "exact.gguf"
    make(path, kind="f32")
    return path
