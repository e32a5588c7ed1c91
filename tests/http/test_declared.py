"""The application of Serve's configuration files, built as Serve builds it on a cluster."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private import application_state
from ray.serve._private.config import ReplicaConfig
from ray.serve._private.deploy_utils import deploy_args_to_deployment_info
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve.schema import LoggingConfig, ServeApplicationSchema, ServeDeploySchema

from aiqueue.http_config import HttpConfig
from serve.environment import http_environment

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "serve" / "config.yaml"
SERVICE = ROOT / "docs" / "deploy" / "rayservice.yaml"


def deployed(path: Path) -> ServeDeploySchema:
    """Return what a file describes, as Serve reads it."""
    found = next(yaml.safe_load_all(path.read_text()))
    return ServeDeploySchema.model_validate(
        yaml.safe_load(found["spec"]["serveConfigV2"]) if "spec" in found else found
    )


APPLICATIONS = [
    pytest.param(application, id=f"{path.name}-{application.name}")
    for path in (CONFIG, SERVICE)
    for application in deployed(path).applications
]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Serve's builder find itself outside of a cluster."""
    context = type("Context", (), {"runtime_env": {}, "get_job_id": lambda _: "01000000"})
    monkeypatch.setattr("ray.get_runtime_context", context)
    monkeypatch.setattr(application_state, "configure_component_logger", lambda **_: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)


def built(application: ServeApplicationSchema, **args: Any) -> tuple[list[dict[str, Any]] | None, str | None]:
    """Return what Serve's task of its controller makes of an application: the deployments, or an error."""
    build = application_state.build_serve_application._function
    given = {**application.args, **args}
    _, deployments, error = build(
        application.import_path, "1", application.name, given, LoggingConfig(), None, {}, {}, {}
    )
    return deployments, error


def deployments_of(application: ServeApplicationSchema) -> Iterator[DeploymentInfo]:
    """Yield the deployments with the options of the file."""
    found, error = built(application)
    assert error is None
    infos = {each["deployment_name"]: deploy_args_to_deployment_info(**each, app_name="a") for each in found or ()}
    yield from application_state.override_deployment_info(infos, application).values()


@pytest.mark.parametrize("application", APPLICATIONS)
def test_an_application_of_a_file_is_built_with_the_options_of_the_file(application: ServeApplicationSchema) -> None:
    (front,) = deployments_of(application)
    (wanted,) = application.deployments
    config, replica = front.deployment_config, front.replica_config
    assert isinstance(replica, ReplicaConfig)
    assert (config.num_replicas, replica.ray_actor_options["num_cpus"]) == (2, 1)
    for name in wanted.model_dump(exclude_unset=True).keys() - {"name", "num_replicas", "ray_actor_options"}:
        assert getattr(config if hasattr(config, name) else replica, name) == getattr(wanted, name)
    assert config.backpressure_config.retry_after_s == 1, "what the file says nothing of is as in the code"
    make_adapter, http = replica.init_args
    assert make_adapter.args == (application.args["namespace"],)
    assert (http.hosts, http.max_body_bytes) == (tuple(application.args["hosts"]), application.args["max_body_bytes"])


@pytest.mark.parametrize("application", APPLICATIONS)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"max_body_byts": 1}, r"args\.max_body_byts: Extra inputs are not permitted"),
        ({"max_body_bytes": "many"}, r"args\.max_body_bytes: .* integer"),
        ({"max_body_bytes": 5}, r"args\.max_body_bytes: .* 1024"),
        ({"hosts": "gateway"}, r"args\.hosts: .* tuple"),
        ({"hosts": ["a b"]}, r"args\.hosts\.0: .*"),
        ({"origins": ["tools.example.com"]}, r"args\.origins\.0: .*"),
        ({"namespace": ""}, r"args\.namespace: .*"),
        ({"namespace": None}, r"args\.namespace: .* string"),
    ],
)
def test_a_wrong_argument_is_one_sentence_that_names_it(
    application: ServeApplicationSchema, args: dict[str, Any], message: str
) -> None:
    _, error = built(application, **args)
    assert re.fullmatch(f"the application can't be built: {message}", error or "")


def test_arguments_of_the_command_line_are_texts_and_serve_too() -> None:
    (application,) = deployed(CONFIG).applications
    bare = application.model_copy(update={"args": {"namespace": "team", "max_body_bytes": "2048"}})
    (front,) = deployments_of(bare)
    make_adapter, http = front.replica_config.init_args
    assert (make_adapter.args, http) == (("team",), HttpConfig(max_body_bytes=2048))


def test_the_variables_that_the_file_names_are_those_that_a_system_sets() -> None:
    named = dict(re.findall(r"(RAY_SERVE_\w+)=(\S+)", CONFIG.read_text()))
    with tempfile.TemporaryDirectory(prefix="aq-", dir="/tmp") as folder:  # short: sockets lie in it
        ours = http_environment(Path(folder), fallback_port=1, drain_s=30.0)
    assert named
    assert {name: ours[name].replace(folder, "/run/aiqueue") for name in named} == named
