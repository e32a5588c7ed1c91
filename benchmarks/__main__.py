"""Run the scenarios named on the command line (without: all but the long ones), print a table, write JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Figure

SCENARIOS = (
    "throughput",
    "round_trip",
    "load",
    "http",
    "claims",
    "million",
    "orchestration",
    "scaling",
    "llama",
    "stalls",
)
LONG = ("soak", "recovery")
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> None:
    """Run and report."""
    unknown = sorted(set(names) - {*SCENARIOS, *LONG})
    if unknown:
        sys.exit(f"unknown scenario {', '.join(unknown)}; there are: {', '.join(SCENARIOS + LONG)}")
    console, figures = Console(), []
    for name in names or SCENARIOS:
        for figure in import_module(f"benchmarks.{name}").run():
            console.print(f"{figure.name}: {figure.value:,.2f} {figure.unit}")
            figures.append(figure)
    console.print(_table(figures))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")


def _table(figures: list[Figure]) -> Table:
    table = Table("what", "measured", "unit", "floor", "fastest peer")
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:,.2f}", figure.unit, figure.floor, figure.peer)
    return table


main(sys.argv[1:])
