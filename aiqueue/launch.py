"""Bringing a system up, joining one, taking one down. The only module that knows Ray, the actors and Serve."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import ray
from ray._private import services

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.ray_transport import RayTransport
from aiqueue.client.sync_adapter import AIQueueAdapter
from aiqueue.config import SentSettings, Settings
from aiqueue.errors import StartError
from aiqueue.http_config import HttpConfig
from aiqueue.journal.lock import wait_until_free
from aiqueue.ports import HeldPorts
from aiqueue.presets import complete
from aiqueue.settings_differences import differing_settings
from aiqueue.versions import other_ray

if TYPE_CHECKING:
    from serve.running import Front

_log = logging.getLogger(__name__)
_DRAIN_S = HttpConfig().drain_s
_SLOW_START = "timed out during startup"  # said by Ray, in an Exception of no class of its own
_GRACE_S = 5.0  # for running jobs, when the system stops
_FRONT_S = 60.0  # for Serve to end, beyond its requests in flight
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in the processes of `ray job submit`
_JOB_DRAIN_S = 1.0  # Ray kills such a process 3 s after it is told to stop (RAY_JOB_STOP_WAIT_TIME_S)
_ASK_S, _JOB_ASK_S = 5.0, 1.0  # for the pool manager to hear that it may have to stop the system alone


class System:
    """A running system. Usable as a context manager that stops it.

    ``adapter`` submits jobs; ``url`` is where HTTP is served (None without); ``settings`` are those that it was to
    start with. If it ran already, ``differing`` names those of them that it does not run with.
    """

    def __init__(
        self,
        settings: Settings,
        adapter: AIQueueAdapter,
        url: str | None,
        *,
        owns_ray: bool,
        ports: HeldPorts,
        differing: Sequence[str] = (),
    ) -> None:
        self.settings, self.adapter, self.url, self.differing = settings, adapter, url, differing
        self._owns_ray, self._ports = owns_ray, ports
        self._stopped = False

    def stop(self) -> None:
        """Stop taking jobs, drain the workers, close the journal, and end the Ray that ``start`` began."""
        if self._stopped:
            return
        self._stopped = True
        namespace, drain_s = self.settings.namespace, self.settings.http.drain_s
        _end(namespace, http=self.url is not None, drain_s=drain_s, adapter=self.adapter)
        if self._owns_ray:
            ray.shutdown()
        self._ports.release()

    def elsewhere(self) -> str:
        """Return where programs on other machines reach HTTP; empty where nothing needs to be said."""
        from actors.cluster import addresses
        from serve.running import from_elsewhere, running_serve

        serving = running_serve() if self.url else None
        return from_elsewhere(serving.host, self.url, addresses()) if serving and self.url else ""

    def warning(self) -> str:
        """Return what is wrong with where the queue is placed; empty if nothing is."""
        from actors.system import warning

        return warning()

    def trouble(self) -> str:
        """Return what keeps a queue that died from starting again; empty while nothing does."""
        from actors.cluster import trouble_of

        return trouble_of(self.settings.namespace)

    @property
    def address(self) -> str:
        """The Ray it runs on, for ``connect(address=…)`` where several run."""
        return str(ray.get_runtime_context().gcs_address)

    def __enter__(self) -> System:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(settings: Settings | None = None, *, http: bool = True, address: str | None = None) -> System:
    """Start a system and return it once it takes jobs.

    Ray: the one this process has joined, else ``address``, else ``RAY_ADDRESS``, else a new one on this machine, which
    ends with the system. Settings without providers get those of `aiqueue.presets`. Raises StartError.
    """
    # The actors and Serve load only where a system is started.
    from actors.system import queue_of, start_actors

    settings = complete(settings or Settings(), os.environ)
    if not settings.providers:
        raise StartError(
            "no provider is configured: set OPENAI_API_KEY or ANTHROPIC_API_KEY, install the demo model, "
            "or name providers in the file that AIQUEUE_CONFIG points to"
        )
    ports = HeldPorts()
    if http and settings.http.port and _begins_ray(address):
        ports.hold(settings.http.host, settings.http.port)  # a port in use is said before Ray starts
    try:
        if _begins_ray(address):
            wait_until_free(settings.journal.path)
        owns_ray = _join_ray(settings.namespace, address, begin=True)
    except BaseException:
        ports.release()
        raise
    before = queue_of(settings.namespace)
    try:
        start_actors(settings)
        url = _start_http(settings, ports) if http else None
        if http:
            # A stop whose end of the front was waited for has ended the actors after it.
            start_actors(_without_permissions(settings))
        adapter = _connected(settings.namespace)
    except BaseException:
        ports.release()
        if owns_ray:
            ray.shutdown()
        else:
            _undo(settings.namespace, before, http=http)
        raise
    differing = _differing(settings)
    return System(settings, adapter, url, owns_ray=owns_ray, ports=ports, differing=differing)


def connect(namespace: str | None = None, *, address: str | None = None) -> AIQueueAdapter:
    """Join the system that runs in ``namespace`` (default: the settings') and return a started adapter.

    Raises StartError where no Ray is running, QueueUnavailable where it has no queue.
    """
    namespace = namespace or Settings().namespace
    _join_ray(namespace, address, begin=False)
    return _connected(namespace)


async def connect_async(namespace: str | None = None, *, address: str | None = None) -> AsyncAIQueueAdapter:
    """As ``connect``, for use inside an event loop."""
    namespace = namespace or Settings().namespace
    _join_ray(namespace, address, begin=False)
    adapter = AsyncAIQueueAdapter(RayTransport(namespace))
    await adapter.start()
    return adapter


def stop(namespace: str, *, http: bool = True, address: str | None = None, drain_s: float = _DRAIN_S) -> bool:
    """Stop the system in ``namespace``; return True if there was one. Its Ray goes on.

    HTTP takes no new requests, and those in flight have ``drain_s`` to end.
    """
    return _end(namespace, http=http, address=address, drain_s=drain_s)


def _end(
    namespace: str, *, http: bool, drain_s: float, address: str | None = None, adapter: AIQueueAdapter | None = None
) -> bool:
    """As ``stop``. ``adapter`` is stopped once the system ends whatever becomes of this process."""
    from actors.system import stop_actors, stop_later

    _join_ray(namespace, address, begin=False)
    is_job = _RAY_JOB in os.environ
    drain_s, front_s = (min(drain_s, _JOB_DRAIN_S), _JOB_DRAIN_S) if is_job else (drain_s, _FRONT_S)
    stop_later(namespace, drain_s + front_s, _GRACE_S, ask_s=_JOB_ASK_S if is_job else _ASK_S)
    if adapter is not None:
        adapter.stop()
    if http:
        _stop_http(namespace, drain_s)
    return stop_actors(namespace, grace_s=_GRACE_S)


def _differing(settings: Settings) -> list[str]:
    """Return which settings the system that runs has others of."""
    from actors.cluster import settings_of

    given = settings.model_dump_json()
    running = settings_of(settings.namespace) or given
    with suppress(StartError):  # of a newer release: compared as they are
        running = SentSettings.received(running).model_dump_json()  # with the settings that this release has added
    return differing_settings(json.loads(running), json.loads(given))


def declared_front(namespace: str) -> Front | None:
    """Return what `serve deploy` has put in front of the system in ``namespace``. No system starts or stops it."""
    from serve import running

    found = running.running_serve()
    return running.declared_front(namespace, found) if found else None


def _connected(namespace: str) -> AIQueueAdapter:
    adapter = AIQueueAdapter(RayTransport(namespace))
    try:
        adapter.start()
    except BaseException:
        adapter.stop()
        raise
    return adapter


def _start_http(settings: Settings, ports: HeldPorts) -> str:
    from serve.deployment import adapter_over_ray, run
    from serve.ending import end_if_empty, end_what_was_left
    from serve.running import running_serve

    folder, namespace = _http_folder(), settings.namespace
    end_what_was_left(folder)
    if front := declared_front(namespace):
        _log.warning(
            "`serve deploy` has put the application %r in front of this system: its own http settings are not used",
            front.name,
        )
        return front.url
    make_adapter = partial(adapter_over_ray, namespace)
    is_first = running_serve() is None
    if is_first:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        return run(settings.http, make_adapter, private_dir=folder, ports=ports, namespace=namespace)
    except BaseException:
        if is_first:
            end_if_empty(folder)
        raise


def _without_permissions(settings: Settings) -> Settings:
    """Return the settings for a start after the one that they were given for."""
    journal = settings.journal.model_copy(update={"new": False, "accept_loss": None})
    return settings.model_copy(update={"journal": journal})


def _undo(namespace: str, before: Any, *, http: bool) -> None:
    """End what a start that failed has begun. A system that ran ``before``, or that another process began, goes on."""
    from actors.system import queue_of, stop_actors

    queue = queue_of(namespace)
    if queue is not None and (queue == before or queue.job_id.hex() != ray.get_runtime_context().get_job_id()):
        return
    try:
        if http:
            _stop_http(namespace, 0.0)
    except Exception as error:  # not in place of what the start has raised
        _log.warning("the HTTP front could not be ended: %s", error)
    finally:
        stop_actors(namespace, grace_s=0.0)


def _stop_http(namespace: str, drain_s: float) -> None:
    from serve.deployment import shutdown

    shutdown(namespace, _http_folder(), drain_s=drain_s)


def _http_folder() -> Path:
    """The folder of HAProxy's sockets, one for each Ray: short, since a socket's path has at most 107 bytes."""
    session = f"{os.getuid()} {ray.get_runtime_context().gcs_address}"
    return Path(tempfile.gettempdir()) / f"aiq-{hashlib.sha256(session.encode()).hexdigest()[:12]}"


def _begins_ray(address: str | None) -> bool:
    """Tell whether ``start`` will begin a Ray."""
    return not ray.is_initialized() and _address(address, begin=True) == "local"


def _address(address: str | None, *, begin: bool) -> str:
    return address or os.environ.get("RAY_ADDRESS") or ("local" if begin else _the_one_here(running_rays()))


def running_rays() -> set[str]:
    """Return the addresses of the Rays that run on this machine. Ray has no public function for it."""
    return set(services._find_address_from_flag("--gcs-address"))


def _the_one_here(running: Collection[str]) -> str:
    """Return what finds the Ray of this machine. Raises StartError if it would be any one of several."""
    if len(running) > 1:
        raise StartError(
            f"several Rays run on this machine ({', '.join(sorted(running))}): set RAY_ADDRESS to the one you mean, or "
            "give it as --address (address= in Python). `aiqueue up` shows its own. A Ray that runs with tokens, as "
            "that of `aiqueue up` does by default, also needs RAY_AUTH_MODE=token"
        )
    return "auto"


def _join_ray(namespace: str, address: str | None, *, begin: bool) -> bool:
    """Join or begin a Ray; tell whether one was begun."""
    if ray.is_initialized():
        return False
    address = _address(address, begin=begin)
    new = address == "local"
    options: dict[str, Any] = {"include_dashboard": False} if new else {}
    if new:  # by default Ray gives up an actor, the queue too, whose process could not be started six times
        os.environ.setdefault("RAY_pop_worker_max_retries", "-1")
    before = os.umask(0o077)  # Ray writes its token file with whatever the umask leaves readable
    try:
        ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.WARNING, **options)
    except ConnectionError as error:
        raise StartError(
            f"no Ray answers at {address!r}. Start a system with `aiqueue up`; "
            "for a Ray that runs with tokens, set RAY_AUTH_MODE=token and give this user its token"
        ) from error
    except Exception as error:
        if refused := other_ray(str(error)):
            ray.shutdown()  # it had joined when it looked at the versions
            raise StartError(refused) from error
        if _SLOW_START not in str(error):
            raise
        raise StartError(
            "Ray's processes were not up within 30 s, the limit of Ray itself: the machine has too much else to do, or "
            "the disk of RAY_TMPDIR is slow. Try again"
        ) from error
    finally:
        os.umask(before)
    return new
