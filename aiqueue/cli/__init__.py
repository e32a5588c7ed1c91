"""The ``aiqueue`` command: bring a system up, give it jobs, look at it. Ray loads only in commands that need it."""

from __future__ import annotations

from aiqueue.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; this is the entry point ``aiqueue``."""
    app(prog_name="aiqueue")
