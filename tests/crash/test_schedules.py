"""``kill -9`` of the queue around the ticks of a schedule that fires each second: one job per tick, none twice."""

from __future__ import annotations

import random
import threading
import time

from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from tests.crash.test_kills import kill
from tests.running_system import chat

_KILLS, _TICKS = 4, 14


def test_a_queue_killed_around_its_ticks_starts_one_job_for_each(own_system: launch.System) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw, schedules = random.Random(seed), own_system.adapter.schedules
    schedules.add(chat("instant"), "each second", "* * * * * *", overlap="queue", catch_up="all")
    for _ in range(_KILLS):
        # Somewhere from just before a tick to just after it; a restart takes longer than a second.
        threading.Event().wait(1.0 + (-time.time() % 1.0) + draw.uniform(-0.1, 0.1))
        kill(QUEUE_ACTOR_NAME, own_system.settings.namespace)
    while schedules.get("each second").fired < _TICKS:
        threading.Event().wait(0.2)
    schedules.pause("each second")
    while schedules.get("each second").running:
        threading.Event().wait(0.2)
    runs = schedules.history("each second")[::-1]
    assert [run.outcome for run in runs] == ["fired"] * len(runs)
    assert len(runs) >= _TICKS
    seconds = [run.tick.timestamp() for run in runs]
    assert seconds == [seconds[0] + at for at in range(len(seconds))], "a tick is missing or came twice"
    job_ids = [run.job_id or "" for run in runs]
    assert len(set(job_ids)) == len(job_ids)
    infos = own_system.adapter.wait_all(job_ids)
    assert {(each.status, each.attempt) for each in infos} == {("completed", 1)}
    assert own_system.adapter.get_stats().total_jobs == len(runs)
