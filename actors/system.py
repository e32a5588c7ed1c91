"""Starting, finding and stopping the actors of one system."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from actors import cluster, known_journals
from actors.options import JOURNAL_RESOURCE, POOL_MANAGER_NAME, pool_manager_options, queue_actor_options
from actors.pool_manager import PoolManager
from actors.queue_actor import QueueActor
from aiqueue.client.calls import understood
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.config import Settings
from aiqueue.errors import AIQueueError, QueueUnavailable, StartError
from aiqueue.own_version import own_version
from aiqueue.scaling.roster import WORKER_PREFIX
from aiqueue.versions import Version, encode

T = TypeVar("T")

_log = logging.getLogger(__name__)
_QUEUE_START_S = 120.0  # a journal of millions of jobs takes a while to load
_MANAGER_START_S = 60.0  # its process, and a look at the cluster
_STOP_S = 60.0  # its jobs in flight, its messages and a slow disk
_RETRY_S = 0.2
_TROUBLE_S = 5.0  # a queue that Ray starts again may have told by then what keeps it from that
_CALLED: dict[type, str] = {QueueActor: "queue actor", PoolManager: "pool manager"}


def start_actors(settings: Settings) -> None:
    """Start the queue, then the workers. What runs already is left as it is.

    What is being stopped is waited for, and then started anew. Raises StartError with the reason, e.g. a journal that
    another queue holds.
    """
    known = known_journals.recall(settings)
    _let_stop_end(settings.namespace)
    _start_queue(settings)
    known_journals.remember(settings, known)
    _start_manager(settings)
    _warn_of_another_release(_start_queue(settings))  # a stop that began after the first look has ended that one


def _start_queue(settings: Settings) -> Version:
    options = queue_actor_options(QUEUE_ACTOR_NAME, settings.namespace)
    return _started(QueueActor, options, settings, _say_hello, limit_s=_QUEUE_START_S)


def _start_manager(settings: Settings) -> None:
    options = pool_manager_options(settings.namespace)
    _started(PoolManager, options, settings, _start_pools, limit_s=_MANAGER_START_S)


def _warn_of_another_release(runs: Version) -> None:
    if runs != own_version():
        _log.warning(
            "the queue that runs speaks protocol %s, this process %s; it keeps its release until it starts again",
            runs,
            own_version(),
        )


def _let_stop_end(namespace: str) -> None:
    """Return when no manager is stopping this system, which would end the next queue too."""
    deadline = time.monotonic() + _STOP_S
    while (manager := cluster.find(POOL_MANAGER_NAME, namespace)) is not None and time.monotonic() < deadline:
        try:
            ray.get(manager.stay.remote(), timeout=_MANAGER_START_S)
            return
        except AttributeError:  # of an earlier release, which has no such call
            return
        except RayError:
            time.sleep(_RETRY_S)


def _started(
    cls: type, options: dict[str, Any], settings: Settings, ask: Callable[[Any, float], T], *, limit_s: float
) -> T:
    """Start an actor, or find it, and return what it answers to ``ask``."""
    json, what = settings.model_dump_json(), _CALLED[cls]
    deadline, look_at = time.monotonic() + limit_s, time.monotonic() + _TROUBLE_S
    while True:
        was_there = cluster.find(options["name"], options["namespace"]) is not None
        actor: Any = ray.remote(cls).options(**options).remote(json)
        try:
            # Ray lets a call wait that was made before it knew that the actor is being started again.
            return ask(actor, max(0.0, (look_at if was_there else deadline) - time.monotonic()))
        except GetTimeoutError as error:
            if time.monotonic() > deadline:
                raise StartError(
                    f"the {what} did not answer within {limit_s:g} s; see its log in Ray's session folder"
                ) from error
        except QueueUnavailable as error:
            if time.monotonic() > deadline:
                raise StartError(f"the {what} could not start: {error}") from error
        except RayError as error:  # not only RayActorError: one that finds no node raises another
            if not was_there or time.monotonic() > deadline:
                raise StartError(f"the {what} could not start: {_cause(error)}") from error
        if was_there and time.monotonic() > look_at:
            look_at = time.monotonic() + _TROUBLE_S
            if trouble := cluster.trouble_of(options["namespace"]):
                raise StartError(f"the queue can't start, and goes on trying: {trouble}")
        time.sleep(_RETRY_S)  # it is being stopped


def _start_pools(manager: Any, limit_s: float) -> None:
    _answer(manager.start.remote(), limit_s)


def _answer(call: Any, limit_s: float) -> Any:
    try:
        return ray.get(call, timeout=limit_s)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, AIQueueError) else error from None


def warning() -> str:
    """Return what is wrong with where the queue is placed; empty if nothing is."""
    count, marked = len(cluster.addresses()), cluster.addresses(resource=JOURNAL_RESOURCE)
    if len(marked) > 1:
        return (
            f"{len(marked)} nodes ({', '.join(marked)}) are marked for the journal: the queue may start again on one "
            f"that does not have it. Leave the resource {JOURNAL_RESOURCE!r} to the node with the journal's disk"
        )
    if count < 2 or marked:
        return ""
    return (
        f"this Ray has {count} nodes, and none is marked for the journal: the queue is bound to this one, and does not "
        f"come back if Ray is started anew here. Start Ray on the node with the journal's disk with --resources "
        f"'{{\"{JOURNAL_RESOURCE}\": 1}}'"
    )


def _say_hello(queue: Any, limit_s: float) -> Version:
    """Return whose release answers. Raises IncompatibleVersion for one that another release has started before."""
    try:
        answer = _answer(queue.hello.remote(encode(own_version())), limit_s)
    except TypeError:  # said by Ray or by the queue: in protocol 0 it takes nothing
        answer = _answer(queue.hello.remote(), limit_s)
    return understood(answer).version


def stop_actors(namespace: str, *, grace_s: float = 5.0) -> bool:
    """Drain the workers, close the journal and end all actors of ``namespace``; tell whether there was a queue.

    No worker stays, not even one whose manager could not stop it: it would keep its GPU with nobody to find it.
    """
    manager, queue = cluster.find(POOL_MANAGER_NAME, namespace), cluster.find(QUEUE_ACTOR_NAME, namespace)
    if manager is not None:
        _last_call(manager, "stop", grace_s)
    _end_workers(namespace)
    if queue is not None:
        _last_call(queue, "close")
    try:
        cluster.keep_room(namespace, [])  # the manager does it too, if there is one and it can
    except Exception:  # all has ended
        _log.exception("the room that Ray keeps for workers could not be given back")
    return queue is not None


def _last_call(actor: Any, method: str, *args: object) -> None:
    """Ask an actor to end its work, as soon as it can be reached, and end it; after a time, however it answers."""
    deadline = time.monotonic() + _STOP_S
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            ray.get(getattr(actor, method).remote(*args), timeout=left_s)
        except ActorUnavailableError:  # Ray is just starting it again
            time.sleep(_RETRY_S)
        except (RayActorError, GetTimeoutError):
            break
        except RayError as error:  # it answered that it could not: the others are to be ended all the same
            _log.warning("%s failed: %s", method, error)
            break
        else:
            break
    ray.kill(actor)


def _end_workers(namespace: str) -> None:
    for name in cluster.names_in(namespace):
        if name.startswith(WORKER_PREFIX) and (worker := cluster.find(name, namespace)):
            cluster.end_actor(worker)


def queue_of(namespace: str) -> Any:
    """Return Ray's id of the queue in ``namespace``, None if there is none; another process's has another Ray job."""
    queue = cluster.find(QUEUE_ACTOR_NAME, namespace)
    return None if queue is None else queue._actor_id


def stop_later(namespace: str, limit_s: float, grace_s: float, *, ask_s: float) -> None:
    """Let the system end by itself after a time, should the process that is about to stop it be killed meanwhile.

    Its manager has ``ask_s`` to say that it has heard; it hears also later.
    """
    manager = cluster.find(POOL_MANAGER_NAME, namespace)
    if manager is not None:
        with contextlib.suppress(RayError, AttributeError):  # one of an earlier release has no such call
            ray.get(manager.stop_within.remote(limit_s, grace_s), timeout=ask_s)


def _cause(error: RayError) -> str:
    """Return the line of a remote traceback that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return cluster.start_error(error) or (lines[-1] if lines else "unknown")
