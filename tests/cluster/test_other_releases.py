"""A real Ray and what is of another release: a program's Python, a worker's settings, a client."""

from __future__ import annotations

import subprocess
import sys

import pytest
import ray
from ray.exceptions import ActorDiedError

from actors.cluster import start_error
from actors.worker_actor import WorkerActor
from aiqueue import launch, protocol
from aiqueue.client.ray_transport import QUEUE_ACTOR_NAME
from aiqueue.own_version import own_version

_OTHER_PYTHON = """
import ray._private.utils as utils
utils.compute_version_info = lambda: (utils.ray.__version__, "3.99.1")  # as Ray reads it in such a Python
"""
_COMMAND = f"{_OTHER_PYTHON}\nfrom aiqueue.cli import main\nmain()"
_TWICE = f"""{_OTHER_PYTHON}
import sys, aiqueue
for _ in range(2):
    try:
        aiqueue.connect(sys.argv[1], address=sys.argv[2])
    except Exception as error:
        print(type(error).__name__, error)
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120)


def test_a_command_of_another_python_says_so_in_one_line(running_system: launch.System) -> None:
    where = ("--namespace", running_system.settings.namespace, "--address", running_system.address)
    printed = run(_COMMAND, "stats", *where)
    own = own_version()
    assert printed.returncode == 1
    assert printed.stderr.splitlines()[-1].startswith(
        f"error: the cluster runs Ray {own.ray} on Python {own.python}, and this process Ray {own.ray} on Python 3.99.1"
    )
    assert "Traceback" not in printed.stderr
    assert "RuntimeError: Version mismatch" in run(_COMMAND, "--debug", "stats", *where).stderr


def test_a_program_of_another_python_is_told_the_same_each_time_it_tries(running_system: launch.System) -> None:
    printed = run(_TWICE, running_system.settings.namespace, running_system.address).stdout.splitlines()
    assert len(printed) == 2
    assert all(line.startswith("StartError the cluster runs Ray") for line in printed), printed


def test_a_worker_with_settings_of_a_newer_release_says_what_it_can_not_read(shared_ray: None) -> None:
    worker = ray.remote(WorkerActor).remote('{"tenants": {}}', "p")
    with pytest.raises(ActorDiedError) as raised:
        ray.get(worker.report.remote(), timeout=120)
    assert start_error(raised.value).startswith(f"this node has aiqueue {own_version().release}, which can't read")
    assert "tenants" in start_error(raised.value)


def test_a_client_of_protocol_0_is_welcome(running_system: launch.System) -> None:
    queue = ray.get_actor(QUEUE_ACTOR_NAME, namespace=running_system.settings.namespace)
    welcome = protocol.decode_welcome(ray.get(queue.hello.remote(), timeout=60))
    assert welcome.version == own_version()
