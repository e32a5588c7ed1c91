"""How Serve's processes are set up: HAProxy in front, one event loop in each replica, files and ports of our own.

Serve takes all of this from environment variables, read once in each of its processes: the controller, the proxies
and the replicas. ``serve.deployment.run`` hands them over; a cluster whose Serve is started by other means needs them
in the environment of ``ray start``. This module imports no Ray, so that it can come first.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from serve.haproxy_program import PROGRAM
from serve.island import PROGRAM_VARIABLE, make_private

_MAX_SOCKET_PATH = 107  # bytes of a Unix socket's path
_NODE_ID = 56  # characters: Serve puts a folder for each node into ours
_SOCKET_SUFFIX = len(".4194304.tmp")  # HAProxy binds to a temporary name first, made with its process id
_MAX_THREADS = 4
_OLD_PROXY_S = 35  # a HAProxy that was replaced, for its requests to end; they may be waiting for a replica
_IDLE_CLIENT_S = 300  # a client that sends nothing of its request; Serve's default is an hour


def http_environment(
    private_dir: Path, *, fallback_port: int, drain_s: float = 0.0, haproxy_metrics: bool = False
) -> dict[str, str]:
    """Return the variables that put Serve into HAProxy and throughput-optimised mode.

    ``private_dir`` is made if need be, for its owner only: HAProxy's administration socket lies in it, with mode 666,
    and two systems that shared one would steer each other's HAProxy. ``drain_s`` is how long a replica or proxy that
    is told to stop goes on serving: load balancers on other machines need some 30 s to notice, local runs nothing.
    ``haproxy_metrics`` turns Serve's request metrics on: each request then costs a datagram that Python parses.

    ``fallback_port`` is for the proxy of Serve's own behind HAProxy, which takes requests while no replica is there. By
    default it is 8500 in every system of a machine, which they then share.

    Raises ValueError if the folder's path is too long for a socket, or someone else made the folder.
    """
    private_dir = private_dir.expanduser().absolute()
    admin_socket = private_dir / "s"
    too_long = len(os.fsencode(admin_socket)) + 1 + _NODE_ID + _SOCKET_SUFFIX - _MAX_SOCKET_PATH
    if too_long > 0:
        raise ValueError(
            f"the path {private_dir} is {too_long} characters too long to hold sockets; choose a shorter one"
        )
    make_private(private_dir)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        PROGRAM_VARIABLE: str(private_dir / PROGRAM),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(private_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(admin_socket),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(private_dir / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(private_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(private_dir / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": str(int(haproxy_metrics)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(_IDLE_CLIENT_S),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(_MAX_THREADS, os.cpu_count() or 1)),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(max(_OLD_PROXY_S, int(4 * drain_s))),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(drain_s),
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": str(max(0.1, drain_s)),
        # A proxy that is not there by then is killed; 5 s are too few for a busy machine.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # A proxy that is killed is missed for 3 periods; with Serve's 10 s clients are refused for 25 s.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",
    }


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is an address that only this machine can reach.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
