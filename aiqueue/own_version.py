"""What this process runs, as it tells others."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from aiqueue.versions import OLDEST, PROTOCOL, Version


@cache
def own_version() -> Version:
    """Return what this process runs."""
    from aiqueue import __version__  # the package imports this module before it has a version

    try:
        ray = version("ray")
    except PackageNotFoundError:
        ray = "none"
    return Version(PROTOCOL, OLDEST, __version__, platform.python_version(), ray)
