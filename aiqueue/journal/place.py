"""Where a journal lies, whatever its path is called."""

from __future__ import annotations

from pathlib import Path


def absolute(path: Path) -> Path:
    """Return ``path`` from the root on, without ``~``. Raises OSError if that can't be told."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # no home folder is known
        raise OSError(f"{path}: {error}") from error
