"""What is known of a Serve that runs on this Ray already. One Ray has one Serve, and one HTTP address.

All that is read of Serve's insides is read here: its public status names neither address nor paths.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ray.serve.context import _get_global_client

from aiqueue.errors import StartError
from aiqueue.http_config import HttpConfig
from serve.environment import is_loopback

APP_NAME = "aiqueue"
_MODE = "RAY_SERVE_ENABLE_HA_PROXY"
_UNUSABLE = re.compile(r"[^A-Za-z0-9._-]+")  # in a path and in HAProxy's names


class RunningServe(NamedTuple):
    """Where it listens, what it serves, and the environment that its processes were given by one of our systems."""

    host: str
    port: int
    prefixes: Mapping[str, str]  #: by application
    environment: Mapping[str, str]


def running_serve() -> RunningServe | None:
    """Return the Serve of the Ray that this process has joined, if one runs."""
    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else describe(client.get_serve_details())


def describe(details: Mapping[str, Any]) -> RunningServe:
    """Return what matters of Serve's own details."""
    http, applications = details["http_options"], details["applications"]
    prefixes = {name: found["route_prefix"] for name, found in applications.items() if found["route_prefix"]}
    environments = [
        (deployment["deployment_config"].get("ray_actor_options") or {}).get("runtime_env", {}).get("env_vars", {})
        for found in applications.values()
        for deployment in found["deployments"].values()
    ]
    # A replica must run in the mode of the proxies, which were started in that of the first system.
    ours: Mapping[str, str] = next((found for found in environments if _MODE in found), {})
    return RunningServe(http["host"], http["port"], prefixes, ours)


def app_name(namespace: str) -> str:
    """Return what the application of the system in ``namespace`` is called; no two namespaces share one.

    >>> app_name("aiqueue"), app_name("team-a")
    ('aiqueue', 'aiqueue-team-a')
    """
    usable = _UNUSABLE.sub("-", namespace).strip("-.")
    if usable != namespace:
        usable = f"{usable}-{hashlib.sha256(namespace.encode()).hexdigest()[:8]}"
    return usable if usable == APP_NAME else f"{APP_NAME}-{usable}"


def prefix_for(name: str, http: HttpConfig, prefixes: Mapping[str, str]) -> str:
    """Return the path below which the application ``name`` is to be served.

    The one configured, or else the one it has; else ``/`` where nobody has it, and ``/name`` beside another one.
    Raises StartError if the one configured is another application's.
    """
    taken = {prefix: other for other, prefix in prefixes.items() if other != name}
    wanted = http.route_prefix or prefixes.get(name) or ("/" if "/" not in taken else f"/{name}")
    if wanted in taken:
        raise StartError(
            f"Ray Serve serves the application {taken[wanted]!r} at {wanted} already: give another http.route_prefix, "
            "or none to get one of its own"
        )
    return wanted


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
