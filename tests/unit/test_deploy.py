"""The cluster files: valid, and in step with the code they deploy."""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiqueue import __version__

_ROOT = Path(__file__).parents[2]
_JOURNAL = "aiqueue_journal"


def ray_schema() -> dict[str, Any]:
    """The schema of cluster files as Ray ships it; Ray itself is not imported."""
    found = util.find_spec("ray")
    assert found is not None
    assert found.submodule_search_locations
    schema: dict[str, Any] = json.loads(
        (Path(found.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json").read_text()
    )
    return schema


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((_ROOT / "docs" / "deploy" / name).read_text()))


@pytest.fixture
def cluster() -> dict[str, Any]:
    """What `ray up cluster.yaml` reads."""
    read: dict[str, Any] = yaml.safe_load((_ROOT / "cluster.yaml").read_text())
    return read


def test_the_cluster_file_is_valid_by_rays_own_schema(cluster: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")  # a dependency of Ray's
    jsonschema.validate(cluster, ray_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "max_wokers": 1}, ray_schema())


def test_the_cluster_has_a_head_for_the_journal_and_workers_that_come_and_go(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types[cluster["head_node_type"]]["resources"]
    assert (head["CPU"], head[_JOURNAL]) == (0, 1)
    assert types["gpu_worker"]["min_workers"] == 0
    assert types["gpu_worker"]["resources"]["GPU"] == 1
    assert types["cpu_worker"]["max_workers"] + types["gpu_worker"]["max_workers"] <= cluster["max_workers"]
    assert not any(_JOURNAL in types[name]["resources"] for name in ("cpu_worker", "gpu_worker"))


@pytest.mark.parametrize(
    "path", ["aiqueue", "actors", "serve", ".ci", "Makefile", "pyproject.toml", "README.md", "LICENSE"]
)
def test_what_the_cluster_file_copies_is_there(cluster: dict[str, Any], path: str) -> None:
    assert path in cluster["file_mounts"].values()
    assert (_ROOT / path).exists()


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayservice.yaml"])
def test_the_kubernetes_manifests_describe_the_same_kinds_of_nodes(name: str) -> None:
    resource, claim = documents(name)
    spec = resource["spec"] if resource["kind"] == "RayCluster" else resource["spec"]["rayClusterConfig"]
    assert (resource["apiVersion"], claim["kind"]) == ("ray.io/v1", "PersistentVolumeClaim")
    head = spec["headGroupSpec"]
    assert json.loads(json.loads(head["rayStartParams"]["resources"])) == {_JOURNAL: 1}
    assert head["rayStartParams"]["num-cpus"] == "0"
    cpu, gpu = spec["workerGroupSpecs"]
    assert (gpu["minReplicas"], cpu["minReplicas"]) == (0, 1)
    assert "nvidia.com/gpu" in gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert spec["enableInTreeAutoscaling"]
    images = [group["template"]["spec"]["containers"][0]["image"] for group in (head, cpu, gpu)]
    assert all(__version__ in image for image in images)
    mounts = {mount["name"] for mount in head["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts <= {volume["name"] for volume in head["template"]["spec"]["volumes"]}


def test_the_service_runs_on_the_cluster_of_the_other_manifest() -> None:
    (cluster_resource, claim), (service, its_claim) = documents("raycluster.yaml"), documents("rayservice.yaml")
    assert service["spec"]["rayClusterConfig"] == cluster_resource["spec"]
    assert its_claim == claim


def test_the_service_serves_what_serve_deploy_would() -> None:
    service = documents("rayservice.yaml")[0]
    deployed = yaml.safe_load((_ROOT / "serve" / "config.yaml").read_text())
    assert yaml.safe_load(service["spec"]["serveConfigV2"])["applications"] == deployed["applications"]
