"""`serve deploy` and `serve run` with the file in serve/, for real: two nodes, the commands, and a system behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.http.conftest import is_problem
from tests.running_system import chat
from tests.tools.pool_events import eventually
from tests.tools.two_nodes import LIMIT_S, TwoNodes, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FILE = Path(__file__).parents[2] / "serve" / "config.yaml"
SETTINGS = """
[providers.instant]
kind = "simulated"
[pools.fast]
providers = ["instant"]
slots = 32
workers = 1
num_cpus = 0
[journal]
path = "{folder}/journal.db"
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    """A cluster for all tests here; each leaves it without a system and without Serve."""
    with two_nodes() as begun:
        (begun.folder / "aiqueue.toml").write_text(SETTINGS.format(folder=begun.folder))
        yield begun


@contextmanager
def up(nodes: TwoNodes, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `aiqueue up` until the block's end, from when it says that it is up."""
    with nodes.begun("up", "-m", "aiqueue", "up", "--config=aiqueue.toml", *options) as process:
        eventually(lambda: "is up" in nodes.log("up") or process.poll() is not None, "the system is up", LIMIT_S)
        assert process.poll() is None, nodes.log("up")
        yield process


def file_for(nodes: TwoNodes, *, route_prefix: str = "/", **args: Any) -> Path:
    """Write the file as it is but for its port, with another path and other arguments if they are given."""
    config = yaml.safe_load(FILE.read_text())
    config["http_options"]["port"] = nodes.http_port
    (application,) = config["applications"]
    application["route_prefix"] = route_prefix
    application["args"] |= args
    path = nodes.folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def deploy(nodes: TwoNodes, path: Path) -> None:
    """Run `serve deploy`, which does not wait."""
    said = nodes.serve("deploy", str(path))
    assert said.returncode == 0, said.stderr


def shut_down(nodes: TwoNodes) -> None:
    """End Serve as an operator does."""
    said = nodes.serve("shutdown", "-y")
    assert said.returncode == 0, said.stderr
    eventually(lambda: not nodes.applications(), "Serve has ended", LIMIT_S)


def replicas(nodes: TwoNodes, name: str = "aiqueue") -> Mapping[str, str]:
    """Return the nodes of an application's replicas that run, by replica."""
    deployments = nodes.applications().get(name, {}).get("deployments", {}).values()
    found = [replica for each in deployments for replica in each["replicas"]]
    return {each["replica_id"]: each["node_id"] for each in found if each["state"] == "RUNNING"}


def message(nodes: TwoNodes) -> str:
    """Return why the application was not deployed, once that is known."""
    eventually(lambda: nodes.applications()["aiqueue"]["status"] == "DEPLOY_FAILED", "it was refused", LIMIT_S)
    return str(nodes.applications()["aiqueue"]["message"])


def get(url: str) -> httpx.Response:
    """Ask once."""
    return httpx.get(url, trust_env=False, timeout=LIMIT_S)


def answers(url: str, status: int = 200) -> bool:
    """Tell whether this address answers with this status; nothing may listen there yet."""
    with suppress(httpx.TransportError):
        return get(url).status_code == status
    return False


def submit(url: str, http: httpx.Client) -> httpx.Response:
    """Send one job."""
    return http.post(f"{url}/ai/jobs", json={"payload": chat()})


def assert_serves(url: str) -> None:
    """Run a job through this address."""
    eventually(lambda: answers(f"{url}/ai/health"), f"{url} has its queue", LIMIT_S)
    with httpx.Client(trust_env=False, timeout=LIMIT_S) as http:
        accepted = submit(url, http)
        assert accepted.status_code == 202, accepted.text
        with http.stream("GET", f"{url}/ai/jobs/{accepted.json()['jobId']}/events") as events:
            names = [line for line in events.iter_lines() if line.startswith("event: ")]
    assert names[-1] == "event: job:completed"


@contextmanager
def load(urls: list[str]) -> Iterator[Counter[str]]:
    """Submit jobs to each address, one after another, until the block's end; count how each request ended."""
    ends, over = Counter[str](), threading.Event()

    def send(url: str) -> None:
        with httpx.Client(trust_env=False, timeout=LIMIT_S) as http:
            while not over.is_set():
                try:
                    ends[str(submit(url, http).status_code)] += 1
                except httpx.TransportError as error:
                    ends[type(error).__name__] += 1

    threads = [threading.Thread(target=send, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: sum(ends.values()) > 20, "requests flow", LIMIT_S)
        yield ends
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_front_that_is_deployed_before_its_system_waits_for_it_and_a_redeploy_under_load_loses_no_request(
    nodes: TwoNodes,
) -> None:
    deploy(nodes, file_for(nodes))
    for url in nodes.urls:
        eventually(lambda url=url: answers(f"{url}/ai/live"), "the front answers", LIMIT_S)  # type: ignore[misc]
        assert is_problem(get(f"{url}/ai/stats"), 503, "queue_not_running")
    with up(nodes, "--no-http"):
        for url in nodes.urls:
            assert_serves(url)
        first = replicas(nodes)
        assert len(set(first.values())) == 2, "one on each node"
        with load(nodes.urls) as ends:
            deploy(nodes, file_for(nodes, max_body_bytes=4096))
            eventually(lambda: len(replicas(nodes).keys() - first.keys()) == 2, "both are replaced", LIMIT_S)
            eventually(lambda: nodes.applications()["aiqueue"]["status"] == "RUNNING", "all is done", LIMIT_S)
        assert set(ends) == {"202"}, ends
        for url in nodes.urls:
            refused = httpx.post(f"{url}/ai/jobs", json={"payload": chat(text="x" * 5_000)}, trust_env=False)
            assert refused.status_code == 413

        deploy(nodes, file_for(nodes, max_body_byts=1))
        assert message(nodes).endswith("args.max_body_byts: Extra inputs are not permitted")
        assert_serves(nodes.urls[0])

        said = nodes.aiqueue("down")
        assert "The application 'aiqueue' of `serve deploy` answers 503 at" in said.stdout
    assert is_problem(get(f"{nodes.urls[1]}/ai/stats"), 503, "queue_not_running")
    shut_down(nodes)


def test_up_with_http_joins_the_front_that_is_deployed_and_leaves_it_there(nodes: TwoNodes) -> None:
    deploy(nodes, file_for(nodes))
    eventually(lambda: len(replicas(nodes)) == 2, "the front is there", LIMIT_S)
    with up(nodes, "--port=1") as process:  # not asked for: the front has an address
        assert f"HTTP       {nodes.urls[0]}" in nodes.log("up")
        assert "has put the application 'aiqueue' in front of this system" in nodes.log("up")
        assert nodes.applications().keys() == {"aiqueue"}
        assert_serves(nodes.urls[0])
        process.terminate()
        process.wait(LIMIT_S)
    assert len(replicas(nodes)) == 2
    shut_down(nodes)


def test_serve_run_serves_until_it_is_interrupted(nodes: TwoNodes) -> None:
    serve = str(Path(sys.executable).with_name("serve"))
    with up(nodes, "--no-http"):
        with nodes.begun("run", serve, "run", str(file_for(nodes))) as process:
            for url in nodes.urls:
                assert_serves(url)
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 0
        eventually(lambda: not nodes.applications(), "Serve has ended", LIMIT_S)
        assert not answers(f"{nodes.urls[0]}/ai/live")


def test_a_file_takes_over_nothing_of_what_up_serves_and_is_served_beside_it(nodes: TwoNodes) -> None:
    with up(nodes, f"--port={nodes.http_port}"):
        url = nodes.urls[0]
        (first,) = replicas(nodes, "aiqueue-up")
        deploy(nodes, file_for(nodes))
        assert "'aiqueue-up' is served at / already: give this one another route_prefix" in message(nodes)
        assert_serves(url)

        deploy(nodes, file_for(nodes, route_prefix="/second"))
        assert_serves(f"{url}/second")
        assert_serves(url)
        assert replicas(nodes, "aiqueue-up").keys() == {first}
        assert nodes.aiqueue("down").returncode == 0
    assert nodes.applications().keys() == {"aiqueue"}
    eventually(lambda: answers(f"{url}/second/ai/stats", 503), "the other one goes on without a queue", LIMIT_S)
    shut_down(nodes)
