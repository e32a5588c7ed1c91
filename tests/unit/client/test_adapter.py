"""The asynchronous client against a real queue in the same process."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import (
    AuthenticationFailed,
    DuplicateJob,
    JobCancelled,
    JobNotFound,
    JobTimeout,
    PartlySubmitted,
    PayloadTooLarge,
    ProviderServerError,
    QueueFull,
    QueueUnavailable,
    StartError,
    ValidationError,
    WorkerFault,
)
from aiqueue.levels import AIJobPriority
from aiqueue.models import ChatPayload, JobOptions
from aiqueue.providers.base import ProviderRequest
from aiqueue.results import JobResult
from aiqueue.testing.jobs import chat, completion, embedding, settings
from aiqueue.validation import validate_job_payload
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until


async def test_a_submitted_job_is_on_disk_with_what_was_asked(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    options = {"priority": "high", "max_retries": 1, "timeout": 5_000, "tags": ["t"], "metadata": {"user": 7}}
    job_id = await client.submit_job(chat("Hi"), options)
    info = await client.get_job_status(job_id)
    assert info is not None
    assert (info.status, info.priority, info.provider, info.model) == ("queued", "high", "sim", "model-a")
    assert (info.tags, info.metadata) == (("t",), {"user": 7})
    (view,) = await system.queue.service.get_jobs([job_id], with_payload=True)
    assert view is not None
    assert (view.header.max_retries, view.header.timeout_ms) == (1, 5_000)
    assert b'"Hi"' in view.payload


@pytest.mark.parametrize("payload", [chat(), completion(), embedding(), embedding(["a", "b"])])
async def test_every_kind_of_job_can_be_submitted(client: AsyncAIQueueAdapter, payload: dict[str, object]) -> None:
    for submitted in (payload, validate_job_payload(payload)):
        job_id = await client.submit_job(submitted)
        assert (await client.get_job_status(job_id)) is not None


async def test_submits_of_one_turn_leave_in_one_call(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_ids = await asyncio.gather(*(client.submit_job(chat(str(number))) for number in range(100)))
    assert system.transport.calls["submit"] == 1
    assert len(set(job_ids)) == 100
    assert await system.queue.claim(100) == job_ids, "in the order in which they were submitted"


async def test_a_list_keeps_its_order_over_several_parts(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_ids = await client.submit_jobs([chat()] * 2_500)
    assert job_ids == sorted(set(job_ids))
    assert await system.queue.claim(2_500) == job_ids


async def test_a_list_that_is_accepted_in_part_names_what_was_accepted() -> None:
    config = settings(models=("model-a",))
    limited = config.model_copy(update={"limits": config.limits.model_copy(update={"max_queue_depth": 2_300})})
    async with ClientHarness(limited) as system:
        client = await system.client()
        with pytest.raises(PartlySubmitted, match=r"2256 of 2500 jobs were accepted .*queue is full") as caught:
            await client.submit_jobs([chat()] * 2_500)
        assert isinstance(caught.value.__cause__, QueueFull)
        calls = system.transport.calls["submit"]
        with pytest.raises(QueueFull):
            await client.submit_jobs([chat()] * 2_500)
        assert system.transport.calls["submit"] == calls + 1, "whose first part is refused, none of it is sent on"
        assert await system.queue.claim(2_500) == list(caught.value.accepted)


async def test_an_empty_list_submits_nothing(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    assert await client.submit_jobs([]) == []
    assert system.transport.calls["submit"] == 0


async def test_a_batch_is_accepted_as_one(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    job_ids = await client.submit_jobs([chat()] * 1_500, batch_id="batch-1")
    infos = await client.get_jobs(job_ids)
    assert {info and info.batch_id for info in infos} == {"batch-1"}
    stats = await client.get_system_stats()
    assert (stats.orchestrator.total_batches, stats.adapter.total_jobs) == (1, 1_500)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (chat(provider="nobody"), "provider"),
        (chat(model="model-x"), "model"),
        ({**chat(), "type": "song"}, "type"),
        ({**chat(), "messages": []}, "messages"),
        ({**chat(), "mesages": []}, "mesages"),
        ({**chat(), "config": {"temperature": 3}}, "config.temperature"),
        ({}, "type"),
    ],
)
async def test_bad_input_names_the_field_and_submits_nothing(
    system: ClientHarness, client: AsyncAIQueueAdapter, payload: dict[str, object], field: str
) -> None:
    for submit in (client.submit_job, client.submit_job_with_callback):
        with pytest.raises(ValidationError) as caught:
            await submit(payload)
        assert [error.field for error in caught.value.errors] == [field]
    assert system.transport.calls["submit"] == 0


async def test_one_bad_job_of_a_list_submits_none_and_is_named(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    payloads = [chat()] * 3_000
    payloads[1_234] = chat(model="model-x")
    with pytest.raises(ValidationError) as caught:
        await client.submit_jobs(payloads)
    assert [(error.index, error.field) for error in caught.value.errors] == [(1_234, "model")]
    with pytest.raises(ValidationError):
        await client.check_jobs(payloads)
    assert system.transport.calls["submit"] == 0


async def test_a_payload_over_the_limit_is_refused() -> None:
    async with ClientHarness(settings(max_payload_bytes=500)) as system:
        client = await system.client()
        with pytest.raises(PayloadTooLarge, match="over the limit of 500"):
            await client.submit_job(chat("x" * 500))


async def test_a_timeout_in_seconds_is_refused_with_what_to_write(client: AsyncAIQueueAdapter) -> None:
    with pytest.raises(ValidationError, match=r"timeout is in milliseconds: 30 .* write 30000"):
        await client.submit_job(chat(), {"timeout": 30})


async def test_one_id_for_several_jobs_is_refused(client: AsyncAIQueueAdapter) -> None:
    with pytest.raises(ValidationError, match="names one job"):
        await client.submit_jobs([chat(), chat()], {"job_id": str(uuid4())})


# --- ids of the caller's choice --------------------------------------------------------------------------------------


async def test_a_chosen_id_makes_one_job_however_often_it_is_sent(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    chosen = str(uuid4())
    other = await system.client()
    found = await asyncio.gather(*(each.submit_job(chat(), {"jobId": chosen}) for each in (client, other) * 10))
    assert set(found) == {chosen}
    assert (await client.get_stats()).total_jobs == 1


async def test_a_chosen_id_with_another_body_is_refused(client: AsyncAIQueueAdapter) -> None:
    options = JobOptions(job_id=uuid4())
    await client.submit_job(chat("one"), options)
    with pytest.raises(DuplicateJob, match="another body"):
        await client.submit_job(chat("two"), options)


async def test_a_chosen_id_gives_the_result_there_is(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    options = JobOptions(job_id=uuid4())
    await system.work()
    first = await client.submit_job_with_callback(chat(), options)
    second = await (await system.client()).submit_job_with_callback(chat(), options)
    assert first == second
    assert len(system.provider.calls) == 1


async def test_a_lost_answer_makes_no_second_job(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    system.transport.lose_answers("submit", 2)
    job_id = await client.submit_job(chat())
    assert system.transport.calls["submit"] == 3
    assert (await client.get_stats()).total_jobs == 1
    assert await system.queue.claim(5) == [job_id]


async def test_a_lost_answer_after_the_job_has_ended_makes_no_second_run(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    await system.work()
    system.transport.lose_answers("submit")
    result = await client.submit_job_with_callback(chat())
    assert result.text == "Hi there"
    assert len(system.provider.calls) == 1


async def test_a_restart_in_the_middle_of_a_submit_loses_and_doubles_nothing(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    for on_disk in (False, True):
        system.queue.memory.hold()
        submit = asyncio.create_task(client.submit_jobs([chat()] * 10))
        assert await asyncio.to_thread(system.queue.memory.held.wait, 10.0)
        if on_disk:
            system.queue.memory.release()
            await until(lambda: system.queue.memory.commits)
        await system.crash()
        job_ids = await submit
        assert await system.queue.claim(100, worker=f"worker-{on_disk}") == job_ids


# --- results and errors ----------------------------------------------------------------------------------------------


async def test_a_result_is_what_the_specification_reads(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    heard: list[JobResult] = []
    await system.work()
    result = await client.submit_job_with_callback(chat("Hi"), {"priority": AIJobPriority.URGENT}, heard.append)
    assert result.response.choices[0].message.content == "Hi there"
    assert (result.tokens, result.finish_reason, result.request_id) == (5, "stop", "req-1")
    assert result.raw["echo"] == chat("Hi")
    assert heard == [result]


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (AuthenticationFailed("Provider sim: 401", status=401, request_id="req-7"), AuthenticationFailed, "401"),
        (ProviderServerError("Provider sim: 503", status=503), ProviderServerError, "503"),
        (ZeroDivisionError(), WorkerFault, "ZeroDivisionError"),
    ],
)
async def test_a_failed_job_raises_its_own_error(
    system: ClientHarness, client: AsyncAIQueueAdapter, raised: Exception, expected: type[Exception], message: str
) -> None:
    def behave(request: ProviderRequest) -> None:
        raise raised

    system.provider.behave = behave
    await system.work()
    with pytest.raises(expected, match=message) as caught:
        await client.submit_job_with_callback(chat(), {"max_retries": 0})
    for name in ("status", "request_id"):
        assert getattr(caught.value, name) == getattr(raised, name, None)


async def test_a_job_that_takes_too_long_raises_a_timeout(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    system.provider.hold()
    await system.work()
    with pytest.raises(JobTimeout, match="timeout"):
        await client.submit_job_with_callback(chat(), {"max_retries": 0, "timeout": 100})


async def test_a_cancelled_job_raises_that_it_was(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    system.provider.hold()
    await system.work()
    wait = asyncio.create_task(client.submit_job_with_callback(chat()))
    await until(lambda: system.provider.calls)
    answer = await client.cancel_job(system.provider.calls[0].job_id)
    assert (bool(answer), answer.status) == (True, "cancelling")
    with pytest.raises(JobCancelled):
        await wait


async def test_a_callback_is_not_called_for_a_job_that_failed(
    system: ClientHarness, client: AsyncAIQueueAdapter
) -> None:
    heard: list[JobResult] = []
    system.provider.behave = lambda request: 1 / 0
    await system.work()
    with pytest.raises(WorkerFault):
        await client.submit_job_with_callback(chat(), None, heard.append)
    assert heard == []


async def test_cancelling_says_what_became_of_the_job(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    waiting, done = await client.submit_jobs([chat(), chat()])
    assert (await client.cancel_job(waiting)).status == "cancelled"
    await system.work()
    await client.wait(done)
    answer = await client.cancel_job(done)
    assert (bool(answer), answer.status) == (False, "completed")
    with pytest.raises(JobNotFound):
        await client.cancel_job("nobody")
    assert await client.get_job_status("nobody") is None


# --- beginning and end -----------------------------------------------------------------------------------------------


async def test_a_client_that_is_not_started_says_so(system: ClientHarness) -> None:
    client = AsyncAIQueueAdapter(system.transport)
    with pytest.raises(StartError, match="not started"):
        await client.submit_job(chat())
    with pytest.raises(StartError, match="not started"):
        await client.submit_job_with_callback(chat())


async def test_a_client_without_a_queue_can_not_start(system: ClientHarness) -> None:
    system.transport.lose_calls("hello")
    with pytest.raises(QueueUnavailable):
        await AsyncAIQueueAdapter(system.transport).start()


async def test_a_stopped_client_has_sent_what_was_submitted(system: ClientHarness) -> None:
    client = AsyncAIQueueAdapter(system.transport)
    await client.start()
    submit = asyncio.create_task(client.submit_job(chat()))
    await turns(1)
    await client.stop()
    assert await system.queue.claim(5) == [await submit]
    await client.start()
    await client.submit_job(chat())
    await client.stop()


async def test_ping_answers_while_the_queue_does(system: ClientHarness, client: AsyncAIQueueAdapter) -> None:
    await client.ping()
    system.transport.lose_calls("hello")
    with pytest.raises(QueueUnavailable):
        await client.ping()


async def test_a_payload_model_and_its_dict_are_the_same_job(client: AsyncAIQueueAdapter) -> None:
    model = validate_job_payload(chat("Hi"))
    assert isinstance(model, ChatPayload)
    job_id = await client.submit_job(model, {"job_id": str(uuid4())})
    assert (await client.get_job_status(job_id)) is not None
