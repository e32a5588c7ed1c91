"""Where the kernels of the notebooks run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiqueue.presets import DEMO_MODEL, demo_model


@pytest.fixture
def environment(tiny_gguf: Path) -> Iterator[dict[str, str]]:
    """Return the environment of a kernel with a Ray of its own; the tiny model stands in for a missing demo model."""
    # A short path: Ray's sockets lie below it.
    folder = tempfile.mkdtemp(prefix="aqn")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AIQUEUE_"))}
    own = {"HOME": folder, "RAY_TMPDIR": folder}
    if demo_model() is None:
        own |= {
            "AIQUEUE_PROVIDERS__local__KIND": "llama_cpp",
            "AIQUEUE_PROVIDERS__local__MODEL_PATH": str(tiny_gguf),
            "AIQUEUE_PROVIDERS__local__MODELS": f'["{DEMO_MODEL}"]',
        }
    yield clean | own
    shutil.rmtree(folder, ignore_errors=True)
