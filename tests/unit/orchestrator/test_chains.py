"""Chains, graphs and fan-in jobs: order, templates, errors on the way, crashes."""

from __future__ import annotations

from typing import Any

import pytest

from aiqueue.client.adapter import AsyncAIQueueAdapter
from aiqueue.errors import InvalidRequest, ProviderServerError, ValidationError
from aiqueue.orchestrator.orchestrator import AsyncAIJobOrchestrator
from aiqueue.providers.base import ProviderRequest
from aiqueue.testing.jobs import chat, completion
from tests.tools.client_harness import ClientHarness
from tests.tools.turns import turns, until


def prompts(system: ClientHarness) -> list[str]:
    """Return what the provider was asked, in order."""
    return [str(call.body["messages"][-1]["content"]) for call in system.provider.calls]


def echo(system: ClientHarness, answers: dict[str, str] | None = None) -> None:
    """Let the provider answer with its prompt in brackets, or with what ``answers`` has for it; ``!`` fails."""

    def behave(request: ProviderRequest) -> None:
        asked = str(request.body["messages"][-1]["content"])
        system.provider.text = (answers or {}).get(asked, f"<{asked}>")
        if "!" in asked and "400" not in asked:
            raise InvalidRequest(f"Provider sim: 400 {asked}", status=400)

    system.provider.behave = behave


async def test_each_step_gets_what_came_before(system: ClientHarness, orchestrator: AsyncAIJobOrchestrator) -> None:
    echo(system, {"plan": '```json\n{"items": ["x", "y"]}\n```'})
    chain = await orchestrator.create_job_chain(
        [
            {"name": "analyze", "payload": chat("plan")},
            chat("do {{steps.analyze.json.items}} and {{ previous.json.items[1] }}"),
            chat("{{steps[0].tokens}} {{previous.content}} \\{{x}}"),
        ],
        name="pipeline",
    )
    await system.work()
    info = await orchestrator.wait_batch(chain.chain_id)
    assert (info.status, info.completed, info.kind, info.name) == ("completed", 3, "chain", "pipeline")
    assert prompts(system) == ["plan", 'do ["x","y"] and y', '5 <do ["x","y"] and y> {{x}}']
    assert [call.job_id for call in system.provider.calls] == list(chain)


async def test_a_failed_step_ends_the_chain_with_the_reason(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    echo(system)
    chain = await orchestrator.create_job_chain([chat("a"), chat("b!"), chat("c"), chat("d")])
    await system.work()
    info = await orchestrator.wait_batch(chain.chain_id)
    assert (info.status, info.completed, info.failed) == ("failed", 1, 3)
    assert info.errors == {"invalid_request": 1, "dependency_failed": 2}
    last = await client.get_job_status(chain[-1])
    assert last is not None
    assert last.error is not None
    assert f"job {chain[2]} ended as failed" in last.error.message
    assert prompts(system) == ["a", "b!"]


async def test_a_chain_that_does_not_stop_has_the_error_as_input(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    echo(system)
    chain = await orchestrator.create_job_chain(
        [chat("a!"), chat("then {{previous.content}}"), chat("{{steps[0].status}}: {{steps[0].error}}")],
        {"stopOnError": False},
    )
    await system.work()
    assert (await orchestrator.wait_batch(chain.chain_id)).completed == 2
    assert prompts(system)[1:] == [
        "then Error (invalid_request): Provider sim: 400 a!",
        "failed: Provider sim: 400 a!",
    ]


async def test_a_failed_chain_is_retried_from_where_it_broke(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    echo(system)
    chain = await orchestrator.create_job_chain(
        [chat("a"), chat("b! {{previous.content}}"), chat("{{previous.content}}")]
    )
    await system.work()
    assert (await orchestrator.wait_batch(chain.chain_id)).failed == 2
    system.provider.behave = lambda request: None
    system.provider.text = "fine"
    assert (await orchestrator.retry_failed(chain.chain_id)).retried == 2
    info = await orchestrator.wait_batch(chain.chain_id)
    assert (info.status, info.completed, info.failed) == ("completed", 3, 0)
    assert prompts(system) == ["a", "b! <a>", "b! <a>", "fine"]
    assert [node.name for node in (await orchestrator.get_graph_status(chain.chain_id)).nodes] == ["0", "1", "2"]


async def test_a_chain_is_cancelled_as_one(system: ClientHarness, orchestrator: AsyncAIJobOrchestrator) -> None:
    system.provider.hold()
    chain = await orchestrator.create_job_chain([chat("a"), chat("b"), chat("c")])
    await system.work()
    await until(lambda: system.provider.running)
    await orchestrator.cancel_batch_job(chain.chain_id)
    info = await orchestrator.wait_batch(chain.chain_id)
    assert (info.status, info.cancelled) == ("cancelled", 3)
    assert len(system.provider.calls) == 1


async def test_steps_that_wait_are_blocked_and_survive_a_crash(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    echo(system)
    chains = [
        await orchestrator.create_job_chain([chat(f"{n}")] + [chat("{{previous.content}}")] * 3) for n in range(8)
    ]
    (_, second, *_) = await client.get_jobs(chains[0])
    assert second is not None
    assert second.status == "blocked"
    await system.work(slots=3)
    for _ in range(3):
        before = system.queue.memory.commits
        await until(lambda before=before: system.queue.memory.commits > before + 3)
        await system.crash()
    for number, chain in enumerate(chains):
        assert (await orchestrator.wait_batch(chain.chain_id)).completed == 4
        jobs = await client.get_jobs(chain)
        assert [job.result.text for job in jobs if job and job.result] == [
            "<" * depth + str(number) + ">" * depth for depth in range(1, 5)
        ]
    assert len(system.provider.calls) == 32


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "is empty"),
        ([chat("{{previous.content}}")], "names no step before this one; there are: none"),
        ([chat("a"), chat("{{steps[1].content}}")], "names no step before this one; there are: 0"),
        ([chat("a"), chat("{{steps.plan}}")], r"{{steps.plan.content}} names no step before"),
        ([chat("a"), chat("{{previous.contents}}")], "a result has no 'contents'"),
        ([chat("a"), chat("{{__import__('os')}}")], "is no template"),
        ([chat("a"), chat("{{env.HOME}}")], "unknown name 'env'"),
        ([chat("a"), chat("{{previous.status.x}}")], "status has no parts"),
        ([chat("a"), chat("x", model="{{previous.content}}")], "model: can't be a template"),
        ([{"name": "n", "payload": chat("a")}, {"name": "n", "payload": chat("b")}], "have a name twice: n"),
        ([chat("a", provider="nobody")], "unknown provider 'nobody'"),
    ],
)
async def test_a_chain_that_can_not_work_is_refused_whole(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, steps: list[Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        await orchestrator.create_job_chain(steps)
    assert not system.queue.service._engine.core.live


async def test_an_answer_that_lacks_what_is_asked_of_it_fails_the_step(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    echo(system, {"a": "no json", "b": '{"x": [1]}', "c": "[" * 100_000})
    await system.work()
    for first, second, said in (
        ("a", "{{previous.json.x}}", "that answer is not JSON"),
        ("c", "{{previous.json.x}}", "that answer is not JSON"),
        ("b", "{{previous.json.x[3]}}", "that answer's JSON has no 3 there"),
    ):
        chain = await orchestrator.create_job_chain([chat(first), chat(second)])
        info = await orchestrator.wait_batch(chain.chain_id)
        assert info.errors == {"template_failed": 1}
        assert said in info.first_errors[0].message


async def test_a_graph_runs_in_the_order_of_its_needs_and_is_drawn(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    echo(system)
    graph = await orchestrator.submit_graph(
        {
            "both": {"payload": chat("{{steps.left.content}}+{{steps.right}}"), "depends_on": ["left", "right"]},
            "left": {"payload": chat("l {{previous.content}}"), "depends_on": ["top"]},
            "right": {"payload": chat("r {{steps.top.content}}")},
            "top": {"payload": chat("t")},
            "late": {"payload": completion("x"), "depends_on": "both"},
        }
    )
    before = await orchestrator.to_mermaid(graph.graph_id)
    assert '["top<br/>queued"]:::queued' in before
    assert '["both<br/>blocked"]:::blocked' in before
    system.provider.behave = lambda request: setattr(
        system.provider, "text", f"<{request.body.get('prompt') or request.body['messages'][-1]['content']}>"
    )
    await system.work(slots=1)
    info = await orchestrator.wait_batch(graph.graph_id)
    assert info.status == "completed"
    asked = [str(call.body.get("prompt") or call.body["messages"][-1]["content"]) for call in system.provider.calls]
    assert asked[0] == "t"
    assert set(asked[1:3]) == {"l <t>", "r <t>"}
    assert asked[3:] == ["<l <t>>+<r <t>>", "x"]
    status = await orchestrator.get_graph_status(graph.graph_id)
    assert {node.name: set(node.depends_on) for node in status.nodes}["both"] == {"left", "right"}
    assert {node.name: node.job_id for node in status.nodes} == dict(graph)
    picture = status.to_mermaid()
    assert picture.startswith("flowchart TD\n")
    assert "classDef completed fill:" in picture
    assert picture.count("-->") == 5
    assert status._repr_svg_() == status.to_svg()
    assert status.to_svg().count("marker-end") == 5


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({}, "is empty"),
        ({"a": {"payload": chat("x"), "depends_on": ["b"]}}, "unknown node 'b'; there are: a"),
        ({"a": {"payload": chat("{{steps.b.content}}")}}, "names no node"),
        ({"a": {"payload": chat("x"), "depends_on": ["a"]}}, "in a circle: a -> a"),
        (
            {"a": {"payload": chat("{{steps.b.content}}")}, "b": {"payload": chat("x"), "depends_on": ["a"]}},
            "in a circle: ",
        ),
        ({"a": {"payload": chat("x"), "on_error": "explode"}}, "must be one of fail, include, skip"),
        ({"a": {"payload": chat("x"), "needs": []}}, "nodes.a.needs: is not a field of a node"),
        ({"a": chat("x")}, "is no node"),
    ],
)
async def test_a_graph_that_can_not_work_is_refused_whole(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator, nodes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        await orchestrator.submit_graph(nodes)
    assert not system.queue.service._engine.core.live


@pytest.mark.parametrize(
    ("on_error", "asked"),
    [
        ("fail", None),
        ("skip", "all: <a>\n\n<c>"),
        ("include", "all: <a>\n\nError (invalid_request): Provider sim: 400 b!\n\n<c>"),
    ],
)
async def test_a_fan_in_job_gets_all_results(
    system: ClientHarness,
    client: AsyncAIQueueAdapter,
    orchestrator: AsyncAIJobOrchestrator,
    on_error: str,
    asked: str | None,
) -> None:
    echo(system)
    _, job_ids = await orchestrator.fan_out([chat("a"), chat("b!"), chat("c")], {"priority": "high"})
    last = await orchestrator.fan_in_job(job_ids, chat("all: {{results}}"), on_error=on_error)
    await system.work()
    info = await client.wait(last)
    if asked is None:
        assert info.error is not None
        assert info.error.kind == "dependency_failed"
    else:
        assert prompts(system)[-1] == asked


async def test_a_fan_in_job_over_jobs_that_have_ended_runs_at_once(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    echo(system)
    await system.work()
    batch_id, job_ids = await orchestrator.fan_out([chat("a"), chat("b")])
    await orchestrator.wait_batch(batch_id)
    await system.crash()
    last = await orchestrator.fan_in_job(job_ids, chat("{{results[1].content}}"))
    assert (await client.wait(last)).status == "completed"
    assert prompts(system)[-1] == "<b>"


async def test_a_fan_in_over_what_is_not_there_is_refused(
    system: ClientHarness, orchestrator: AsyncAIJobOrchestrator
) -> None:
    with pytest.raises(ValidationError, match="needs job nobody, which is not known"):
        await orchestrator.fan_in_job(["nobody"], chat("{{results}}"))
    with pytest.raises(ValidationError, match="job_ids: is empty"):
        await orchestrator.fan_in_job([], chat("x"))
    with pytest.raises(ValidationError, match=r"there are {{results}} and {{results\[0\]}} to \[0\]"):
        await orchestrator.fan_in_job(["x"], chat("{{results[1].content}}"))
    await turns()
    assert not system.queue.service._engine.core.live


async def test_a_step_that_is_redriven_alone_still_gets_its_input(
    system: ClientHarness, client: AsyncAIQueueAdapter, orchestrator: AsyncAIJobOrchestrator
) -> None:
    def fail(request: ProviderRequest) -> None:
        if request.body["messages"][-1]["content"] != "a":
            raise ProviderServerError("Provider sim: 503", status=503)

    system.provider.behave = fail
    await system.work()
    chain = await orchestrator.create_job_chain([chat("a"), chat("b {{previous.content}}")], max_retries=0)
    await orchestrator.wait_batch(chain.chain_id)
    system.provider.behave = lambda request: None
    (again,) = await client.dead_letters.redrive([chain[1]])
    assert (await client.wait(again)).status == "completed"
    assert prompts(system)[-1] == "b Hi there"
    assert await client.dead_letters.redrive([chain[1]]) == [again]
