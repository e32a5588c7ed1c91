"""The first notebook: it runs from end to end, and what is committed is what it gives."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from aiqueue.levels import LEVELS
from aiqueue.presets import DEMO_MODEL, demo_model
from tests.house_rules.sources import ROOT

NOTEBOOK = ROOT / "notebooks" / "01_quickstart.ipynb"
JOBS = 8

# What tells one machine from another: folders, addresses, and anything that was worth a warning.
_OF_ONE_MACHINE = re.compile(r"/(?:home|root|tmp|usr|var)/|\d+\.\d+\.\d+\.\d+|[Ww]arning|WARN|Traceback")


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


def outputs(notebook: Any) -> dict[str, str]:
    """Return what each code cell printed or showed as text, by the cell's id."""
    return {
        cell.id: "".join(out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def check_outputs(notebook: Any) -> None:
    """Fail unless every part of the tour is there."""
    shown = outputs(notebook)
    assert f"{JOBS}/{JOBS}" in shown["submit"]
    assert sorted(re.findall(r"\w+", shown["order"])) == sorted([*LEVELS] * 2)
    assert len(re.findall(r"\d (?:ms|s) ", shown["answers"])) == JOBS, "every job has an answer and a latency"
    assert "failed" not in shown["answers"]
    assert re.match(r"\d+ tokens, (stop|length)\n.", shown["callback"])
    assert all(level in shown["sla"] and level in shown["stats"] for level in LEVELS)
    assert not [name for name, text in shown.items() if _OF_ONE_MACHINE.search(text)]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_notebook_runs_and_shows_answers(environment: dict[str, str]) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.execute(env=environment)  # raises the error of the cell that fails
    check_outputs(notebook)


def test_the_committed_outputs_are_those_of_a_whole_run() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    check_outputs(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
