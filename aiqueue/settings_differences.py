"""Settings in which a running system differs from those that it is asked to start with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Each `up` brings its own to the HTTP front; the others are for one start.
_NOT_COMPARED = ("http.", "journal.new", "journal.accept_loss")


def differing_settings(running: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the names of those that differ, as the settings file has them, of two systems' settings as JSON.

    >>> differing_settings({"pools": {"gpu": {"workers": 1}}}, {"pools": {"gpu": {"workers": 2}, "remote": {}}})
    ['pools.gpu.workers', 'pools.remote']
    """
    return sorted(name for name in _differing(running, given) if not name.startswith(_NOT_COMPARED))


def _differing(running: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in running.keys() | given.keys():
        one, other = running.get(name), given.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differing(one, other, f"{prefix}{name}.")
        elif name not in running or name not in given or one != other:
            yield f"{prefix}{name}"
