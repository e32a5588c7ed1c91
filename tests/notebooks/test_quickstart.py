"""The first notebook: it runs from end to end, and what is committed is what it gives."""

from __future__ import annotations

import re
from typing import Any

import pytest

from aiqueue.levels import LEVELS
from tests.house_rules.sources import ROOT
from tests.notebooks.running import check_all, committed, outputs, run

NOTEBOOK = ROOT / "notebooks" / "01_quickstart.ipynb"
JOBS = 8


def check_outputs(notebook: Any) -> None:
    """Fail unless every part of the tour is there."""
    shown = outputs(notebook)
    assert f"{JOBS}/{JOBS}" in shown["submit"]
    assert sorted(re.findall(r"\w+", shown["order"])) == sorted([*LEVELS] * 2)
    assert len(re.findall(r"\d (?:ms|s) ", shown["answers"])) == JOBS, "every job has an answer and a latency"
    assert "failed" not in shown["answers"]
    assert re.match(r"\d+ tokens, (stop|length)\n.", shown["callback"])
    assert all(level in shown["sla"] and level in shown["stats"] for level in LEVELS)
    check_all(notebook)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_notebook_runs_and_shows_answers(environment: dict[str, str]) -> None:
    check_outputs(run(NOTEBOOK, environment))


def test_the_committed_outputs_are_those_of_a_whole_run() -> None:
    check_outputs(committed(NOTEBOOK))
