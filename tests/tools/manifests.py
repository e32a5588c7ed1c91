"""The files for Kubernetes and Ray's cluster launcher, as tests read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
JOURNAL = "aiqueue_journal"
RAY_MANIFESTS = ("raycluster.yaml", "rayservice.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    """All resources in a file of docs/deploy."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def named(file: str, name: str, kind: str) -> dict[str, Any]:
    """The one resource of this kind and name in a file."""
    (found,) = [each for each in documents(file) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def cluster_spec(name: str) -> dict[str, Any]:
    """The specification of the Ray cluster in a manifest."""
    (resource,) = documents(name)
    spec: dict[str, Any] = (
        resource["spec"] if resource["kind"] == "RayCluster" else resource["spec"]["rayClusterConfig"]
    )
    return spec


def groups(name: str) -> dict[str, dict[str, Any]]:
    """The groups of a Ray cluster by name, its head as ``head``."""
    spec = cluster_spec(name)
    return {"head": spec["headGroupSpec"]} | {group["groupName"]: group for group in spec["workerGroupSpecs"]}


def pods() -> dict[str, dict[str, Any]]:
    """The specification of every kind of pod that docs/deploy starts, by a name to find it by."""
    redis = named("redis.yaml", "aiqueue-redis", "StatefulSet")["spec"]["template"]["spec"]
    backup = named("backup.yaml", "aiqueue-backup", "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    restore = named("restore.yaml", "aiqueue-restore", "Job")["spec"]["template"]["spec"]
    return {
        **{name: group["template"]["spec"] for name, group in groups("raycluster.yaml").items()},
        **{"redis": redis, "backup": backup, "restore": restore},
    }
