"""Names are looked up beside each other, on uvloop as on asyncio's loop."""

from __future__ import annotations

import subprocess
import sys

_COUNTS_THREADS = """
import asyncio, os, uvloop
from aiqueue.worker.name_look_ups import look_up_many_at_once

async def look_up():
    before = len(os.listdir("/proc/self/task"))
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    return len(os.listdir("/proc/self/task")) - before

look_up_many_at_once()
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    print(runner.run(look_up()))
"""


def test_a_worker_looks_up_many_names_at_once() -> None:
    run = subprocess.run([sys.executable, "-c", _COUNTS_THREADS], capture_output=True, text=True, check=True)
    assert int(run.stdout) >= 128
