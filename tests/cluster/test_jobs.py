"""A job's life through the real actors."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

import aiqueue
from aiqueue import launch
from aiqueue.client.listeners import JobEvent
from aiqueue.errors import DuplicateJob, JobNotFound, ModelUnavailable, ValidationError
from tests.running_system import chat


def test_a_submitted_job_completes_with_its_own_answer(running_system: launch.System) -> None:
    adapter = running_system.adapter
    result = adapter.submit_job_with_callback(chat(text="What is a lease?"), {"priority": "urgent"})
    assert result.response.choices[0].message.content == "What is a lease?"
    assert result.tokens == result.usage.total_tokens > 0
    assert result.latency >= 0


def test_many_jobs_each_get_their_own_answer_once(running_system: launch.System) -> None:
    adapter = running_system.adapter
    texts = [f"question {n}" for n in range(2_500)]
    ids = adapter.submit_jobs([chat(text=text) for text in texts])
    infos = adapter.wait_all(ids)
    assert [info.result.text for info in infos if info.result] == texts
    assert {info.attempt for info in infos} == {1}
    assert all(info.sla_compliance and info.sla_compliance.met for info in infos)


def test_levels_are_served_in_order_when_slots_are_short(own_system: launch.System) -> None:
    adapter = own_system.adapter
    blockers = adapter.submit_jobs([chat("slow")] * 8)  # all slots of the pool
    waiting = {level: adapter.submit_jobs([chat("slow")] * 4, {"priority": level}) for level in ("low", "medium")}
    waiting["urgent"] = adapter.submit_jobs([chat("slow")] * 4, {"priority": "urgent"})
    ids = [*blockers, *waiting["low"], *waiting["medium"], *waiting["urgent"]]
    started = {info.job_id: info.started_at for info in adapter.wait_all(ids) if info.started_at}
    last_urgent = max(started[job_id] for job_id in waiting["urgent"])
    assert all(started[job_id] >= last_urgent for job_id in waiting["low"])
    assert max(started[job_id] for job_id in waiting["medium"]) <= min(started[job_id] for job_id in waiting["low"])


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_through_its_worker(own_system: launch.System) -> None:
    adapter = own_system.adapter
    events: list[JobEvent] = []
    adapter.on("job:*", events.append)
    ids = adapter.submit_jobs([chat("slow")] * 20)
    waiting = adapter.cancel_job(ids[-1])
    assert waiting
    assert waiting.status == "cancelled"
    running = adapter.cancel_job(ids[0])
    assert running.status in {"cancelling", "cancelled"}
    assert adapter.wait(ids[0]).status == "cancelled"
    assert {info.status for info in adapter.wait_all(ids[1:-1])} == {"completed"}
    again = adapter.cancel_job(ids[1])
    assert not again
    assert again.status == "completed"
    with pytest.raises(JobNotFound):
        adapter.cancel_job(str(uuid4()))


def test_a_listener_hears_of_every_step_in_order(own_system: launch.System) -> None:
    adapter = own_system.adapter
    events: list[JobEvent] = []

    @adapter.on("job:*")
    def note(event: JobEvent) -> None:
        events.append(event)

    adapter.submit_job_with_callback(chat())
    adapter.submit_job_with_callback(chat())
    first = events[0].job_id
    assert [event.name for event in events if event.job_id == first] == [
        "job:submitted",
        "job:processing",
        "job:completed",
    ]
    numbers = [event.number for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_job_of_another_client_can_be_waited_for(running_system: launch.System) -> None:
    job_id = running_system.adapter.submit_job(chat("slow"))

    async def elsewhere() -> str:
        adapter = await aiqueue.connect_async(running_system.settings.namespace)
        async with adapter:
            return (await adapter.wait(job_id)).status

    assert asyncio.run(elsewhere()) == "completed"


def test_threads_share_one_adapter(running_system: launch.System) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = threads.map(
            lambda n: running_system.adapter.submit_job_with_callback(chat(text=f"thread {n}")), range(64)
        )
        assert [result.text for result in results] == [f"thread {n}" for n in range(64)]


def test_the_same_job_id_twice_is_one_job_and_another_body_is_refused(running_system: launch.System) -> None:
    adapter, job_id = running_system.adapter, str(uuid4())
    for _ in range(3):
        assert adapter.submit_job(chat(text="once"), {"job_id": job_id}) == job_id
    adapter.wait(job_id)
    assert adapter.submit_job(chat(text="once"), {"job_id": job_id}) == job_id  # also after its end
    with pytest.raises(DuplicateJob):
        adapter.submit_job(chat(text="twice"), {"job_id": job_id})


def test_a_missing_model_file_fails_the_job_without_a_retry(running_system: launch.System) -> None:
    adapter = running_system.adapter
    job_id = adapter.submit_job(chat("missing"))
    info = adapter.wait(job_id)
    assert (info.status, info.attempt) == ("failed", 1)
    assert isinstance(info.exception(), ModelUnavailable)
    assert "missing.gguf" in str(info.exception())


def test_a_real_model_answers(running_system: launch.System) -> None:
    adapter = running_system.adapter
    payload = {**chat("tiny", "Tell me about the queue.", config={"max_tokens": 16, "temperature": 0}), "model": "tiny"}
    first, second = (adapter.submit_job_with_callback(payload) for _ in range(2))
    assert first.text
    assert first.text == second.text
    assert first.usage.prompt_tokens > 0
    assert 0 < first.usage.completion_tokens <= 16


def test_bad_jobs_in_a_list_are_named_and_nothing_is_enqueued(running_system: launch.System) -> None:
    adapter = running_system.adapter
    before = adapter.get_stats().total_jobs
    jobs = [chat() for _ in range(1_000)]
    jobs[7]["model"] = ""
    jobs[900] = chat("nowhere")
    with pytest.raises(ValidationError) as caught:
        adapter.submit_jobs(jobs)
    assert [(error.index, error.field) for error in caught.value.errors] == [(7, "model"), (900, "provider")]
    assert adapter.get_stats().total_jobs == before
