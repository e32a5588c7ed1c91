"""The end of the HTTP front, in order: new requests are refused with 503, those in flight get their answers."""

from __future__ import annotations

import csv
import logging
import time
from itertools import chain
from pathlib import Path

import httpx

from serve.haproxy_config import DRAIN_HEADER, DRAIN_PATH, DRAINING, drain_token
from serve.haproxy_program import ask, leave_unguarded, read_secret

logger = logging.getLogger(__name__)

_TELL_S = 2.0
_LOOK_S = 0.05


def drain(private_dir: Path, limit_s: float, prefix: str = "") -> None:
    """Let this node's HAProxy refuse new requests; return when those in flight have ended, or after ``limit_s``.

    The replicas, which serve below the path ``prefix``, are told to end streams that have no end of their own. HAProxy
    may then be ended: nothing starts it again.
    """
    sockets = list(private_dir.glob("*/s"))
    for path in sockets:
        ask(path, f"experimental-mode on; set var {DRAINING} bool(true)")
    until = time.monotonic() + limit_s
    _tell_replicas(private_dir, sockets, prefix.rstrip("/") + DRAIN_PATH)
    while (left := sum(map(_in_flight, sockets))) and time.monotonic() < until:
        time.sleep(_LOOK_S)  # HAProxy tells nobody when a stream ends
    if left:
        logger.info("%d requests and streams were still open %g s after the front began to close", left, limit_s)
    leave_unguarded(private_dir)


def _tell_replicas(private_dir: Path, sockets: list[Path], path: str) -> None:
    try:
        secret = read_secret(private_dir)
    except OSError as error:  # no front has been started from this folder
        logger.debug("no replica can be told to end its streams: %s", error)
        return
    servers = {row["addr"] for row in chain(*map(_rows, sockets)) if row["svname"] not in ("FRONTEND", "BACKEND")}
    for server in sorted(servers):
        try:
            httpx.post(
                f"http://{server}{path}", headers={DRAIN_HEADER: drain_token(secret)}, timeout=_TELL_S, trust_env=False
            )
        except httpx.HTTPError as error:  # its streams are cut when the time is over
            logger.debug("%s was not told to end its streams: %s", server, error)


def _in_flight(path: Path) -> int:
    return sum(int(row["scur"] or 0) for row in _rows(path) if row["svname"] == "BACKEND")


def _rows(path: Path) -> list[dict[str, str]]:
    """Return what HAProxy counts, of the servers of applications and of all together."""
    rows = csv.DictReader(ask(path, "show stat").removeprefix("# ").splitlines())
    return [row for row in rows if row["pxname"].startswith("http-")]
