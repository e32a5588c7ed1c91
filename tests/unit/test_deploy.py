"""The cluster files: valid, and in step with the code they deploy."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiqueue import __version__
from aiqueue.config import PoolConfig

_ROOT = Path(__file__).parents[2]
_JOURNAL = "aiqueue_journal"
_MANIFESTS = ("raycluster.yaml", "rayservice.yaml")
_NODE_MARGIN_S = (
    5.0  # of actors/worker_pool.py: before a node is gone its workers are to have handed back what they run
)

# What KubeRay's ray.io/v1 (1.6) knows, as far as the manifests need it. An operator drops what it does not know.
_CLUSTER_FIELDS = {
    "rayVersion": str,
    "authOptions": {"mode": str, "secretName": str},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"version": str, "idleTimeoutSeconds": int, "upscalingMode": str},
    "headGroupSpec": {"rayStartParams": dict, "template": dict},
    "workerGroupSpecs": list,
}
_WORKER_GROUP_FIELDS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}
_SERVICE_FIELDS = {"upgradeStrategy": {"type": str}, "serveConfigV2": str, "rayClusterConfig": dict}


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


def cluster_spec(name: str) -> dict[str, Any]:
    """The specification of the Ray cluster in a manifest."""
    resource = documents(name)[0]
    spec: dict[str, Any] = (
        resource["spec"] if resource["kind"] == "RayCluster" else resource["spec"]["rayClusterConfig"]
    )
    return spec


def check_fields(found: dict[str, Any], known: dict[str, Any], where: str) -> None:
    """Assert that ``found`` has known fields only, each of its type."""
    assert found.keys() <= known.keys(), where
    for name, value in found.items():
        kind = known[name]
        if isinstance(kind, dict):
            check_fields(value, kind, f"{where}.{name}")
        else:
            assert isinstance(value, kind), f"{where}.{name}"


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


@pytest.mark.parametrize("name", _MANIFESTS)
def test_the_kubernetes_manifests_describe_the_same_kinds_of_nodes(name: str) -> None:
    resource, claim = documents(name)
    spec = cluster_spec(name)
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


@pytest.mark.parametrize("name", _MANIFESTS)
def test_the_manifests_have_only_fields_that_kuberay_knows(name: str) -> None:
    spec = cluster_spec(name)
    check_fields(spec, _CLUSTER_FIELDS, name)
    for group in spec["workerGroupSpecs"]:
        check_fields(group, _WORKER_GROUP_FIELDS, f"{name}: {group['groupName']}")
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "each is an argument"


@pytest.mark.parametrize("name", _MANIFESTS)
def test_the_token_reaches_the_autoscaler_and_the_operator_too(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token", "secretName": "aiqueue-ray-token"}
    assert (
        "kubectl create secret generic aiqueue-ray-token --from-literal=auth_token="
        in (_ROOT / "docs" / "deploy" / "raycluster.yaml").read_text()
    )
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        names = {entry["name"] for entry in group["template"]["spec"]["containers"][0]["env"]}
        assert not any(name.startswith("RAY_AUTH") for name in names), "the operator sets these"


@pytest.mark.parametrize("name", _MANIFESTS)
def test_a_pod_that_ends_drains_its_node_first_and_waits_for_that(name: str) -> None:
    for group in cluster_spec(name)["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        shell, flag, script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        subprocess.run([shell, "-n", flag, script], check=True)  # only read, not run
        drain, wait = (shlex.split(command) for command in script.split(";"))
        assert drain[:2] == ["ray", "drain-node"]
        assert wait[0] == "sleep"
        given = dict(zip(drain[2::2], drain[3::2], strict=True))
        deadline_s, waits_s = float(given["--deadline-remaining-seconds"]), float(wait[1])
        assert given["--reason"] == "DRAIN_NODE_REASON_PREEMPTION", "the only reason that has a deadline"
        assert PoolConfig(providers=("a",)).drain_ms / 1e3 <= deadline_s - _NODE_MARGIN_S, "running jobs may end"
        assert deadline_s <= waits_s < pod["terminationGracePeriodSeconds"]


def test_the_drain_of_a_pod_uses_options_that_ray_has() -> None:
    commands = (ray_folder() / "scripts" / "scripts.py").read_text()
    (options,) = re.findall(r"@cli\.command\([^)]*\)\n((?:(?!@cli\.command).)*?)def drain_node\(", commands, re.DOTALL)
    script = cluster_spec("raycluster.yaml")["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["lifecycle"]
    used = re.findall(r"--[a-z-]+", script["preStop"]["exec"]["command"][2])
    assert used
    assert all(f'"{option}"' in options for option in used)


def test_the_service_runs_on_the_cluster_of_the_other_manifest() -> None:
    (cluster_resource, claim), (service, its_claim) = documents("raycluster.yaml"), documents("rayservice.yaml")
    assert service["spec"]["rayClusterConfig"] == cluster_resource["spec"]
    assert its_claim == claim


def test_the_service_serves_what_serve_deploy_would() -> None:
    service = documents("rayservice.yaml")[0]
    deployed = yaml.safe_load((_ROOT / "serve" / "config.yaml").read_text())
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    names = served["applications"][0]["args"].pop("hosts")
    assert "aiqueue-serve-svc" in names  # of the service that KubeRay makes
    deployed["applications"][0]["args"].pop("hosts")
    assert served == {**deployed, "http_options": {**deployed["http_options"], "host": "0.0.0.0"}}


def test_an_upgrade_of_the_service_makes_no_second_cluster_for_the_one_journal() -> None:
    service, claim = documents("rayservice.yaml")
    check_fields(service["spec"], _SERVICE_FIELDS, "rayservice.yaml")
    assert service["spec"]["upgradeStrategy"] == {"type": "None"}
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    volumes = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["volumes"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
    assert claims == [claim["metadata"]["name"]]
