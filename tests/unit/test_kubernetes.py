"""The files around the Ray cluster on Kubernetes: disks, Redis, what guards them, the backup, what keeps it up."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiqueue.journal.lock import lock
from tests.tools.kuberay_fields import unknown_fields
from tests.tools.kubernetes_fields import FILES
from tests.tools.manifests import DEPLOY, RAY_MANIFESTS, ROOT, cluster_spec, documents, groups, named, pods

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


@pytest.mark.parametrize("name", FILES)
def test_the_manifests_have_only_fields_that_kubernetes_knows(name: str) -> None:
    known = yaml.safe_load((ROOT / "tests" / "unit" / "kubernetes_fields.yaml").read_text())
    for resource in documents(name):
        assert unknown_fields(resource, known[resource["kind"]], resource["kind"]) == []


def test_every_claim_and_secret_that_is_used_is_made() -> None:
    everything = [document for name in _FILES for document in documents(name)]
    claims = {document["metadata"]["name"] for document in documents("storage.yaml")}
    assert set(mentioned(everything, "claimName")) == claims
    steps = (DEPLOY / "raycluster.yaml").read_text()
    made = set(re.findall(r"kubectl create (?:secret generic|configmap) (\S+)", steps))
    refs = [*mentioned(everything, "secretRef"), *mentioned(everything, "secretKeyRef")]
    names = {ref["name"] for ref in refs} | set(mentioned(everything, "secretName"))
    assert names | {config["name"] for config in mentioned(everything, "configMap")} == made
    assert {name for name in _FILES if f"-f docs/deploy/{name}" not in steps} == {"rayservice.yaml", "restore.yaml"}


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
    assert where == {"journal", "backup", "restore"}
    journal = groups("raycluster.yaml")["journal"]["template"]["spec"]["containers"][0]
    (path,) = [entry["value"] for entry in journal["env"] if entry["name"] == "AIQUEUE_JOURNAL__PATH"]
    assert str(Path(path).parent) in {mount["mountPath"] for mount in journal["volumeMounts"]}


@pytest.mark.parametrize("name", ["head", "journal", "cpu-worker", "gpu-worker", "redis", "backup", "restore"])
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


def test_the_journals_pod_brings_the_system_up_beside_ray(tmp_path: Path) -> None:
    (container,) = groups("raycluster.yaml")["journal"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert "ray start" not in script, "KubeRay would then start no Ray"
    commands = {
        "python": 'echo "$@" >>calls; [ $(wc -l <calls) -ge 3 ]',
        "sleep": "true",
        "ray": "until [ -e calls ] && [ $(wc -l <calls) -ge 3 ]; do /bin/sleep 0.01; done",
    }
    for name, does in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    # This is how KubeRay puts it before its own.
    line = f" {script}  && ulimit -n 1024; ray start --block"
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environ, check=True, timeout=60)
    assert (tmp_path / "calls").read_text().splitlines() == ["-m aiqueue up --detach --no-http"] * 3
    assert "readinessProbe" not in container, "KubeRay's own keeps a service from a pod that runs nothing of Serve"


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of backups."""
    made = tmp_path / "backups"
    made.mkdir()
    return made


@pytest.fixture
def run(tmp_path: Path, folder: Path) -> Run:
    """What runs the command of a pod's container beside a journal and the folder of backups."""

    def command(pod: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (container,) = pods()[pod]["containers"]
        program, *arguments = container["command"]
        assert program == "python"
        environ = {**os.environ, "JOURNAL": str(tmp_path / "journal.db"), "BACKUPS": str(folder), **variables}
        return subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False)

    return command


def test_a_backup_beside_a_queue_that_writes_has_every_commit(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "unfinished").write_text("of a pod that was ended")
    for day in range(1, 30):
        (folder / f"journal-202601{day:02}T000000Z.db").touch()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as queue:
        queue.execute("PRAGMA journal_mode=WAL")
        queue.execute("CREATE TABLE jobs (id)")
        queue.execute("INSERT INTO jobs VALUES ('committed')")
        queue.commit()
        queue.execute("INSERT INTO jobs VALUES ('not yet')")
        done = run("backup")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "journal.db-wal").stat().st_size, "the queue's own files are as they were"
    copies = sorted(path.name for path in folder.iterdir())
    assert len(copies) == 28
    assert copies[0] == "journal-20260103T000000Z.db"
    newest = folder / copies[-1]
    assert newest.stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(newest)) as copy:
        assert copy.execute("SELECT id FROM jobs").fetchall() == [("committed",)]


def test_a_backup_of_a_journal_that_is_not_there_fails_and_makes_none(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("backup").returncode != 0
    assert not list(folder.iterdir())
    assert not (tmp_path / "journal.db").exists()


def test_a_restore_puts_the_newest_backup_in_the_journals_place_and_keeps_what_was_there(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    (folder / "journal-20260101T000000Z.db").write_text("older")
    (folder / "journal-20260102T000000Z.db").write_text("newest")
    for end in ("", "-wal", "-shm", ".head"):
        (tmp_path / f"journal.db{end}").write_text(f"broken{end}")
    done = run("restore")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "journal.db").read_text() == "newest"
    assert (tmp_path / "journal.db.head").read_text() == "broken.head", "the start is to say what the backup lacks"
    (kept,) = tmp_path.glob("replaced-*")
    assert {path.name: path.read_text() for path in kept.iterdir()} == {
        "journal.db": "broken",
        "journal.db-wal": "broken-wal",
        "journal.db-shm": "broken-shm",
    }
    assert not list(tmp_path.glob("journal.db-*"))


def test_a_restore_beside_a_queue_or_of_no_backup_changes_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text("good")
    assert "there is no backup ''; there are: none" in run("restore").stderr
    (folder / "journal-20260101T000000Z.db").write_text("a backup")
    assert "there are: journal-20260101T000000Z.db" in run("restore", BACKUP="journal-2025.db").stderr
    with lock(tmp_path / "journal.db"):
        done = run("restore")
    assert (done.returncode, "is in use by another queue" in done.stderr) == (1, True), done.stderr
    assert (tmp_path / "journal.db").read_text() == "good"
    assert {path.name for path in tmp_path.iterdir()} == {"journal.db", "journal.db.lock", "backups"}


@pytest.mark.parametrize("pod", ["backup", "restore"])
def test_backup_and_restore_run_where_the_journals_disk_is(pod: str) -> None:
    affinity = pods()[pod]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = affinity
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert [g for g in groups("raycluster.yaml") if matches(term["labelSelector"], labels_of(g))] == ["journal"]
    image = groups("raycluster.yaml")["journal"]["template"]["spec"]["containers"][0]["image"]
    assert pods()[pod]["containers"][0]["image"] == image
    users = {pods()[name]["securityContext"]["runAsUser"] for name in ("journal", pod)}
    assert len(users) == 1, "the journal is readable by its owner alone"
