"""From a load to a size."""

from __future__ import annotations

import pytest

from aiqueue.scaling import PoolLoad, ScalingRule, scaler_for


def load(
    queued: int = 0, *, level: int = 2, waited_s: float = 0.0, running: int = 0, completed: int = 0, busy_s: float = 0.0
) -> PoolLoad:
    """A pool in which all that waits is of one level."""
    queues, waits = [0] * 4, [0.0] * 4
    queues[level], waits[level] = queued, waited_s
    return PoolLoad(queues, waits, running, completed, busy_s)


class TestThreshold:
    """The specification's numbers, one slot a worker."""

    @pytest.mark.parametrize(
        ("queued", "size", "expected"), [(101, 10, 12), (100, 10, 10), (10, 10, 10), (9, 10, 9), (0, 10, 9)]
    )
    def test_steps_as_specified(self, queued: int, size: int, expected: int) -> None:
        scaler = scaler_for(ScalingRule())
        scaler.target(load(50), size, now=0.0)
        assert scaler.target(load(queued), size, now=30.0) == expected

    def test_nothing_shrinks_at_the_first_look(self) -> None:
        for policy in ("threshold", "sla"):
            scaler = scaler_for(ScalingRule(policy=policy))
            sizes = [scaler.target(load(), 10, now=now) for now in (0.0, 29.0)]
            assert sizes == [10, 10]
            assert scaler.target(load(), 10, now=30.5) < 10

    def test_stays_inside_its_limits(self) -> None:
        assert scaler_for(ScalingRule()).target(load(5_000), 49, now=0.0) == 50
        assert scaler_for(ScalingRule()).target(load(0), 1, now=0.0) == 1

    def test_a_step_up_waits_for_its_cooldown_and_not_longer(self) -> None:
        scaler = scaler_for(ScalingRule(up_cooldown_s=5.0))
        sizes = [scaler.target(load(500), 10, now=now) for now in (0.0, 4.9, 5.0)]
        assert sizes == [12, 10, 12]

    def test_a_step_down_waits_after_any_change(self) -> None:
        scaler = scaler_for(ScalingRule(down_cooldown_s=30.0))
        assert scaler.target(load(500), 10, now=0.0) == 12
        looks = ((29.9, 12), (30.0, 12), (59.9, 11), (60.0, 11))
        assert [scaler.target(load(0), size, now=now) for now, size in looks] == [12, 11, 11, 10]

    def test_a_step_down_for_which_no_worker_was_idle_starts_no_cooldown(self) -> None:
        scaler = scaler_for(ScalingRule(down_cooldown_s=30.0))
        scaler.target(load(0), 12, now=0.0)
        assert [scaler.target(load(0), 12, now=now) for now in (29.9, 30.0, 30.25, 30.5)] == [12, 11, 11, 11]
        assert [scaler.target(load(0), 11, now=now) for now in (30.75, 60.4, 60.6)] == [11, 11, 10]

    def test_no_worker_is_added_that_no_job_could_fill(self) -> None:
        scaler = scaler_for(ScalingRule(slots=64))
        assert scaler.target(load(101), 2, now=0.0) == 2
        assert scaler.target(load(300), 2, now=0.0) == 4

    def test_a_pool_without_workers_gets_one_for_any_job(self) -> None:
        scaler = scaler_for(ScalingRule(min_workers=0))
        assert scaler.target(load(1), 0, now=0.0) == 1
        assert scaler.target(load(0), 0, now=1.0) == 0

    def test_without_auto_scale_the_size_is_the_first_one(self) -> None:
        scaler = scaler_for(ScalingRule(auto_scale=False, default_workers=7))
        assert [scaler.target(load(queued), 7, now=0.0) for queued in (0, 50, 10_000)] == [7, 7, 7]


class TestSla:
    """By the time that is left. One slot a worker, and a job takes a second, unless said."""

    rule = ScalingRule(policy="sla", down_cooldown_s=10.0, up_cooldown_s=0.0)

    def test_what_fits_into_its_sla_calls_for_no_worker_more(self) -> None:
        assert scaler_for(self.rule).target(load(20), 1, now=0.0) == 1  # 20 s of work, 30 s of time

    def test_a_predicted_miss_calls_for_as_many_workers_as_avoid_it(self) -> None:
        assert scaler_for(self.rule).target(load(290), 1, now=0.0) == 10  # in the 29 s in which the last one must start

    def test_urgent_jobs_call_for_more_than_others(self) -> None:
        sizes = [scaler_for(self.rule).target(load(20, level=level), 1, now=0.0) for level in range(4)]
        assert sizes == [10, 3, 1, 1]

    def test_a_job_that_waited_long_has_less_time_left(self) -> None:
        assert scaler_for(self.rule).target(load(20, waited_s=28.0), 1, now=0.0) > 1

    def test_higher_levels_go_first_and_take_time_from_the_lower(self) -> None:
        both = PoolLoad([0, 80, 100, 0], [0.0] * 4)
        alone = PoolLoad([0, 0, 100, 0], [0.0] * 4)
        assert scaler_for(self.rule).target(both, 1, now=0.0) > scaler_for(self.rule).target(alone, 1, now=0.0)

    def test_never_more_than_there_are_jobs_for_however_late_they_are(self) -> None:
        late = load(12, level=0, waited_s=500.0)
        assert scaler_for(self.rule).target(late, 1, now=0.0) <= 12

    def test_durations_are_measured(self) -> None:
        quick, slow = scaler_for(self.rule), scaler_for(self.rule)
        for scaler, busy_s in ((quick, 10.0), (slow, 500.0)):
            scaler.target(load(), 1, now=0.0)
            scaler.target(load(completed=100, busy_s=busy_s), 1, now=1.0)
        waiting = {"queued": 100, "completed": 100}
        assert quick.target(load(busy_s=10.0, **waiting), 1, now=60.0) < slow.target(
            load(busy_s=500.0, **waiting), 1, now=60.0
        )

    def test_a_steady_load_keeps_its_workers_though_nothing_waits(self) -> None:
        scaler, size = scaler_for(self.rule), 10
        for second in range(60):
            size = scaler.target(load(running=8, completed=8 * second, busy_s=8.0 * second), size, now=float(second))
        assert size == 10  # 8 slots' worth of jobs, at 80 %

    def test_a_burst_is_no_steady_load(self) -> None:
        rule = ScalingRule(policy="sla", slots=8)
        scaler, sizes, done, size = scaler_for(rule), [], 0.0, 1
        for look in range(4 * 55):  # 5,000 low jobs at the first second; each worker ends eight a second
            waited_s = max(0.0, look / 4 - 1.0)
            left = max(0, 5_000 - int(done)) if look >= 4 else 0
            running = min(left, 8 * size)
            seen = load(left - running, level=3, waited_s=waited_s, running=running, completed=int(done), busy_s=done)
            size = scaler.target(seen, size, now=look / 4)
            sizes.append(size)
            done += running / 4
        assert max(sizes) == 11, "5,000 s of work in 59 s, by eight at a time"

    def test_jobs_that_come_back_from_a_gate_are_no_steady_load(self) -> None:
        scaler = scaler_for(ScalingRule(policy="sla", slots=8))
        for look in range(200):
            waits = 3_000 if 80 <= look < 100 else 0  # the gate opens, and closes again
            size = scaler.target(load(waits, level=3, completed=look, busy_s=float(look)), 1, now=look / 4)
        assert size <= 1 + 3_000 // (8 * 59), "what waited, and not a wave that is over"

    def test_long_jobs_that_come_one_by_one_keep_their_workers(self) -> None:
        scaler, size = scaler_for(self.rule), 20
        for second in range(120):
            ended = second // 4
            size = scaler.target(load(running=20, completed=ended, busy_s=80.0 * ended), size, now=float(second))
        assert size == 20

    def test_shrinks_to_the_highest_need_of_its_cooldown(self) -> None:
        scaler = scaler_for(self.rule)
        assert scaler.target(load(290), 1, now=0.0) == 10
        assert scaler.target(load(0), 10, now=10.0) == 10
        assert scaler.target(load(0), 10, now=10.1) < 10

    def test_a_queue_that_counts_from_zero_again_is_no_negative_load(self) -> None:
        scaler = scaler_for(self.rule)
        scaler.target(load(completed=1_000, busy_s=1_000.0), 1, now=0.0)
        assert scaler.target(load(completed=2, busy_s=2.0), 1, now=1.0) == 1
