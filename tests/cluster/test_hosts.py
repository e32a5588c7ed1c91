"""A cluster of hosts that lose their power under load: what is lost, and what is called again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.autoscaled_ray import processes_of
from tests.tools.hosts import Host, hosts, why_no_hosts
from tests.tools.hosts.provider import CountingProvider, counting_provider
from tests.tools.hosts.ray_cluster import NAMESPACE, Node, RayCluster, on_disk
from tests.tools.pool_events import eventually

_WHY_NOT = why_no_hosts()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)]

_SLOTS, _LIMIT_S = 4, 120.0
# Ray takes a silent node for dead after five checks that failed. By default each may take 13 s.
_SOONER = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "4000"}
# Nodes wait for a head that is away, as in cluster.yaml.
_PATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
_ASK = "import sys, urllib.request as web; print(web.urlopen(sys.argv[1], timeout=1).read().decode())"
_MAKE = """
import signal
from tests.tools.hosts import hosts
with hosts(1) as ((host,), network):
    host.start("sleep", "1000")
    print(host.disk.parent, network.name, flush=True)
    signal.pause()
"""


def test_hosts_reach_each_other_keep_only_their_disks_and_leave_nothing_behind() -> None:
    with hosts(2) as ((first, second), network):
        folder = first.disk.parent
        (second.disk / "said").write_text("I am h1")
        second.start("python", "-m", "http.server", "80")
        eventually(lambda: _reaches(first, second), "h1 answers", 20)
        assert [host.run("hostname").strip() for host in (first, second)] == ["h0", "h1"]

        second.cut()
        assert not _reaches(first, second)
        second.join()
        eventually(lambda: _reaches(first, second), "h1 answers again", 20)

        second.run("sh", "-c", "touch /tmp/left /dev/shm/left")
        second.power_off()
        assert not _reaches(first, second)
        second.power_on()
        assert second.run("sh", "-c", "cat said; find /tmp /dev/shm -name left") == "I am h1"
        second.replace()
        second.power_on()
        assert second.run("ls").split() == ["home"]
        first.start("sleep", "1000")
        left = processes_of(str(folder))
        assert left, "what runs on a host can be told by its environment"

    assert network.name not in _links()
    assert not processes_of(str(folder))
    assert not folder.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_hosts_end_with_the_program_that_made_them_whatever_way(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _MAKE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as program:
        try:
            assert program.stdout is not None
            folder, name = program.stdout.readline().split()
            eventually(lambda: processes_of(folder), "something runs on a host", 20)
            assert name in _links()
            os.killpg(program.pid, how)  # as a terminal does it
            _, said = program.communicate(timeout=60)
        finally:
            program.kill()

    assert said.endswith("KeyboardInterrupt\n") or how is signal.SIGKILL
    assert Path(folder).exists() == (how is signal.SIGKILL)
    eventually(lambda: not processes_of(folder), "what ran on the host has ended", 20)
    eventually(lambda: name not in _links(), "its network is gone", 20)
    shutil.rmtree(folder, ignore_errors=True)


def _links() -> str:
    return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout


def _reaches(host: Host, other: Host) -> bool:
    try:
        return host.run("python", "-c", _ASK, f"http://{other.name}/said") == "I am h1\n"
    except AssertionError:
        return False


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[list[Host], CountingProvider]]:
    """Four hosts, and a provider that they reach."""
    with hosts(4) as (made, network), counting_provider(network.address, latency_s=1.0) as provider:
        yield made, provider


@pytest.fixture(scope="module")
def cluster(machines: tuple[list[Host], CountingProvider]) -> RayCluster:
    """A head without work, the queue on a host of its own, and two hosts with three workers; one has a GPU in name."""
    (head, queue, one, other), provider = machines
    made = RayCluster(head, {**_SOONER, **_PATIENT}, state=on_disk(head))
    made.start_head()
    made.join(_queue_node(queue), _worker_node(one), _gpu_node(other))
    outside = provider.settings("outside", workers=3, slots=_SLOTS, num_cpus=1)
    made.up(head, outside + provider.settings("gpu", workers=1, slots=_SLOTS, num_cpus=0, num_gpus=1))
    return made


def _queue_node(host: Host) -> Node:
    return Node(host, resources={"aiqueue_journal": 1})


def _worker_node(host: Host) -> Node:
    return Node(host, cpus=2)


def _gpu_node(host: Host) -> Node:
    return Node(host, cpus=2, gpus=1)


def _cut_power_for_a_moment(cluster: RayCluster, node: Node) -> None:
    node.host.power_off()
    node.host.power_on()
    cluster.join(node)


@pytest.mark.timeout(900)
def test_a_node_of_workers_that_loses_its_power_loses_no_job_and_only_its_own_calls_are_repeated(
    cluster: RayCluster, machines: tuple[list[Host], CountingProvider]
) -> None:
    (head, _, one, other), provider = machines
    client = cluster.client(head, "outside", 100)
    eventually(lambda: all(provider.in_flight(host.address) for host in (one, other)), "both run jobs", _LIMIT_S)

    one.power_off()
    running = provider.in_flight(one.address)
    ended = client.finish(_LIMIT_S)

    assert ended == {"completed": 100}
    repeated = _repeated(provider, client.accepted())
    print(f"{len(running)} calls were in flight on {one.name}, {len(repeated)} jobs were called again")
    assert len(repeated) <= 2 * _SLOTS
    assert _called_first_by(provider, repeated) <= {one.address}
    one.power_on()
    cluster.join(_worker_node(one))


@pytest.mark.timeout(900)
def test_the_queues_node_loses_its_power_and_comes_back_with_its_disk_and_no_job_is_lost(
    cluster: RayCluster, machines: tuple[list[Host], CountingProvider]
) -> None:
    (head, queue, *_), provider = machines
    client = cluster.client(head, "outside", 100)
    eventually(lambda: client.states().get("completed", 0) > 10, "jobs complete", _LIMIT_S)

    _cut_power_for_a_moment(cluster, _queue_node(queue))
    ended = client.finish(_LIMIT_S)

    assert ended == {"completed": 100}
    assert not _repeated(provider, client.accepted()), "the workers lived on, and knew how their calls had ended"


@pytest.mark.timeout(900)
def test_the_only_node_with_a_gpu_loses_its_power_and_its_pools_jobs_wait_for_it(
    cluster: RayCluster, machines: tuple[list[Host], CountingProvider]
) -> None:
    (head, _, _, gpu), provider = machines
    client = cluster.client(head, "gpu", 40)
    eventually(lambda: client.states().get("completed", 0) > _SLOTS, "jobs complete", _LIMIT_S)

    _cut_power_for_a_moment(cluster, _gpu_node(gpu))
    ended = client.finish(_LIMIT_S)

    assert ended == {"completed": 40}
    jobs = client.accepted()
    assert len(_repeated(provider, jobs)) <= _SLOTS, "those that ran there"
    assert {call.caller for call in provider.calls() if call.job in jobs} == {gpu.address}


@pytest.mark.timeout(900)
def test_the_head_loses_its_power_and_comes_back_with_its_disk_and_nothing_has_stopped(
    cluster: RayCluster, machines: tuple[list[Host], CountingProvider]
) -> None:
    (head, queue, *_), provider = machines
    client = cluster.client(queue, "outside", 200)
    eventually(lambda: client.states().get("completed", 0) > 10, "jobs complete", _LIMIT_S)

    head.power_off()
    before = len(provider.calls())
    eventually(lambda: len(provider.calls()) > before + 4 * _SLOTS, "jobs are begun without a head", _LIMIT_S)
    head.power_on()
    cluster.start_head()
    ended = client.finish(_LIMIT_S)

    assert ended == {"completed": 200}
    assert not _repeated(provider, client.accepted())
    assert cluster.client(queue, "gpu", 5).finish(_LIMIT_S) == {"completed": 5}, "Ray knows its actors again"


@pytest.mark.timeout(900)
def test_a_queues_node_with_an_empty_disk_begins_no_journal_unless_one_is_meant_and_the_survivors_join_it(
    cluster: RayCluster, machines: tuple[list[Host], CountingProvider]
) -> None:
    (head, queue, *_), _ = machines
    client = cluster.client(head, "outside", 50)
    eventually(lambda: len(client.accepted()) == 50, "the jobs are accepted", _LIMIT_S)

    queue.replace()
    queue.power_on()
    cluster.join(_queue_node(queue))
    file = f"--config={head.place}/aiqueue.toml"
    refused = cluster.run_on(head, "-m", "aiqueue", "up", "--detach", "--no-http", file)
    assert refused.wait(2 * _LIMIT_S) != 0
    assert "there is none. Bring that disk or node back" in refused.said(), refused.said()
    assert client.states().get("unknown", 0) == 0, "a client must not be told that accepted jobs are unknown"

    down = cluster.run_on(head, "-m", "aiqueue", "down", f"--namespace={NAMESPACE}")
    assert down.wait(2 * _LIMIT_S) == 0, down.said()
    meant = cluster.run_on(head, "-m", "aiqueue", "up", "--detach", "--no-http", "--new-journal", file)
    assert meant.wait(2 * _LIMIT_S) == 0, meant.said()
    assert cluster.client(queue, "outside", 20).finish(_LIMIT_S) == {"completed": 20}
    eventually(lambda: client.states() == {"unknown": 50}, "a client of the old system asks the new one", _LIMIT_S)
    client.stop()


def _repeated(provider: CountingProvider, jobs: list[str]) -> set[str]:
    counts = provider.counts()
    return {job for job in jobs if counts[job] > 1}


def _called_first_by(provider: CountingProvider, jobs: set[str]) -> set[str]:
    first = {call.job: call.caller for call in reversed(provider.calls())}
    return {first[job] for job in jobs}
