"""What commands print with."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import typer
from rich.console import Console

_PIPE_WIDTH = 140  # columns where there is no terminal: rich's own 80 cut tables short


def console() -> Console:
    """Return a console on today's stdout. Nothing is highlighted: colours are for what matters."""
    plain = not sys.stdout.isatty()
    return Console(width=_PIPE_WIDTH if plain else None, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print ``value`` (one of `aiqueue.views` or plain data) as JSON for people and programs."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
