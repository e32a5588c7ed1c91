"""How Serve is set up, as far as that can be seen without starting it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ray.serve.deployment import Application
from ray.serve.schema import ServeDeploySchema

from aiqueue.errors import StartError
from aiqueue.http_config import HttpConfig
from aiqueue.ports import HeldPorts
from serve import deployment, running
from serve.app import create_app
from serve.environment import http_environment, is_loopback
from tests.http.conftest import chat
from tests.http.fakes import DictAdapter

CONFIG = Path(deployment.__file__).with_name("config.yaml")


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


def test_the_configuration_file_is_one_that_serve_accepts() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    (application,) = config.applications
    assert application.import_path == "serve.deployment:build"
    assert [found.name for found in application.deployments] == [deployment.DEPLOYMENT_NAME]
    built = deployment.build(deployment.BuildArgs.model_validate(application.args))
    assert isinstance(built, Application)


# --- beside other applications ---


def details(**prefixes: str) -> dict[str, Any]:
    """Return what Serve says of itself, with applications at these paths; ours were given an environment."""
    applications = {}
    for name, prefix in prefixes.items():
        options = {"runtime_env": {"env_vars": {"RAY_SERVE_ENABLE_HA_PROXY": "1"}}} if name == "aiqueue" else {}
        deployments = {"http": {"deployment_config": {"ray_actor_options": options}}}
        applications[name] = {"route_prefix": prefix, "deployments": deployments}
    return {"http_options": {"host": "127.0.0.1", "port": 8123}, "applications": applications}


def test_a_serve_that_runs_tells_its_address_its_paths_and_our_environment() -> None:
    found = running.describe(details(shop="/shop", aiqueue="/"))
    assert (found.host, found.port, found.prefixes) == ("127.0.0.1", 8123, {"shop": "/shop", "aiqueue": "/"})
    assert found.environment == {"RAY_SERVE_ENABLE_HA_PROXY": "1"}
    assert running.describe(details(shop="/shop")).environment == {}


def test_each_system_gets_a_path_of_its_own_and_keeps_it() -> None:
    free, shared = {"shop": "/shop"}, {"aiqueue": "/", "aiqueue-b": "/b"}
    assert running.prefix_for("aiqueue", HttpConfig(), free) == "/"
    assert running.prefix_for("aiqueue-c", HttpConfig(), shared) == "/aiqueue-c"
    assert running.prefix_for("aiqueue", HttpConfig(), shared) == "/"
    assert running.prefix_for("aiqueue-b", HttpConfig(), shared) == "/b"
    assert running.prefix_for("aiqueue-b", HttpConfig(route_prefix="/mine"), shared) == "/mine"
    with pytest.raises(StartError, match="'aiqueue' at / already"):
        running.prefix_for("aiqueue-c", HttpConfig(route_prefix="/"), shared)


def test_names_of_applications_differ_as_their_namespaces_do() -> None:
    namespaces = ["aiqueue", "a b", "a-b", "a/b", "aiqueue-a", "demo", "a--b", "-a"]
    names = [running.app_name(namespace) for namespace in namespaces]
    assert len(set(names)) == len(names)
    for name in names:
        assert HttpConfig(route_prefix=f"/{name}").route_prefix


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
