"""The cluster files: valid, and in step with the code they deploy."""

from __future__ import annotations

import json
import re
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiqueue import __version__
from aiqueue.config import PoolConfig
from tests.tools.kuberay_fields import unknown_fields
from tests.tools.manifests import JOURNAL, RAY_MANIFESTS, ROOT, cluster_spec, documents, groups

_NODE_MARGIN_S = (
    5.0  # of actors/worker_pool.py: before a node is gone its workers are to have handed back what they run
)
_DRAIN_TIMEOUT = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"


def ray_folder() -> Path:
    """Where Ray is installed; Ray itself is not imported."""
    found = util.find_spec("ray")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def ray_schema() -> dict[str, Any]:
    """The schema of cluster files as Ray ships it."""
    schema: dict[str, Any] = json.loads((ray_folder() / "autoscaler" / "ray-schema.json").read_text())
    return schema


def kuberay_fields() -> dict[str, Any]:
    """What KubeRay's definitions say of the fields of a RayService that the manifests use."""
    fields: dict[str, Any] = yaml.safe_load((ROOT / "tests" / "unit" / "kuberay_fields.yaml").read_text())
    return fields


@pytest.fixture
def cluster() -> dict[str, Any]:
    """What `ray up cluster.yaml` reads."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return read


def test_the_cluster_file_is_valid_by_rays_own_schema(cluster: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")  # a dependency of Ray's
    jsonschema.validate(cluster, ray_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "max_wokers": 1}, ray_schema())


def test_the_cluster_has_one_node_for_the_journal_and_workers_that_come_and_go(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    journal = types.pop("journal")
    assert journal["resources"] == {"CPU": 0, JOURNAL: 1}
    assert (journal["min_workers"], journal["max_workers"]) == (1, 1)
    assert not any(JOURNAL in node["resources"] for node in types.values())
    assert types[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu_worker"]["min_workers"] == 0
    assert types["gpu_worker"]["resources"]["GPU"] == 1
    workers = [types["cpu_worker"], types["gpu_worker"], journal]
    assert sum(node["max_workers"] for node in workers) <= cluster["max_workers"]


def test_a_head_that_is_started_again_finds_rays_state_and_the_nodes_have_waited_for_it(
    cluster: dict[str, Any],
) -> None:
    (head,) = [line for line in cluster["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in cluster["worker_start_ray_commands"] if "ray start" in line]
    assert "RAY_gcs_storage=rocksdb RAY_gcs_storage_path=$HOME/" in head
    assert "RAY_gcs_storage" not in worker
    assert "RAY_gcs_rpc_server_reconnect_timeout_s=600" in worker
    node = (ray_folder() / "_private" / "node.py").read_text()
    assert all(f'"{name}"' in node for name in ("gcs_storage", "gcs_storage_path", "rocksdb")), (
        "Ray has other names now"
    )


@pytest.mark.parametrize("node", ["head", "journal"])
def test_a_machine_that_is_ended_by_mistake_leaves_its_disk(cluster: dict[str, Any], node: str) -> None:
    (disk,) = cluster["available_node_types"][node]["node_config"]["BlockDeviceMappings"]
    assert disk["Ebs"]["DeleteOnTermination"] is False
    assert cluster["provider"]["cache_stopped_nodes"]


@pytest.mark.parametrize(
    "path", ["aiqueue", "actors", "serve", ".ci", "Makefile", "pyproject.toml", "README.md", "LICENSE"]
)
def test_what_the_cluster_file_copies_is_there(cluster: dict[str, Any], path: str) -> None:
    assert path in cluster["file_mounts"].values()
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", RAY_MANIFESTS)
def test_the_kubernetes_manifests_describe_the_same_kinds_of_nodes(name: str) -> None:
    found = groups(name)
    assert list(found) == ["head", "journal", "cpu-worker", "gpu-worker"]
    assert {each: group.get("minReplicas") for each, group in found.items()} == {
        "head": None,
        "journal": 1,
        "cpu-worker": 2 if name == "rayservice.yaml" else 1,
        "gpu-worker": 0,
    }
    assert found["journal"]["maxReplicas"] == 1, "each of two would have a journal of its own"
    assert found["head"]["rayStartParams"] == {"num-cpus": "0"}
    start = found["journal"]["rayStartParams"]
    assert (start["num-cpus"], json.loads(json.loads(start["resources"]))) == ("0", {JOURNAL: 1})
    assert "nvidia.com/gpu" in found["gpu-worker"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert cluster_spec(name)["enableInTreeAutoscaling"]
    assert all(__version__ in group["template"]["spec"]["containers"][0]["image"] for group in found.values())


@pytest.mark.parametrize("name", RAY_MANIFESTS)
def test_the_manifests_have_only_fields_that_kuberay_knows(name: str) -> None:
    (resource,) = documents(name)
    assert resource["apiVersion"] == "ray.io/v1"
    known = kuberay_fields() if resource["kind"] == "RayService" else kuberay_fields()["rayClusterConfig"]
    assert unknown_fields(resource["spec"], known) == []
    for group in cluster_spec(name)["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_a_misspelt_field_or_another_type_is_found_wherever_it_is() -> None:
    spec = cluster_spec("raycluster.yaml")
    spec["workerGroupSpecs"][2]["template"]["spec"]["containers"][0]["volumeMount"] = []
    spec["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert unknown_fields(spec, kuberay_fields()["rayClusterConfig"]) == [
        "spec.headGroupSpec.rayStartParams.num-cpus: 0",
        "spec.workerGroupSpecs[].template.spec.containers[].volumeMount",
    ]


@pytest.mark.parametrize("name", RAY_MANIFESTS)
def test_the_token_reaches_the_autoscaler_and_the_operator_too(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token", "secretName": "aiqueue-ray-token"}
    assert (
        "kubectl create secret generic aiqueue-ray-token --from-literal=auth_token="
        in (ROOT / "docs" / "deploy" / "raycluster.yaml").read_text()
    )
    for group in groups(name).values():
        names = {entry["name"] for entry in group["template"]["spec"]["containers"][0]["env"]}
        assert not any(name.startswith("RAY_AUTH") for name in names), "the operator sets these"


@pytest.mark.parametrize("group", ["head", "journal"])
def test_a_pod_whose_work_can_not_go_elsewhere_drains_nothing_and_is_back_the_sooner(group: str) -> None:
    (container,) = groups("raycluster.yaml")[group]["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert script.endswith(f"export {_DRAIN_TIMEOUT}=0"), "this comes after the container's variables"


@pytest.mark.parametrize("group", ["cpu-worker", "gpu-worker"])
def test_a_pod_that_ends_drains_its_node_first_and_waits_for_that(group: str) -> None:
    pod = groups("raycluster.yaml")[group]["template"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    drains_s = float(environment[_DRAIN_TIMEOUT])
    assert PoolConfig(providers=("a",)).drain_ms / 1e3 <= drains_s - _NODE_MARGIN_S, "running jobs may end"
    assert drains_s < pod["terminationGracePeriodSeconds"]
    assert f'"{_DRAIN_TIMEOUT}"' in (ray_folder() / "_private" / "ray_constants.py").read_text(), (
        "Ray reads another one"
    )


def test_the_drain_of_a_machine_uses_options_that_ray_has() -> None:
    commands = (ray_folder() / "scripts" / "scripts.py").read_text()
    (options,) = re.findall(r"@cli\.command\([^)]*\)\n((?:(?!@cli\.command).)*?)def drain_node\(", commands, re.DOTALL)
    (command,) = re.findall(r"^ray drain-node .*", (ROOT / "docs" / "scaling.md").read_text(), re.MULTILINE)
    used = re.findall(r"--[a-z-]+", command)
    assert used
    assert all(f'"{option}"' in options for option in used)


def test_the_service_runs_on_the_cluster_of_the_other_manifest() -> None:
    specs = [cluster_spec(name) for name in RAY_MANIFESTS]
    sizes = [
        (group.pop("replicas"), group.pop("minReplicas")) for spec in specs for group in [spec["workerGroupSpecs"][1]]
    ]
    assert specs[0] == specs[1]
    assert sizes == [(1, 1), (2, 2)], "one pod for each replica of the front"


def test_the_service_serves_what_serve_deploy_would() -> None:
    service = documents("rayservice.yaml")[0]
    deployed = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    names = served["applications"][0]["args"].pop("hosts")
    assert "aiqueue-serve-svc" in names  # of the service that KubeRay makes
    deployed["applications"][0]["args"].pop("hosts")
    assert served["applications"][0]["deployments"][0].pop("max_replicas_per_node") == 1
    assert served == {**deployed, "http_options": {**deployed["http_options"], "host": "0.0.0.0"}}


def test_an_upgrade_of_the_service_makes_no_second_cluster_for_the_one_journal() -> None:
    (service,) = documents("rayservice.yaml")
    assert service["spec"]["upgradeStrategy"] == {"type": "None"}
