"""With Ray: a journal that is gone is missed, whoever starts the queue again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from aiqueue import launch
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.config import Settings
from aiqueue.errors import StartError
from tests.crash.test_kills import pid_of
from tests.crash.test_restarts import until_troubled
from tests.running_system import SIMULATED, chat


@pytest.mark.timeout(120)
def test_a_queue_that_ray_starts_beside_an_empty_disk_waits_for_its_own(own_system: launch.System) -> None:
    adapter, disk = own_system.adapter, own_system.settings.journal.path.parent
    ids = adapter.submit_jobs([chat("slow", str(n)) for n in range(100)])
    away = disk.with_name(f"{disk.name}-away")
    disk.rename(away)
    disk.mkdir()  # the mount point
    os.kill(pid_of(QUEUE_ACTOR_NAME, own_system.settings.namespace), signal.SIGKILL)
    trouble = until_troubled(own_system)
    assert "there is none" in trouble
    with pytest.raises(StartError, match=r"goes on trying: .*there is none\. .*`aiqueue down`"):
        launch.start(own_system.settings, http=False)
    assert list(disk.iterdir()) == []
    disk.rmdir()
    away.rename(disk)
    infos = adapter.wait_all(ids)
    assert {(info.status, info.attempt) for info in infos} == {("completed", 1)}


@pytest.mark.timeout(120)
def test_a_system_that_is_started_without_its_journal_is_refused_unless_a_new_one_is_meant(
    shared_ray: None, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    settings = Settings(namespace="tests-identity", journal={"path": path}, **SIMULATED)
    with launch.start(settings, http=False) as first:
        before = first.adapter.ping().journal
        first.adapter.wait(first.adapter.submit_job(chat()))
    with launch.start(settings, http=False) as second:
        again = second.adapter.ping().journal
        stats = second.adapter.get_system_stats()
    assert before is not None
    assert again is not None
    assert (again.id, again.jobs, again.open_jobs) == (before.id, 1, 0)
    assert stats.adapter.journal == again
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(
        StartError, match=r"^the queue actor could not start: the namespace .*there is none\..*--new-journal"
    ):
        launch.start(settings, http=False)
    assert list(tmp_path.iterdir()) == []
    meant = settings.model_copy(update={"journal": settings.journal.model_copy(update={"new": True})})
    with launch.start(meant, http=False) as third:
        begun = third.adapter.ping().journal
    assert begun is not None
    assert (begun.id == before.id, begun.jobs) == (False, 0)
