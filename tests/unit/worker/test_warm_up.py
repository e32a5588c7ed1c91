"""Before the first claim."""

from __future__ import annotations

from collections.abc import Iterator

from aiqueue.errors import JobError, ModelUnavailable, ProviderServerError
from aiqueue.worker.warm_up import warm_up


class Bench:
    """A check that fails with each of ``errors`` before it succeeds, and what is heard meanwhile."""

    def __init__(self, *errors: JobError, stop_after: float = 1e9) -> None:
        self._errors: Iterator[JobError] = iter(errors)
        self._stop_after = stop_after
        self.waits: list[float] = []
        self.told: list[str] = []
        self.checks = 0

    async def check(self) -> None:
        self.checks += 1
        if error := next(self._errors, None):
            raise error

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def _stopping(self) -> bool:
        return sum(self.waits) >= self._stop_after

    async def run(self) -> None:
        await warm_up(self.check, told=self.told.append, stopping=self._stopping, sleep=self.sleep)


async def test_a_model_that_loads_is_checked_once() -> None:
    bench = Bench()
    await bench.run()
    assert (bench.checks, bench.told, bench.waits) == (1, [""], [])


async def test_a_fault_that_may_pass_is_told_and_waited_out_longer_each_time() -> None:
    bench = Bench(*[ProviderServerError("no route to the hub")] * 8)
    await bench.run()
    assert bench.waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert bench.told == ["no route to the hub"] * 8 + [""]


async def test_a_fault_that_will_not_pass_stays_told_and_the_jobs_get_it() -> None:
    bench = Bench(ModelUnavailable("no such file"))
    await bench.run()
    assert (bench.checks, bench.told, bench.waits) == (1, ["no such file"], [])


async def test_a_worker_that_is_told_to_stop_does_not_go_on_trying() -> None:
    bench = Bench(*[ProviderServerError("no route to the hub")] * 100, stop_after=5)
    await bench.run()
    assert bench.waits == [1, 2, 4]
