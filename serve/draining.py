"""The end of the HTTP front, in order: new requests are refused with 503, those in flight get their answers."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path

from serve.haproxy_config import DRAINING
from serve.haproxy_program import STOPPING, ask

logger = logging.getLogger(__name__)

DRAIN_S = 5.0  # a stream of events has no end to wait for
_LOOK_S = 0.05


def drain(private_dir: Path, limit_s: float = DRAIN_S) -> None:
    """Let this node's HAProxy refuse new requests; return when those in flight have ended, or after ``limit_s``.

    HAProxy may then be ended: nothing starts it again.
    """
    sockets = list(private_dir.glob("*/s"))
    for path in sockets:
        ask(path, f"experimental-mode on; set var {DRAINING} bool(true)")
    until = time.monotonic() + limit_s
    while (left := sum(map(_in_flight, sockets))) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    if left:
        logger.info("%d requests and streams were still open %g s after the front began to close", left, limit_s)
    if private_dir.exists():
        (private_dir / STOPPING).touch()


def _in_flight(path: Path) -> int:
    rows = csv.DictReader(ask(path, "show stat").removeprefix("# ").splitlines())
    return sum(
        int(row["scur"] or 0) for row in rows if row["svname"] == "BACKEND" and row["pxname"].startswith("http-")
    )
