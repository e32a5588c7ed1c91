"""A stop of the front that was cut off: the next start ends what it has left, which would refuse requests for ever.

Ray's own store knows that a stop is under way, whose it is and until when.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import ray
from ray import serve as ray_serve
from ray._private.state import state as cluster_state
from ray.exceptions import RayActorError, RayError
from ray.experimental import internal_kv
from ray.serve.exceptions import RayServeException

from serve.haproxy_program import leave_unguarded
from serve.running import controller_id, end_serve, forget_ended_serve

_KEY = b"aiqueue http ends"
_LIMIT_S = 60.0  # for Serve to end, beyond its requests in flight
_LOOK_S = 0.2


class _Mark(NamedTuple):
    until: float  #: when the stop will have ended, in seconds since the epoch
    controller: str  #: of the Serve that ends
    job: str  #: Ray's name for the program that ends it


@contextmanager
def ending(drain_s: float) -> Iterator[None]:
    """Tell others, while the block lasts, that the front of this Ray is being ended; it has ended then."""
    job = ray.get_runtime_context().get_job_id()
    mark = f"{time.time() + drain_s + _LIMIT_S} {controller_id()} {job}"
    internal_kv._internal_kv_put(_KEY, mark.encode(), overwrite=True)
    try:
        yield
    except Exception:
        _forget()
        raise
    _forget()


def end_what_was_left(private_dir: Path, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until no process is ending the front; finish an end that was cut off. Raises RayError.

    ``private_dir`` is the folder of HAProxy's files.
    """
    while (mark := _mark()) is not None and mark.controller == controller_id():
        if mark.until < time.time() or _has_ended(mark.job):
            leave_unguarded(private_dir)
            forget_ended_serve()
            with suppress(RayActorError):  # it is just ending, and still has its name
                end_serve()
                break
        sleep(_LOOK_S)
    if mark is not None:
        _forget()


def end_if_empty(private_dir: Path) -> None:
    """End a Serve that has no application: one that a start had begun before it failed. The next one would join it."""
    with suppress(RayError, RayServeException):
        if not ray_serve.status().applications:
            leave_unguarded(private_dir)
            end_serve()


def _mark() -> _Mark | None:
    found = internal_kv._internal_kv_get(_KEY)
    try:
        until, controller, job = found.decode().split(" ")
        return _Mark(float(until), controller, job)
    except (AttributeError, ValueError):  # there is none, or none that can be read
        return None


def _has_ended(job: str) -> bool:
    jobs = cluster_state.job_table()  # type: ignore[no-untyped-call]  # Ray has no types here
    return any(each["JobID"] == job and each["IsDead"] for each in jobs)


def _forget() -> None:
    internal_kv._internal_kv_del(_KEY)
