"""The simulated provider, seen by the real clients."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from aiqueue.testing.script import Behaviour
from aiqueue.testing.simulated_provider import SimulatedServer

HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def server() -> Iterator[SimulatedServer]:
    with SimulatedServer() as server:
        yield server


@pytest.fixture
def client(server: SimulatedServer) -> Iterator[OpenAI]:
    with OpenAI(api_key="secret-key", base_url=server.openai_url, max_retries=0) as client:
        yield client


def test_a_chat_can_be_streamed_with_its_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model="sim", messages=HI, stream=True, stream_options={"include_usage": True})
    )
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said == "A simulated answer to: hi"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


def test_a_message_can_be_streamed(server: SimulatedServer) -> None:
    with (
        Anthropic(api_key="key", base_url=server.anthropic_url, max_retries=0) as client,
        client.messages.stream(model="sim", max_tokens=3, messages=HI) as stream,
    ):
        assert "".join(stream.text_stream) == "A simulated answer"
        message = stream.get_final_message()
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 3


def test_a_cut_stream_breaks_off(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="sim:cut", messages=HI, stream=True)
    with pytest.raises(openai.APIConnectionError):
        list(stream)


def test_a_malformed_stream_has_a_chunk_that_is_no_json(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="sim:malformed", messages=HI, stream=True)
    with pytest.raises(json.JSONDecodeError):
        list(stream)


def test_a_stream_may_end_without_an_answer(client: OpenAI, server: SimulatedServer) -> None:
    assert list(client.chat.completions.create(model="sim:no_choices", messages=HI, stream=True)) == []
    with (
        Anthropic(api_key="key", base_url=server.anthropic_url, max_retries=0) as anthropic,
        anthropic.messages.create(model="sim:no_choices", max_tokens=3, messages=HI, stream=True) as stream,
    ):
        assert [event.type for event in stream] == ["message_stop"]


def test_the_last_requests_are_kept_and_all_are_counted() -> None:
    with SimulatedServer(keep=10) as server, OpenAI(api_key="k", base_url=server.openai_url, max_retries=0) as client:
        for _ in range(45):
            client.chat.completions.create(model="sim", messages=HI)
        assert server.received == 45
        assert 10 <= len(server.requests) < 20
        assert server.requests[-1].number == 45


def test_embeddings_are_the_same_in_both_encodings(client: OpenAI) -> None:
    numbers = client.embeddings.create(model="sim", input="a", encoding_format="float").data[0].embedding
    assert client.embeddings.create(model="sim", input="a").data[0].embedding == numbers


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["sim"]


def test_a_client_that_retries_by_itself_is_counted(server: SimulatedServer) -> None:
    with OpenAI(api_key="key", base_url=server.openai_url, max_retries=2) as client:
        client.chat.completions.create(model="sim:500+retry_after=0.01*2,ok", messages=HI)
    server.wait_until(lambda requests: [received.outcome for received in requests] == ["answered"] * 3)


def test_the_log_shows_requests_without_their_keys(client: OpenAI, server: SimulatedServer) -> None:
    client.chat.completions.create(model="sim", messages=HI)
    address = f"{server.anthropic_url}/_log"
    log = httpx.get(address)
    assert log.json()["count"] == 1
    assert log.json()["requests"][0]["body"]["messages"] == HI
    assert "secret-key" not in log.text
    assert httpx.delete(address).json()["count"] == 0
    assert server.requests == []


def test_a_client_that_goes_away_is_noticed(client: OpenAI, server: SimulatedServer) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="sim:hang", messages=HI, timeout=0.1)
    server.wait_until(lambda requests: requests[0].outcome == "client_gone")


def test_a_script_is_followed_in_order(client: OpenAI, server: SimulatedServer) -> None:
    server.script.add(Behaviour(status=529), Behaviour(fault="reset"))
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="sim", messages=HI)
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="sim", messages=HI)
    assert client.chat.completions.create(model="sim", messages=HI).choices[0].finish_reason == "stop"


def test_an_unknown_path_or_model_is_an_error_of_the_client(client: OpenAI, server: SimulatedServer) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="sim", input="x")
    with pytest.raises(openai.BadRequestError, match="does not know 'explode'"):
        client.chat.completions.create(model="sim:explode", messages=HI)


def test_it_runs_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "aiqueue.testing.simulated_provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        answer = httpx.post(f"{address}/v1/messages", json={"model": "sim", "max_tokens": 9, "messages": HI})
        process.terminate()
    assert answer.json()["content"][0]["text"] == "A simulated answer to: hi"
