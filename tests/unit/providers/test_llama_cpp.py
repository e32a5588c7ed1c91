"""The real llama.cpp on a tiny model."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

from aiqueue.config import ProviderConfig
from aiqueue.errors import ContextLengthExceeded, InvalidRequest, ModelUnavailable, ProviderServerError
from aiqueue.llama.engine_thread import Ticket
from aiqueue.llama.requests import GenerationRequest
from aiqueue.llama_config import LlamaConfig, ModelFileConfig, ModelsConfig
from aiqueue.providers.base import Provider, ProviderAnswer
from aiqueue.providers.llama_cpp import LlamaCppProvider
from tests.unit.providers.conftest import chat, request

CONTEXT = 512
GREEDY = {"temperature": 0.0}
ENDLESS = {"temperature": 0.0, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}}


@pytest.fixture
async def llama(tiny_gguf: Path) -> AsyncIterator[Provider]:
    provider = LlamaCppProvider("local", ProviderConfig(kind="llama_cpp", model_path=tiny_gguf, context_tokens=CONTEXT))
    yield provider
    await provider.close()


@pytest.fixture
def cut_gguf(tmp_path: Path, tiny_gguf: Path) -> Path:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_gguf.read_bytes()[:-100_000])
    return path


class HeldAtPiece:
    """Makes a model's next generation wait, at piece number ``count`` of its text, until it is let go."""

    def __init__(self, provider: LlamaCppProvider, count: int) -> None:
        model = provider._host._model
        assert model is not None
        self.reached, self.released = Event(), Event()
        self.pieces: list[str] = []
        generate = model.generate

        def listen(piece: str) -> None:
            self.pieces.append(piece)
            if len(self.pieces) == count:
                self.reached.set()
                self.released.wait()

        def held(request: GenerationRequest) -> Ticket:
            model.generate = generate  # type: ignore[method-assign]
            return generate(replace(request, on_text=listen))

        model.generate = held  # type: ignore[method-assign]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def at(path: Path) -> LlamaCppProvider:
    return LlamaCppProvider("local", ProviderConfig(kind="llama_cpp", model_path=path))


async def test_a_chat_is_answered_with_true_counts(llama: Provider) -> None:
    answer = await llama.run(chat("What is a queue?", config=GREEDY))
    assert answer.response.choices[0].message.content
    assert answer.finish_reason == "stop"
    assert answer.usage.prompt_tokens > 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.raw["object"] == "chat.completion"
    assert answer.response.model == "sim"


async def test_max_tokens_ends_the_answer(llama: Provider) -> None:
    answer = await llama.run(request("text_completion", prompt="The job", config=GREEDY | {"max_tokens": 2}))
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 2
    assert answer.response.choices[0].text == answer.response.choices[0].message.content


async def test_a_stop_text_ends_the_answer_before_it(llama: Provider) -> None:
    whole = (await llama.run(chat(config=GREEDY))).response.choices[0].message.content or ""
    word = whole.split()[2]
    cut = await llama.run(chat(config=GREEDY | {"stop": [word]}))
    assert cut.response.choices[0].message.content == whole[: whole.index(word)]
    assert cut.finish_reason == "stop"


async def test_a_seed_repeats_an_answer_and_none_gives_others(llama: Provider) -> None:
    hot = {"temperature": 2.0, "max_tokens": 12}
    seeded = [await llama.run(chat(config=hot | {"seed": 7})) for _ in range(2)]
    free = [await llama.run(chat(config=hot)) for _ in range(4)]
    assert len({answer.response.choices[0].message.content for answer in seeded}) == 1
    assert len({answer.response.choices[0].message.content for answer in free}) > 1


async def test_a_schema_holds_the_answer(llama: Provider) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await llama.run(chat(config=GREEDY | {"response_format": response_format}))
    assert set(msgspec.json.decode(answer.response.choices[0].message.content or "")) == {"ok"}


async def test_embeddings_are_one_plain_vector_a_text(llama: Provider) -> None:
    texts = [f"The job number {n}" for n in range(40)]
    answer = await llama.run(request("embedding", input=texts))
    alone = await llama.run(request("embedding", input=texts[39]))
    assert [vector.index for vector in answer.response.data] == list(range(40))
    assert {type(x) for vector in answer.response.data for x in vector.embedding} == {float}
    assert answer.response.data[39].embedding == pytest.approx(alone.response.data[0].embedding, abs=1e-4)
    assert answer.response.data[0].embedding != answer.response.data[1].embedding
    assert answer.usage.prompt_tokens > 40


async def test_a_chat_is_the_same_after_embeddings(llama: Provider) -> None:
    before = await llama.run(chat(config=GREEDY))
    await llama.run(request("embedding", input="something else"))
    after = await llama.run(chat(config=GREEDY))
    assert before.response.choices == after.response.choices


async def test_parts_and_developer_turns_reach_the_template(llama: Provider) -> None:
    parts = [{"type": "text", "text": "The job"}, {"type": "text", "text": "waits"}]
    plain = await llama.run(
        chat(
            messages=[{"role": "system", "content": "s"}, {"role": "user", "content": "The job\nwaits"}], config=GREEDY
        )
    )
    given = await llama.run(
        chat(messages=[{"role": "developer", "content": "s"}, {"role": "user", "content": parts}], config=GREEDY)
    )
    assert given.usage == plain.usage
    assert given.response.choices == plain.response.choices


async def test_a_cancelled_job_frees_the_model_at_the_next_token(llama: LlamaCppProvider) -> None:
    await llama.health_check()
    held = HeldAtPiece(llama, 5)
    kept: list[ProviderAnswer] = []
    long = asyncio.create_task(llama.run(msgspec.structs.replace(chat(config=ENDLESS), on_partial=kept.append)))
    await asyncio.to_thread(held.reached.wait)
    long.cancel()
    await asyncio.sleep(0)
    held.released.set()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert len(held.pieces) == 5  # not one more, and the model has let go: the next job runs at once
    assert [answer.response.choices[0].message.content for answer in kept] == ["".join(held.pieces)]
    assert kept[0].finish_reason == "cancelled"
    assert kept[0].usage.completion_tokens >= 5
    assert (await llama.run(chat(config=GREEDY))).finish_reason == "stop"


async def test_jobs_run_at_the_same_time_and_say_what_they_say_alone(exact_gguf: Path) -> None:
    # Full precision: elsewhere company may round otherwise, and turn an answer where two tokens are nearly as likely.
    exact = LlamaConfig(flash_attention=False)
    entry = ProviderConfig(kind="llama_cpp", model_path=exact_gguf, context_tokens=CONTEXT, threads=1, llama=exact)
    llama = LlamaCppProvider("local", entry)
    jobs = [chat(f"What is said of job {n}?", config=GREEDY) for n in range(6)]
    alone = [await llama.run(job) for job in jobs]
    model = llama._host._model
    assert model is not None
    before = replace(model.counts)
    together = await asyncio.gather(*map(llama.run, jobs))
    assert [answer.response.choices for answer in together] == [answer.response.choices for answer in alone]
    assert model.counts.steps - before.steps < model.counts.tokens_generated - before.tokens_generated
    await llama.close()


async def test_models_of_the_catalogue_are_loaded_by_name_and_no_other(tmp_path: Path, tiny_gguf: Path) -> None:
    for name in ("one.gguf", "two.gguf"):
        shutil.copy(tiny_gguf, tmp_path / name)
    files = {name: ModelFileConfig(path=Path(f"{name}.gguf")) for name in ("one", "two")}
    entry = ProviderConfig(kind="llama_cpp", models=("one", "two"), context_tokens=CONTEXT)
    provider = LlamaCppProvider("local", entry, ModelsConfig(folder=tmp_path, files=files))
    await provider.health_check()
    assert provider._host.loaded == "one"
    answers = await asyncio.gather(*(provider.run(chat(model=name, config=GREEDY)) for name in ("two", "one", "two")))
    assert [answer.response.model for answer in answers] == ["two", "one", "two"]
    assert len({answer.response.choices[0].message.content for answer in answers}) == 1
    with pytest.raises(ModelUnavailable, match=r"has no model '\.\./one'"):
        await provider.run(chat(model="../one"))
    await provider.close()


async def test_a_system_prompt_of_the_settings_is_read_before_the_first_job(tiny_gguf: Path) -> None:
    system = "The job of the queue is to answer the request. " * 4
    settings = LlamaConfig(system_prompts=(system,))
    entry = ProviderConfig(kind="llama_cpp", model_path=tiny_gguf, context_tokens=CONTEXT, llama=settings)
    provider = LlamaCppProvider("local", entry)
    turns = [{"role": "system", "content": system}, {"role": "user", "content": "What?"}]
    answer = await provider.run(chat(messages=turns, config=GREEDY))
    cached = answer.raw["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert 0 < answer.usage.prompt_tokens - cached < 20
    await provider.close()


async def test_a_system_prompt_that_does_not_fit_is_a_fault_of_the_settings(tiny_gguf: Path) -> None:
    settings = LlamaConfig(system_prompts=("short", "word " * 600))
    entry = ProviderConfig(kind="llama_cpp", model_path=tiny_gguf, context_tokens=CONTEXT, llama=settings)
    provider = LlamaCppProvider("local", entry)
    with pytest.raises(ModelUnavailable, match=r"llama\.system_prompts\.1: \d+ tokens, but at most 511 fit"):
        await provider.health_check()
    await provider.close()


async def test_a_job_cancelled_while_it_waits_never_runs(llama: Provider) -> None:
    first, waiting, third = (asyncio.create_task(llama.run(chat(f"number {n}", config=GREEDY))) for n in range(3))
    await asyncio.sleep(0)
    waiting.cancel()
    assert (await first).finish_reason == (await third).finish_reason == "stop"
    assert waiting.cancelled()


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        ("chat_completion", {"messages": [{"role": "user", "content": "word " * 600}]}),
        ("text_completion", {"prompt": "word " * 600}),
        ("embedding", {"input": ["fits", "word " * 600]}),
    ],
)
async def test_a_text_beyond_the_context_is_refused_with_the_numbers(
    llama: Provider, type_: str, body: dict[str, Any]
) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"^Provider local: \w+ of \d+ tokens, but at most 51[12] fit$"):
        await llama.run(request(type_, **body))


@pytest.mark.parametrize(
    ("type_", "body", "field"),
    [
        ("chat_completion", {"config": {"tools": []}}, "config.tools"),
        ("chat_completion", {"config": {"extra_body": {}}}, "config.extra_body"),
        ("chat_completion", {"config": {"response_format": {"type": "xml"}}}, "response_format.type"),
        (
            "chat_completion",
            {"config": {"response_format": {"type": "json_object", "schema": {"type": "odd"}}}},
            "response_format: the schema",
        ),
        ("chat_completion", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ("chat_completion", {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
        ("embedding", {"input": ["a", ""]}, "input.1"),
        ("embedding", {"input": "a", "config": {"dimensions": 2}}, "config.dimensions"),
    ],
)
async def test_what_the_model_can_not_do_is_refused_by_name(
    llama: Provider, type_: str, body: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^Provider local: {field}"):
        await llama.run(request(type_, **({"messages": [{"role": "user", "content": "x"}]} | body)))


async def test_a_missing_model_fails_every_job_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider = at(tmp_path / "none.gguf")
    for _ in range(3):
        with pytest.raises(
            ModelUnavailable, match=r"^Provider local: model file .*none\.gguf does not exist$"
        ) as caught:
            await provider.run(chat())
        assert not caught.value.retryable
    with pytest.raises(ModelUnavailable):
        await provider.health_check()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    await provider.close()


async def test_a_file_that_appears_too_late_is_not_tried_again(tmp_path: Path, tiny_gguf: Path) -> None:
    path = tmp_path / "late.gguf"
    provider = at(path)
    with pytest.raises(ModelUnavailable):
        await provider.health_check()
    path.symlink_to(tiny_gguf)
    with pytest.raises(ModelUnavailable):
        await provider.health_check()
    await provider.close()


async def test_a_model_that_could_not_be_fetched_is_tried_again(tmp_path: Path, tiny_gguf: Path) -> None:
    checksum = sha256_of(tiny_gguf)
    files = {"m": ModelFileConfig(repo="who/what", file="m.gguf", sha256=checksum)}
    entry = ProviderConfig(kind="llama_cpp", models=("m",), context_tokens=CONTEXT)
    nowhere = "http://127.0.0.1:9"
    provider = LlamaCppProvider("local", entry, ModelsConfig(folder=tmp_path, files=files, hub_url=nowhere))
    with pytest.raises(ProviderServerError, match=r"can't be fetched .* it is tried again") as caught:
        await provider.health_check()
    assert caught.value.retryable
    with pytest.raises(ProviderServerError):
        await provider.run(chat(model="m"))
    shutil.copy(tiny_gguf, tmp_path / f"{checksum[:16]}-m.gguf")  # as somebody puts it there
    await provider.health_check()
    assert (await provider.run(chat(model="m", config=GREEDY))).finish_reason == "stop"
    await provider.close()


async def test_a_cut_model_file_says_what_llama_cpp_said(cut_gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    provider = at(cut_gguf)
    with pytest.raises(ModelUnavailable, match=r"does not load: .*corrupted or incomplete"):
        await provider.health_check()
    await provider.close()
    assert "llama" not in capfd.readouterr().err


async def test_loading_and_running_prints_nothing(llama: Provider, capfd: pytest.CaptureFixture[str]) -> None:
    await llama.health_check()
    await llama.run(chat(config=GREEDY))
    await llama.run(request("embedding", input="x"))
    assert capfd.readouterr() == ("", "")
