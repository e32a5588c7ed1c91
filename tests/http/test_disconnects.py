"""Clients that send a whole submit and hang up at some moment: before, while or after it is accepted."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from aiqueue import launch
from aiqueue.ids import new_job_ids
from tests.running_system import chat

_CLIENTS = 500
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, not in order


def submit_and_hang_up(address: tuple[str, int], job_id: str, stay_s: float, reset: bool) -> int:
    """Submit a job and close the connection after a while; return the status if it came before that, else 0."""
    body = json.dumps({"payload": chat(), "options": {"jobId": job_id}}).encode()
    head = "POST /ai/jobs HTTP/1.1\r\nHost: [::1]\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(address, timeout=30.0) as connection:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.sendall(head.encode() + body)
        connection.settimeout(stay_s)
        try:
            answer = connection.recv(4_096)
        except TimeoutError:
            return 0
        return int(answer.split()[1]) if answer else 0


@pytest.mark.timeout(180)
def test_clients_that_hang_up_after_a_submit_leave_whole_jobs_and_exact_counters(running_system: launch.System) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    adapter, url = running_system.adapter, urlsplit(str(running_system.url))
    address = (str(url.hostname), int(url.port or 0))
    before = adapter.get_stats()
    ids = new_job_ids(_CLIENTS)
    # Most hang up at once or in the middle; some wait long enough for an answer of a busy machine.
    patiences = [draw.uniform(0.0005, 0.03) if draw.random() < 0.8 else draw.uniform(0.0, 5.0) for _ in ids]
    with ThreadPoolExecutor(16) as threads:
        made = [
            threads.submit(submit_and_hang_up, address, job_id, patience, draw.random() < 0.5)
            for job_id, patience in zip(ids, patiences, strict=True)
        ]
        answers = [each.result() for each in made]
    there, seen = -1, [job_id for job_id in ids if adapter.get_job_status(job_id)]
    while len(seen) != there:  # what was on its way when its client left
        there = len(seen)
        time.sleep(1.0)
        seen = [job_id for job_id in ids if adapter.get_job_status(job_id)]
    infos = adapter.wait_all(seen)
    told = [job_id for job_id, status in zip(ids, answers, strict=True) if status == 202]
    print(f"seed {seed}: {_CLIENTS} clients, {len(told)} were answered, {len(seen)} jobs accepted")
    assert set(answers) <= {0, 202}
    assert 0 < len(told) < _CLIENTS, "every client, or none, had its answer: the moments are not spread"
    assert set(told) <= set(seen), "a job that was acknowledged is not there"
    assert {(info.status, info.attempt) for info in infos} == {("completed", 1)}
    after = adapter.get_stats()
    assert after.total_jobs - before.total_jobs == len(seen)
    assert after.completed_jobs - before.completed_jobs == len(seen)
    assert (after.queued_jobs, after.processing_jobs) == (before.queued_jobs, before.processing_jobs)
