"""The files around the Ray cluster on Kubernetes: disks, Redis, what guards them, the backup, what keeps it up."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.tools.manifests import DEPLOY, RAY_MANIFESTS, cluster_spec, documents, groups, named, pods

_FILES = sorted(path.name for path in DEPLOY.glob("*.yaml"))


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector picks a pod with these labels."""
    wanted: dict[str, str] = selector.get("matchLabels", {})
    rules: list[dict[str, Any]] = selector.get("matchExpressions", [])
    return all(labels.get(name) == value for name, value in wanted.items()) and all(
        labels.get(rule["key"]) in rule["values"] if rule["operator"] == "In" else rule["key"] in labels
        for rule in rules
    )


def labels_of(group: str) -> dict[str, str]:
    """The labels that KubeRay gives the pods of a group."""
    if group == "head":
        return {"ray.io/node-type": "head", "ray.io/group": "headgroup"}
    return {"ray.io/node-type": "worker", "ray.io/group": group}


def mentioned(value: Any, key: str) -> Iterator[Any]:
    """What stands under ``key`` anywhere in a document."""
    if isinstance(value, dict):
        yield from ([value[key]] if key in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from mentioned(each, key)


def test_every_claim_and_secret_that_is_used_is_made() -> None:
    everything = [document for name in _FILES for document in documents(name)]
    claims = {document["metadata"]["name"] for document in documents("storage.yaml")}
    assert set(mentioned(everything, "claimName")) == claims
    steps = (DEPLOY / "raycluster.yaml").read_text()
    made = set(re.findall(r"kubectl create (?:secret generic|configmap) (\S+)", steps))
    refs = [*mentioned(everything, "secretRef"), *mentioned(everything, "secretKeyRef")]
    names = {ref["name"] for ref in refs} | set(mentioned(everything, "secretName"))
    assert names | {config["name"] for config in mentioned(everything, "configMap")} == made
    assert {name for name in _FILES if f"-f docs/deploy/{name}" in steps} == set(_FILES) - {"rayservice.yaml"}


@pytest.mark.parametrize("name", _FILES)
def test_nothing_names_a_namespace_so_that_each_system_has_its_own(name: str) -> None:
    assert all("namespace" not in document["metadata"] for document in documents(name))


def test_the_disks_lie_in_a_file_of_their_own_and_their_class_is_chosen() -> None:
    for name in _FILES:
        kinds = {document["kind"] for document in documents(name)}
        assert (kinds == {"PersistentVolumeClaim"}) == (name == "storage.yaml"), name
    for claim in documents("storage.yaml"):
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert claim["spec"]["storageClassName"] == "REPLACE"
    assert "reclaimPolicy is Retain" in (DEPLOY / "storage.yaml").read_text()


def test_only_the_pod_that_runs_the_queue_has_the_journal() -> None:
    where = {
        name
        for name, pod in pods().items()
        for volume in pod["volumes"]
        if volume.get("persistentVolumeClaim") == {"claimName": "aiqueue-journal"}
    }
    assert where == {"journal", "backup"}
    journal = groups("raycluster.yaml")["journal"]["template"]["spec"]["containers"][0]
    (path,) = [entry["value"] for entry in journal["env"] if entry["name"] == "AIQUEUE_JOURNAL__PATH"]
    assert str(Path(path).parent) in {mount["mountPath"] for mount in journal["volumeMounts"]}


@pytest.mark.parametrize("name", ["head", "journal", "cpu-worker", "gpu-worker", "redis", "backup"])
def test_every_pod_runs_as_a_user_without_privileges_and_says_what_it_needs(name: str) -> None:
    pod = pods()[name]
    own = pod["securityContext"]
    assert (own["runAsNonRoot"], own["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert own["runAsUser"] == own["fsGroup"]
    assert own["fsGroupChangePolicy"] == "OnRootMismatch"
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert (security["allowPrivilegeEscalation"], security["capabilities"]) == (False, {"drop": ["ALL"]})
    assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["requests"].keys()
    assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", RAY_MANIFESTS)
def test_rays_own_state_is_in_the_redis_that_is_shipped(name: str) -> None:
    spec = cluster_spec(name)
    service = named("redis.yaml", "aiqueue-redis", "Service")
    redis = named("redis.yaml", "aiqueue-redis", "StatefulSet")["spec"]
    options = spec["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert service["spec"]["selector"] == redis["template"]["metadata"]["labels"] == redis["selector"]["matchLabels"]
    (container,) = redis["template"]["spec"]["containers"]
    secrets = [entry["valueFrom"] for entry in container["env"] if entry["name"] == "REDIS_PASSWORD"]
    assert secrets == [options["redisPassword"]["valueFrom"]]
    given = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert (given["--appendonly"], given["--appendfsync"]) == ("yes", "always")
    assert given["--dir"] in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_pods_that_there_is_one_of_are_not_evicted_unasked() -> None:
    budgets = [each["spec"] for each in documents("guards.yaml") if each["kind"] == "PodDisruptionBudget"]
    assert all(budget["maxUnavailable"] == 0 for budget in budgets)
    kept = {
        group for group in groups("raycluster.yaml") for each in budgets if matches(each["selector"], labels_of(group))
    }
    assert kept == {"head", "journal"}


def test_rays_ports_are_closed_to_all_but_the_cluster_and_the_operator() -> None:
    policy = named("guards.yaml", "aiqueue-ray", "NetworkPolicy")["spec"]
    assert all(matches(policy["podSelector"], labels_of(group)) for group in groups("raycluster.yaml"))
    everywhere, http = policy["ingress"]
    own, operator = everywhere["from"]
    assert own == {"podSelector": policy["podSelector"]}
    assert operator.keys() == {"namespaceSelector", "podSelector"}, "both in one: pods of that name in that namespace"
    assert http["ports"] == [{"port": 8000}]
    redis = named("guards.yaml", "aiqueue-redis", "NetworkPolicy")["spec"]
    (client,) = redis["ingress"][0]["from"]
    assert matches(client["podSelector"], labels_of("head"))
    assert not matches(client["podSelector"], labels_of("journal"))


def test_the_journals_pod_brings_the_system_up_beside_ray() -> None:
    (container,) = groups("raycluster.yaml")["journal"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert "ray start" not in script, "KubeRay would then start no Ray"
    # This is how KubeRay puts it before its own; bash only reads it.
    subprocess.run(["bash", "-n", "-c", f" {script}  && ulimit -n 65536; ray start --block"], check=True)
    assert script.endswith("export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0"), "what drains keeps the disk for longer"
    up = re.search(r"until (.*?); do", script)
    assert up
    assert shlex.split(up[1]) == ["python", "-m", "aiqueue", "up", "--detach", "--no-http"]
    assert "readinessProbe" not in container, "KubeRay's own keeps a service from a pod that runs nothing of Serve"


@pytest.fixture
def backup(tmp_path: Path) -> tuple[Path, Any]:
    """The folder of backups, and the backup as the container would run it beside a journal."""
    (container,) = pods()["backup"]["containers"]
    program, *arguments = container["command"]
    assert program == "python"
    folder = tmp_path / "backups"
    folder.mkdir()
    environ = {**os.environ, "JOURNAL": str(tmp_path / "journal.db"), "BACKUPS": str(folder)}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False)

    return folder, run


def test_a_backup_beside_a_queue_that_writes_has_every_commit(backup: tuple[Path, Any], tmp_path: Path) -> None:
    folder, run = backup
    (folder / "unfinished").write_text("of a pod that was ended")
    for day in range(1, 30):
        (folder / f"journal-202601{day:02}T000000Z.db").touch()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as queue:
        queue.execute("PRAGMA journal_mode=WAL")
        queue.execute("CREATE TABLE jobs (id)")
        queue.execute("INSERT INTO jobs VALUES ('committed')")
        queue.commit()
        queue.execute("INSERT INTO jobs VALUES ('not yet')")
        done = run()
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "journal.db-wal").stat().st_size, "the queue's own files are as they were"
    copies = sorted(path.name for path in folder.iterdir())
    assert len(copies) == 28
    assert copies[0] == "journal-20260103T000000Z.db"
    newest = folder / copies[-1]
    assert newest.stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(newest)) as copy:
        assert copy.execute("SELECT id FROM jobs").fetchall() == [("committed",)]


def test_a_backup_of_a_journal_that_is_not_there_fails_and_makes_none(backup: tuple[Path, Any], tmp_path: Path) -> None:
    folder, run = backup
    assert run().returncode != 0
    assert not list(folder.iterdir())
    assert not (tmp_path / "journal.db").exists()


def test_the_backup_runs_where_the_journals_disk_is() -> None:
    affinity = pods()["backup"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = affinity
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert [g for g in groups("raycluster.yaml") if matches(term["labelSelector"], labels_of(g))] == ["journal"]
    image = groups("raycluster.yaml")["journal"]["template"]["spec"]["containers"][0]["image"]
    assert pods()["backup"]["containers"][0]["image"] == image
    users = {pods()[name]["securityContext"]["runAsUser"] for name in ("journal", "backup")}
    assert len(users) == 1, "the journal is readable by its owner alone"
