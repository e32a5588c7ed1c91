"""The notebook on batches, graphs and schedules: it runs from end to end, and what is committed is what it gives."""

from __future__ import annotations

import re
from typing import Any

import pytest

from aiqueue.graph_picture import COLOURS
from tests.house_rules.sources import ROOT
from tests.notebooks.running import check_all, committed, outputs, run

NOTEBOOK = ROOT / "notebooks" / "02_many_jobs.ipynb"


def check_outputs(notebook: Any) -> None:
    """Fail unless every part of the tour is there."""
    shown = outputs(notebook)
    assert "countries: 100%" in shown["batch"]
    assert "12/12" in shown["batch"]
    assert re.findall(r"^(\d+) \w+ completed", shown["results"], re.MULTILINE) == ["8", "9", "10", "11"]
    assert "4/4" in shown["graph-done"]
    assert pictures(notebook, "graph")[0].count("<rect") == 4
    (done,) = pictures(notebook, "graph-done")
    assert done.count(COLOURS["completed"][0]) == 4
    assert re.match(r"3 results, [1-9]\d* tokens", shown["fan-in"])
    assert len(re.findall(r"^\w{3} 08:30$", shown["schedule"], re.MULTILINE)) == 5
    check_all(notebook)


def pictures(notebook: Any, name: str) -> list[str]:
    """Return the pictures that a cell has shown."""
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    return [out.data["image/svg+xml"] for out in cell.outputs if "image/svg+xml" in out.get("data", {})]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_notebook_runs_and_shows_all_parts(environment: dict[str, str]) -> None:
    check_outputs(run(NOTEBOOK, environment))


def test_the_committed_outputs_are_those_of_a_whole_run() -> None:
    check_outputs(committed(NOTEBOOK))
