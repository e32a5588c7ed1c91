"""The application as a Ray Serve deployment: ``run`` and ``shutdown`` for our start-up.

Every replica makes its own adapter, in its own process: one event long poll each, submits coalesced in each.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import ray
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.exceptions import RayActorError, RayError
from ray.serve.config import BackpressureConfig
from ray.serve.deployment import Deployment
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.client.ray_transport import RayTransport
from aiqueue.errors import StartError
from aiqueue.http_config import HttpConfig
from aiqueue.ports import HeldPorts
from serve.app import create_app
from serve.draining import drain
from serve.ending import ending
from serve.environment import http_environment, is_loopback
from serve.haproxy_config import is_ours
from serve.island import prepare_node, replica_secret
from serve.routes.shared import QueueAdapter
from serve.running import (
    NAMESPACE,
    app_name,
    check_address,
    end_serve,
    forget_ended_serve,
    prefix_for,
    running_serve,
    url_of,
)

logger = logging.getLogger(__name__)

DEPLOYMENT_NAME = "http"
START_TIMEOUT_S = 120.0
_POLL_S = 0.1
_PATIENCE_S = 2.0  # with a queue that is away: an HTTP client is told so, and comes again by itself
_DRAIN_S = HttpConfig().drain_s

AdapterFactory = Callable[[], QueueAdapter]


class HttpFront:
    """One replica: the ASGI application, built where it serves."""

    def __init__(self, make_adapter: AdapterFactory, http: HttpConfig) -> None:
        self._make_adapter = make_adapter
        self._http = http

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; called by Serve once, in the replica's process."""
        ours = is_ours(ray_serve.get_replica_context().app_name)
        return create_app(self._make_adapter, self._http, secret=replica_secret() if ours else None)

    async def check_health(self) -> None:
        """Called by Serve, to see that the event loop turns. Says nothing of the queue: no new replica would help."""


def front(replicas: int = 1, environment: Mapping[str, str] | None = None) -> Deployment:
    """Return the deployment: ``.bind(make_adapter, http)`` makes an application of it."""
    # It waits most of the time: a whole core for it would take a worker's place on a small machine.
    actor_options = {"num_cpus": 0, "runtime_env": {"env_vars": dict(environment or {})}}
    decorate = ray_serve.deployment(
        name=DEPLOYMENT_NAME,
        num_replicas=replicas,
        ray_actor_options=actor_options,
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),  # a tenth of what a request costs
        max_ongoing_requests=1_000,
        max_queued_requests=200,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        health_check_period_s=0.5,  # how soon a replica that died is missed
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=5,
    )
    return decorate(ray_serve.ingress()(HttpFront))


def run(
    http: HttpConfig,
    make_adapter: AdapterFactory,
    *,
    private_dir: Path,
    ports: HeldPorts,
    drain_s: float = 0.0,
    namespace: str = NAMESPACE,
    timeout_s: float = START_TIMEOUT_S,
) -> str:
    """Start Serve on this Ray or join the one it has, deploy the application and return its URL once it answers.

    Beside another application it is served under a path of its own, on the address that Serve has. ``make_adapter``
    must be picklable: a function of a module, or ``functools.partial`` of one. ``private_dir`` is a folder for
    HAProxy's files, used by who starts Serve; ``ports`` keep others from the ports that it is given. Raises StartError,
    which says what to do.
    """
    running = running_serve()
    host = running.host if running else http.host
    if not is_loopback(host):
        logger.warning("HTTP on %s without authentication: whoever reaches it can use your providers", host)
    try:
        if running is None:
            port, prefix = ports.hold(host, http.port), http.route_prefix or "/"
            environment: Mapping[str, str] = http_environment(
                private_dir, fallback_port=ports.hold(host), drain_s=drain_s
            )
            _prepare_nodes(private_dir)
            ray_serve.start(
                http_options={"host": host, "port": port},
                controller_options={"runtime_env": {"env_vars": environment}},
            )
        else:
            check_address(http, running)
            port, prefix = running.port, prefix_for(namespace, http, running.prefixes)
            environment = running.environment
        replicas = http.replicas or (2 if len(_nodes()) > 1 and not is_loopback(host) else 1)
        application = front(replicas, environment).bind(make_adapter, http.model_copy(update={"host": host}))
        ray_serve.run(application, name=app_name(namespace), route_prefix=prefix)
    except StartError:
        raise
    except (RayError, RayServeException, RuntimeError, TimeoutError, ValueError) as error:
        raise StartError(f"Ray Serve did not start the HTTP front: {error}") from error
    return _wait_until_live(url_of(host, port) + prefix.rstrip("/"), timeout_s)


def _prepare_nodes(folder: Path) -> None:
    """Put what Serve starts as HAProxy on the nodes there are; on those that join later a replica does so."""
    here = ray.get_runtime_context().get_node_id()
    prepare_node(folder)
    others = [node for node in _nodes() if node != here]
    task = ray.remote(num_cpus=0)(prepare_node)
    ray.get(
        [
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(folder)
            for node in others
        ],
        timeout=START_TIMEOUT_S,
    )


def _nodes() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def shutdown(namespace: str = NAMESPACE, private_dir: Path | None = None, *, drain_s: float = _DRAIN_S) -> bool:
    """Stop serving: the application, and Serve with it unless others use it too. Tell whether Serve has ended.

    With Serve go HAProxy and the folder of its files, ``private_dir``. HAProxy first refuses new requests; those in
    flight have ``drain_s`` to end. What a configuration file put in front of the system stays.
    """
    name = app_name(namespace)
    forget_ended_serve()
    try:
        applications = ray_serve.status().applications
        if name in applications and len(applications) > 1:
            ray_serve.delete(name)
        elif name in applications:
            with ending(drain_s):
                if private_dir is not None and private_dir.exists():
                    running = running_serve()
                    drain(private_dir, drain_s, running.prefixes.get(name, "") if running else "")
                end_serve()
                if private_dir is not None:
                    shutil.rmtree(private_dir, ignore_errors=True)  # a start that waits is about to use its place
            return True
    except RayActorError:
        logger.info("Serve was stopped by someone else")
    return False


def adapter_over_ray(namespace: str) -> QueueAdapter:
    """Return an adapter of the system that runs in ``namespace`` of this Ray."""
    return AsyncAIQueueAdapter(RayTransport(namespace, patience_s=_PATIENCE_S), patience_s=_PATIENCE_S)


def _wait_until_live(url: str, timeout_s: float) -> str:
    """Return ``url`` once the application answers there: HAProxy learns of a replica a moment after Serve."""
    deadline = time.monotonic() + timeout_s
    said: Any = "nothing"
    while time.monotonic() < deadline:
        try:
            response = httpx.get(f"{url}/ai/live", timeout=5.0, trust_env=False)
            if response.status_code == httpx.codes.OK:
                return url
            said = f"status {response.status_code}"
        except httpx.TransportError as error:
            said = error
        time.sleep(_POLL_S)
    raise StartError(
        f"{url} did not answer within {timeout_s:g} s ({said}); the logs of Ray Serve (in Ray's folder, logs/serve) "
        "may say why. If another program has the port, give another http.port"
    )
