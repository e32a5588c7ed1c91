"""What is known of a Serve that runs on this Ray already. One Ray has one Serve, and one HTTP address.

All that is read of Serve's insides is read here: its public status names neither address nor paths.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray import serve as ray_serve
from ray.exceptions import RayActorError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.context import _check_cached_client_alive, _get_global_client
from ray.serve.exceptions import RayServeException

from aiqueue.errors import StartError
from aiqueue.http_config import HttpConfig
from serve.environment import is_loopback

NAMESPACE = "aiqueue"
BUILDER = "serve.declared:build"  #: as configuration files name it
_UP = "aiqueue-up"
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # all addresses of a machine, and one by which it reaches itself
_MODE = "RAY_SERVE_ENABLE_HA_PROXY"
_UNUSABLE = re.compile(r"[^A-Za-z0-9._-]+")  # in a path and in HAProxy's names


class Declared(NamedTuple):
    """One of our applications that a configuration file describes."""

    name: str
    prefix: str
    args: Mapping[str, Any]


class Front(NamedTuple):
    """An application that a configuration file describes, in front of a system."""

    name: str
    url: str


class RunningServe(NamedTuple):
    """Where it listens, what it serves, and the environment that its processes were given by one of our systems."""

    host: str
    port: int
    prefixes: Mapping[str, str]  #: by application
    programs: frozenset[str]  #: the applications that programs deployed, as `aiqueue up` does
    declared: Sequence[Declared]
    environment: Mapping[str, str]


def running_serve() -> RunningServe | None:
    """Return the Serve of the Ray that this process has joined, if one runs."""
    forget_ended_serve()
    try:
        client = _get_global_client(raise_if_no_controller_running=False)
        return None if client is None else describe(client.get_serve_details())
    except RayActorError:  # it is just ending, and still has its name
        return None


def forget_ended_serve() -> None:
    """Let Serve's functions find the Serve that runs now: else they ask for good the one that they met first."""
    _check_cached_client_alive()


def end_serve() -> None:
    """End the Serve that runs, with all of its applications."""
    ray_serve.shutdown()  # type: ignore[no-untyped-call]  # Serve has no types here


def controller_id() -> str:
    """Return what tells the Serve that runs on this Ray from an earlier one; empty if none runs. It is not asked."""
    try:
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return ""
    return str(controller._actor_id.hex())


def describe(details: Mapping[str, Any]) -> RunningServe:
    """Return what matters of Serve's own details."""
    http, applications = details["http_options"], details["applications"]
    declared = list(_declared(applications))
    prefixes = {each.name: each.prefix for each in declared} | {
        name: found["route_prefix"] for name, found in applications.items() if found["route_prefix"]
    }
    programs = frozenset(name for name, found in applications.items() if found["source"] == "imperative")
    environments = [
        (deployment["deployment_config"].get("ray_actor_options") or {}).get("runtime_env", {}).get("env_vars", {})
        for found in applications.values()
        for deployment in found["deployments"].values()
    ]
    # A replica must run in the mode of the proxies, which were started in that of the first system.
    ours: Mapping[str, str] = next((found for found in environments if _MODE in found), {})
    return RunningServe(http["host"], http["port"], prefixes, programs, declared, ours)


def _declared(applications: Mapping[str, Any]) -> Iterator[Declared]:
    for name, found in applications.items():
        file = found.get("deployed_app_config")
        was_refused = found["status"] == "DEPLOY_FAILED" and not found["route_prefix"]
        if file and file["import_path"] == BUILDER and found["status"] != "DELETING" and not was_refused:
            yield Declared(name, file.get("route_prefix", "/"), file.get("args", {}))


def declared_front(namespace: str, running: RunningServe) -> Front | None:
    """Return what a configuration file has put in front of the system in ``namespace``."""
    address = url_of(running.host, running.port)
    return next(
        (
            Front(each.name, address + each.prefix.rstrip("/"))
            for each in running.declared
            if each.args.get("namespace", NAMESPACE) == namespace
        ),
        None,
    )


def check_taken(args: Mapping[str, Any], running: RunningServe) -> None:
    """Raise RayServeException if the application with these arguments would take over what a program serves.

    Serve itself gives a configuration file any path and name. Nothing is changed before the application is built.
    """
    paths = {running.prefixes[name]: name for name in running.programs if name in running.prefixes}
    for name, prefix, given in running.declared:
        if given != args:
            continue
        if name.startswith(_UP):
            raise RayServeException(
                f"applications called {name!r} are those of `aiqueue up`: give this one another name"
            )
        if prefix in paths:
            raise RayServeException(
                f"the application {paths[prefix]!r} is served at {prefix} already: give this one another route_prefix, "
                "or stop that one first (a system of `aiqueue up`: `aiqueue down`, then `aiqueue up --no-http`)"
            )


def app_name(namespace: str) -> str:
    """Return what `aiqueue up` calls the application of the system in ``namespace``; no two namespaces share one.

    >>> app_name("aiqueue"), app_name("team-a")
    ('aiqueue-up', 'aiqueue-up-team-a')
    """
    return own_path(namespace).replace("/aiqueue", _UP, 1)


def own_path(namespace: str) -> str:
    """Return the path of a system that is served beside another application.

    >>> own_path("aiqueue"), own_path("team-a")
    ('/aiqueue', '/aiqueue-team-a')
    """
    usable = _UNUSABLE.sub("-", namespace).strip("-.")
    if usable != namespace:
        usable = f"{usable}-{hashlib.sha256(namespace.encode()).hexdigest()[:8]}"
    return f"/{NAMESPACE}" if usable == NAMESPACE else f"/{NAMESPACE}-{usable}"


def prefix_for(namespace: str, http: HttpConfig, prefixes: Mapping[str, str]) -> str:
    """Return the path below which the system in ``namespace`` is to be served.

    That is the configured path, else the current one, else ``/`` if it is free, else one of its own.
    Raises StartError if the one configured is another application's.
    """
    name = app_name(namespace)
    taken = {prefix: other for other, prefix in prefixes.items() if other != name}
    wanted = http.route_prefix or prefixes.get(name) or ("/" if "/" not in taken else own_path(namespace))
    if wanted in taken:
        raise StartError(
            f"Ray Serve serves the application {taken[wanted]!r} at {wanted} already: give another http.route_prefix, "
            "or none to get one of its own"
        )
    return wanted


def url_of(host: str, port: int) -> str:
    """Return where to reach what listens on ``host``."""
    reachable = _ANY.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def from_elsewhere(host: str, url: str, addresses: Sequence[str]) -> str:
    """Return where programs on other machines reach what listens on ``host``; empty where nothing needs to be said.

    ``url`` is where this machine reaches it, ``addresses`` are those of the cluster's nodes.

    >>> from_elsewhere("0.0.0.0", "http://127.0.0.1:8000/team", ["10.0.0.1", "10.0.0.2"])
    'from elsewhere, at each node that has a replica: http://10.0.0.1:8000/team http://10.0.0.2:8000/team'
    """
    if is_loopback(host):
        said = "from programs on its own node only, unless http.host says otherwise (docs/cluster.md)"
        return said if len(addresses) > 1 else ""
    if host not in _ANY:
        return ""
    rest = url.rpartition(":")[2]
    at = [f"http://[{address}]:{rest}" if ":" in address else f"http://{address}:{rest}" for address in addresses]
    return f"from elsewhere{', at each node that has a replica' if len(at) > 1 else ''}: {' '.join(at)}"


def check_address(http: HttpConfig, running: RunningServe) -> None:
    """Raise StartError if the settings ask for another address than the one that Serve has."""
    where = f"Ray Serve runs on this Ray already, at {running.host}:{running.port}, and a Ray has one HTTP address"
    if http.port not in (0, running.port):
        raise StartError(
            f"{where}: set http.port to 0 to be served there under a path of its own (it is {http.port}), "
            "or start without HTTP"
        )
    if is_loopback(running.host) and not is_loopback(http.host):
        raise StartError(f"{where}: it can't be reached from outside, as http.host {http.host} asks for")
