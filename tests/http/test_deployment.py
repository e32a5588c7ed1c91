"""How Serve is set up, as far as that can be seen without starting it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray.exceptions import RayActorError
from ray.serve._private.haproxy import HAProxyManager
from ray.serve.exceptions import RayServeException

from aiqueue.errors import StartError
from aiqueue.http_config import HttpConfig
from aiqueue.ports import HeldPorts
from serve import deployment, running
from serve.app import create_app
from serve.environment import http_environment, is_loopback
from serve.haproxy_config import SECRET_HEADER, changed, is_ours
from tests.http.conftest import chat
from tests.http.fakes import DictAdapter


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an empty folder with a path short enough for sockets, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="aq-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def test_the_folder_of_the_sockets_is_for_its_owner_only(folder: Path) -> None:
    folder.chmod(0o755)
    http_environment(folder / "new", fallback_port=1)
    http_environment(folder, fallback_port=1)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "new")] == [0o700, 0o700]


def test_every_file_of_haproxy_lies_in_the_private_folder(folder: Path) -> None:
    variables = http_environment(folder, fallback_port=1)
    paths = [value for value in variables.values() if "/" in value]
    assert len(paths) == 6
    assert all(Path(path).is_relative_to(folder) for path in paths)
    assert variables["RAY_SERVE_ENABLE_HA_PROXY"] == variables["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


def test_serves_own_proxy_gets_the_port_it_is_given_and_not_the_one_that_all_systems_share(folder: Path) -> None:
    variables = http_environment(folder, fallback_port=23_456)
    assert variables["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] == "23456"


def test_a_folder_that_is_a_link_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to(folder)
    with pytest.raises(ValueError, match="is a link"):
        http_environment(folder / "link", fallback_port=1)


def test_a_path_too_long_for_sockets_is_refused_before_it_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "running_serve", lambda: None)
    path = folder / ("x" * 40)
    with pytest.raises(ValueError, match="too long"):
        http_environment(path, fallback_port=1)
    assert not path.exists()
    with pytest.raises(StartError, match="too long"):
        deployment.run(HttpConfig(port=1), DictAdapter, private_dir=path, ports=HeldPorts())


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")],
)
def test_only_loopback_addresses_count_as_such(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "addresses", "said"),
    [
        ("127.0.0.1", ["10.0.0.1"], ""),
        ("127.0.0.1", ["10.0.0.1", "10.0.0.2"], "from programs on its own node only, unless http.host says otherwise"),
        ("10.0.0.1", ["10.0.0.1", "10.0.0.2"], ""),
        ("0.0.0.0", ["10.0.0.1"], "from elsewhere: http://10.0.0.1:8000/team"),
        (
            "0.0.0.0",
            ["10.0.0.1", "10.0.0.2"],
            "that has a replica: http://10.0.0.1:8000/team http://10.0.0.2:8000/team",
        ),
        ("::", ["fd00::1"], "from elsewhere: http://[fd00::1]:8000/team"),
    ],
)
def test_what_is_said_of_the_address_is_true_for_other_machines(host: str, addresses: list[str], said: str) -> None:
    found = running.from_elsewhere(host, f"{running.url_of(host, 8000)}/team", addresses)
    assert said in found
    assert bool(found) == bool(said)


# --- beside other applications ---


def details(**prefixes: str) -> dict[str, Any]:
    """Return what Serve says of itself, with applications of programs at these paths; ours has an environment."""
    applications = {}
    for given, prefix in prefixes.items():
        name = given.replace("_", "-")
        options = {"runtime_env": {"env_vars": {"RAY_SERVE_ENABLE_HA_PROXY": "1"}}} if name == "aiqueue-up" else {}
        applications[name] = {
            "route_prefix": prefix,
            "source": "imperative",
            "status": "RUNNING",
            "deployments": {"http": {"deployment_config": {"ray_actor_options": options}}},
        }
    return {"http_options": {"host": "127.0.0.1", "port": 8123}, "applications": applications}


def test_a_serve_that_runs_tells_its_address_its_paths_and_our_environment() -> None:
    found = running.describe(details(shop="/shop", aiqueue_up="/"))
    assert (found.host, found.port, found.prefixes) == ("127.0.0.1", 8123, {"shop": "/shop", "aiqueue-up": "/"})
    assert found.environment == {"RAY_SERVE_ENABLE_HA_PROXY": "1"}
    assert running.describe(details(shop="/shop")).environment == {}


def test_a_serve_that_is_just_ending_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(**_: object) -> None:
        raise RayActorError

    monkeypatch.setattr(running, "_get_global_client", dead)
    assert running.running_serve() is None


def test_each_system_gets_a_path_of_its_own_and_keeps_it() -> None:
    free, shared = {"shop": "/shop"}, {"aiqueue-up": "/", "aiqueue-up-b": "/b"}
    assert running.prefix_for("aiqueue", HttpConfig(), free) == "/"
    assert running.prefix_for("c", HttpConfig(), shared) == "/aiqueue-c"
    assert running.prefix_for("aiqueue", HttpConfig(), shared) == "/"
    assert running.prefix_for("b", HttpConfig(), shared) == "/b"
    assert running.prefix_for("b", HttpConfig(route_prefix="/mine"), shared) == "/mine"
    with pytest.raises(StartError, match="'aiqueue-up' at / already"):
        running.prefix_for("c", HttpConfig(route_prefix="/"), shared)


def test_names_of_applications_and_their_paths_differ_as_their_namespaces_do() -> None:
    namespaces = ["aiqueue", "a b", "a-b", "a/b", "aiqueue-a", "demo", "a--b", "-a", "up", "aiqueue-up"]
    for made in ([running.app_name(namespace) for namespace in namespaces], list(map(running.own_path, namespaces))):
        assert len(set(made)) == len(namespaces)
        assert all(HttpConfig(route_prefix=f"/{name.strip('/')}").route_prefix for name in made)


@pytest.mark.parametrize(
    ("application", "ours"),
    [
        *((name, True) for name in ("aiqueue", "aiqueue-up", "aiqueue-team", "aiqueue#b")),
        *((name, False) for name in ("aiqueues", "shop", "my-aiqueue")),
    ],
)
def test_haproxy_and_replicas_agree_on_which_applications_are_ours(application: str, *, ours: bool) -> None:
    section = f"backend {HAProxyManager.get_safe_name(f'http-{application}')}"
    text = changed(f"global\nstats socket /s\nfrontend http_frontend\nbind *:1\n{section}\n", secret="s", folder=Path())
    assert (SECRET_HEADER in text) is is_ours(application) is ours


# --- beside applications of configuration files ---


def declared(status: str = "DEPLOYING", *, path: str = "/", built: bool = False, **args: Any) -> dict[str, Any]:
    """Return what Serve says of our application of a configuration file."""
    file = {"name": "aiqueue", "import_path": running.BUILDER, "route_prefix": path, "args": args}
    return {
        "route_prefix": path if built else None,
        "source": "declarative",
        "status": status,
        "deployments": {},
        "deployed_app_config": file,
    }


def beside(*programs: str, name: str = "aiqueue", of: dict[str, Any]) -> running.RunningServe:
    """Return a Serve with the front of `aiqueue up`, if asked for, and an application of a file."""
    found = details(**dict.fromkeys(programs, "/"))
    found["applications"][name] = of
    return running.describe(found)


def test_a_file_does_not_take_over_the_path_of_what_a_program_serves() -> None:
    taken = beside("aiqueue_up", of=declared())
    with pytest.raises(RayServeException, match=r"'aiqueue-up' is served at / already: .*`aiqueue up --no-http`"):
        running.check_taken({}, taken)
    running.check_taken({"namespace": "another application of the file"}, taken)
    running.check_taken({}, beside("aiqueue_up", of=declared(path="/second")))
    running.check_taken({}, beside(of=declared("RUNNING", built=True)))


def test_a_file_does_not_take_over_the_name_of_what_up_serves() -> None:
    with pytest.raises(RayServeException, match="'aiqueue-up' are those of `aiqueue up`"):
        running.check_taken({}, beside(name="aiqueue-up", of=declared(path="/second")))


@pytest.mark.parametrize(
    ("application", "is_there"),
    [
        (declared(namespace="team"), True),
        (declared("RUNNING", namespace="team", built=True), True),
        (declared("DEPLOY_FAILED", namespace="team", built=True), True),  # by a second file; the first one's serves on
        (declared("DEPLOY_FAILED", namespace="team"), False),
        (declared("DELETING", namespace="team", built=True), False),
        (declared("RUNNING", built=True), False),
        ({**declared(namespace="team"), "deployed_app_config": None}, False),
    ],
)
def test_up_finds_the_front_that_a_file_has_put_before_its_namespace(
    application: dict[str, Any], *, is_there: bool
) -> None:
    found = running.declared_front("team", beside(of=application))
    assert found == (("aiqueue", "http://127.0.0.1:8123") if is_there else None)


def test_the_path_of_a_file_is_taken_for_other_systems_before_it_is_built() -> None:
    assert running.prefix_for("b", HttpConfig(), beside(of=declared()).prefixes) == "/aiqueue-b"


def test_another_address_than_serves_own_is_refused() -> None:
    here = running.describe(details(shop="/shop"))
    running.check_address(HttpConfig(port=0), here)
    running.check_address(HttpConfig(port=8123), here)
    with pytest.raises(StartError, match=r"at 127.0.0.1:8123.*set http.port to 0"):
        running.check_address(HttpConfig(port=8000), here)
    with pytest.raises(StartError, match="can't be reached from outside"):
        running.check_address(HttpConfig(host="0.0.0.0", port=0), here)


async def test_below_a_path_of_its_own_every_route_is_found() -> None:
    app = create_app(DictAdapter, HttpConfig())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, root_path="/team"), base_url="http://127.0.0.1/team"
        ) as client,
    ):
        submitted = await client.post("/ai/jobs", json={"payload": chat()})
        assert submitted.status_code == 202
        location = submitted.headers["location"]
        assert location.startswith("/team/ai/jobs/")
        assert (await client.get(location.removeprefix("/team"))).status_code == 200
        assert (await client.get("/ai/live")).status_code == 200
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.get("/nothing")).status_code == 404
