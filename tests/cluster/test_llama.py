"""llama.cpp workers through the real actors: many jobs on one model, texts of cancelled ones, GPUs shared out."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from aiqueue import launch
from tests.house_rules.sources import ROOT
from tests.running_system import chat

GREEDY = {"temperature": 0.0, "max_tokens": 40}
LONG_LIST = {"type": "array", "minItems": 400, "items": {"type": "boolean"}}  # longer than the context
ENDLESS = {"response_format": {"type": "json_schema", "json_schema": {"schema": LONG_LIST}}}


def ask(text: str, **config: Any) -> dict[str, Any]:
    return chat("tiny", text=text, model="tiny", config=config)


def test_jobs_that_share_a_model_get_the_answers_they_get_alone(running_system: launch.System) -> None:
    adapter = running_system.adapter
    questions = [f"What is said of job {number}?" for number in range(24)]
    alone = [adapter.submit_job_with_callback(ask(text, **GREEDY)).text for text in questions[:3]]
    infos = adapter.wait_all(adapter.submit_jobs([ask(text, **GREEDY) for text in questions]))
    assert {info.status for info in infos} == {"completed"}
    assert [info.result.text for info in infos[:3] if info.result] == alone
    assert all(info.result and info.result.usage.completion_tokens <= 40 for info in infos)
    spans = sorted((info.started_at, info.finished_at) for info in infos if info.started_at and info.finished_at)
    assert any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans)), "one at a time"


def test_what_a_cancelled_generation_had_said_is_in_the_jobs_record(running_system: launch.System) -> None:
    adapter = running_system.adapter
    for patience_s in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6):  # how long a first token takes, nobody knows
        ids = adapter.submit_jobs([ask("Count.", **ENDLESS)] * 4)
        while adapter.get_job_status(ids[0]).status == "queued":
            time.sleep(0.01)
        time.sleep(patience_s)
        adapter.cancel_job(ids[0])
        info = adapter.wait(ids[0])
        others = adapter.wait_all(ids[1:])
        assert {other.status for other in others} == {"completed"}
        if info.status == "cancelled" and info.result:
            break
    else:
        pytest.fail("no cancelled job had said anything, or all had ended before")
    assert info.result.text
    assert info.result.finish_reason == "cancelled"
    assert info.result.usage.completion_tokens > 0
    assert info.error is not None
    assert info.error.kind == "cancelled"


def test_two_workers_on_a_node_with_two_gpus_see_one_each(tiny_gguf: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="aiq", ignore_cleanup_errors=True) as folder:
        run = subprocess.run(
            [sys.executable, "-m", "tests.tools.gpu_placement", str(tiny_gguf)],
            cwd=ROOT,
            env={**os.environ, "RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert sorted(found["devices"]) == ["0", "1"]
    assert not found["third_found_room"]
