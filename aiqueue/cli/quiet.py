"""Keeps Ray's own reports out of the way where a system starts and stops and nothing is wrong."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiqueue.launch import System

_SERVE = "ray.serve"
_TOKENS = "ray._private.authentication.authentication_token_setup"


def quiet_start() -> None:
    """Let Serve's logger pass warnings and more, and drop the warning that Ray has turned its authentication on.

    Filters and not levels: Serve sets its level anew when it is imported.
    """
    logging.getLogger(_SERVE).addFilter(lambda record: record.levelno >= logging.WARNING)
    logging.getLogger(_TOKENS).addFilter(lambda record: "is enabled" not in record.getMessage())


def stop_quietly(system: System) -> None:
    """Stop ``system``.

    Serve's controller ends itself in the middle of its last call, which Ray prints on stdout as a failed task.
    """
    with redirect_stdout(io.StringIO()):
        system.stop()
