"""Thousands of long polls parked at the queue actor."""

from __future__ import annotations

import psutil
import pytest
import ray
from ray.exceptions import RayTaskError

from aiqueue import launch, protocol
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.errors import TooManyPolls
from aiqueue.protocol import EventsCall
from tests.running_system import chat

_POLLS, _LIMIT = 5_000, 4_000
_MOST_BYTES = 100_000  # in the actor, for each


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_thousands_of_parked_polls_leave_the_queue_working_and_those_beyond_the_limit_are_refused(
    own_system: launch.System,
) -> None:
    adapter = own_system.adapter
    adapter.wait_all(adapter.submit_jobs([chat()]))
    actor = ray.get_actor(QUEUE_ACTOR_NAME, namespace=own_system.settings.namespace)
    queue = psutil.Process(ray.get(actor.pid.remote()))
    last = protocol.decode_welcome(ray.get(actor.hello.remote())).last_event
    before = queue.memory_info().rss
    polls = [
        actor.events.remote(protocol.encode(EventsCall(f"client-{number}", last, wait_s=90.0)))
        for number in range(_POLLS)
    ]
    refused, parked = ray.wait(polls, num_returns=_POLLS - _LIMIT, timeout=60.0)
    assert len(refused) == _POLLS - _LIMIT
    for poll in refused[:20]:
        with pytest.raises(RayTaskError) as error:
            ray.get(poll)
        assert isinstance(error.value.cause, TooManyPolls)
    grown = queue.memory_info().rss - before
    print(f"{len(parked)} polls parked, {len(refused)} refused, {grown / len(parked) / 1e3:.0f} KB each")
    assert grown < _MOST_BYTES * len(parked)
    infos = adapter.wait_all(adapter.submit_jobs([chat(text=str(number)) for number in range(200)]))
    assert {info.status for info in infos} == {"completed"}
    assert adapter.get_stats().completed_jobs == 201
    still_parked = ray.wait(parked, num_returns=len(parked), timeout=0)[1]
    assert len(still_parked) >= _LIMIT - 1  # the adapter's own poll may have had the place of one
