"""What a worker says of its health."""

from __future__ import annotations

import asyncio
import gc
import mmap
import time
from pathlib import Path

import pytest

from aiqueue.worker.vitals import GarbageBetweenJobs, LoopLag, private_mb
from tests.tools.turns import until

_SIZE = 48 * 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_of_its_own_counts_and_a_mapped_file_does_not(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x" * _SIZE)
    gc.collect()
    before = private_mb()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[at] for at in range(0, _SIZE, 4096))  # every page is resident now
        with_file = private_mb() - before
        # Not a bytearray: that may be given memory which the process has held since an earlier test.
        with mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
            block.write(b"y" * _SIZE)
            with_block = private_mb() - before
    assert with_file < 8
    assert with_block > 40


def test_a_system_that_does_not_say_has_no_figure() -> None:
    assert private_mb("Name:\tpython\n") == 0.0


async def test_a_loop_that_stood_still_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiqueue.worker.vitals._LOOK_S", 0.01)
    lag = LoopLag()
    measuring = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    blocked_until = time.perf_counter() + 0.2
    while time.perf_counter() < blocked_until:  # the very fault
        pass
    worst = 0.0

    def noticed() -> bool:
        nonlocal worst
        worst = max(worst, lag.take_s())
        return worst > 0.1

    await until(noticed)
    assert lag.take_s() < 0.1
    measuring.cancel()


async def test_garbage_is_collected_between_jobs_but_not_after_each(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0

    def collect() -> int:
        nonlocal passes
        passes += 1
        return 0

    monkeypatch.setattr(gc, "collect", collect)
    between = GarbageBetweenJobs()
    for _ in range(100):
        between()
    assert passes == 1
