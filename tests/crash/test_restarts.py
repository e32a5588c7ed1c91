"""A queue that does not come back by itself: its journal can not be read for a while, or its watchdog is new."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from actors.options import POOL_MANAGER_NAME
from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from tests.crash.test_kills import pid_of
from tests.running_system import chat

_PATIENCE_S = 30.0


def until_troubled(system: launch.System) -> str:
    """Wait until the queue says what keeps it from starting again."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (trouble := system.trouble()):
        assert time.monotonic() < deadline, "the queue said nothing"
        threading.Event().wait(0.1)
    return trouble


@pytest.mark.timeout(120)
def test_a_queue_that_can_not_read_its_journal_says_so_and_goes_on_when_it_can(own_system: launch.System) -> None:
    adapter, journal = own_system.adapter, own_system.settings.journal.path
    ids = adapter.submit_jobs([chat("slow", str(n)) for n in range(100)])
    aside = journal.parent / "aside"
    aside.mkdir()
    os.kill(pid_of(QUEUE_ACTOR_NAME, own_system.settings.namespace), signal.SIGKILL)
    for path in journal.parent.glob(f"{journal.name}*"):
        if path.suffix != ".lock":
            path.rename(aside / path.name)
    journal.write_bytes(b"this is no journal" * 1_000)
    trouble = until_troubled(own_system)
    assert str(journal) in trouble
    print(trouble)
    journal.unlink()
    for path in aside.iterdir():
        path.replace(journal.parent / path.name)
    infos = adapter.wait_all(ids)
    assert {(info.status, info.attempt) for info in infos} == {("completed", 1)}
    assert own_system.trouble() == ""


@pytest.mark.timeout(120)
def test_a_queue_that_hangs_while_its_watchdog_is_started_again_is_ended_too(own_system: launch.System) -> None:
    adapter, namespace = own_system.adapter, own_system.settings.namespace
    queue, manager = pid_of(QUEUE_ACTOR_NAME, namespace), pid_of(POOL_MANAGER_NAME, namespace)
    os.kill(queue, signal.SIGSTOP)
    os.kill(manager, signal.SIGKILL)
    ids = adapter.submit_jobs([chat("slow", str(n)) for n in range(20)])  # answered by the next queue
    assert {info.status for info in adapter.wait_all(ids)} == {"completed"}
    assert pid_of(QUEUE_ACTOR_NAME, namespace) != queue
