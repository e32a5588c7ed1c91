"""Running a notebook, and what its cells have printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

# What tells one machine from another: folders, addresses, and anything that was worth a warning.
_OF_ONE_MACHINE = re.compile(r"/(?:home|root|tmp|usr|var)/|\d+\.\d+\.\d+\.\d+|[Ww]arning|WARN|Traceback")


def outputs(notebook: Any) -> dict[str, str]:
    """Return what each code cell printed or showed as text, by the cell's id."""
    return {
        cell.id: "".join(out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def check_all(notebook: Any) -> None:
    """Fail if an output tells on what machine it was made."""
    assert not [name for name, text in outputs(notebook).items() if _OF_ONE_MACHINE.search(text)]


def run(path: Path, environment: dict[str, str]) -> Any:
    """Return the notebook after a run from end to end. Raises the error of the cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(path.parent)}})
    client.execute(env=environment)
    return notebook


def committed(path: Path) -> Any:
    """Return the notebook as it is committed. Fails unless that is the state after one run of all cells."""
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    return notebook
