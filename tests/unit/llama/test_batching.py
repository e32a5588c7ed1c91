"""The real llama.cpp with many requests in one context: nobody's answer depends on who else is there.

Token by token this holds with one thread, f32 weights and flash attention off: other kernels round a chunk of many
tokens differently from single ones, by enough to turn an answer.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiqueue.llama.model import LoadedModel, ModelOptions
from aiqueue.llama.requests import Generation, GenerationRequest, Sampling

GREEDY = Sampling(temperature=0.0)
SYSTEM = "The job of the queue is to answer the request when the worker is free. " * 3


def loaded(path: Path, *, context_tokens: int = 2_048, parallel: int = 8, prompt_tokens: int = 32) -> LoadedModel:
    options = ModelOptions(
        context_tokens=context_tokens, parallel=parallel, prompt_tokens=prompt_tokens, flash_attention=False
    )
    return LoadedModel(path, options)


@pytest.fixture
def model(exact_gguf: Path) -> Iterator[LoadedModel]:
    found = loaded(exact_gguf)
    yield found
    found.close()


def asked(
    model: LoadedModel, text: str, *, most: int = 48, system: str = SYSTEM, sampling: Sampling = GREEDY
) -> GenerationRequest:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return GenerationRequest(tokens=model.chat_tokens(messages), sampling=sampling, max_tokens=most)


def alone(path: Path, requests: list[GenerationRequest]) -> list[Generation]:
    """Return the answers of one model after the other, each of which nobody else has used."""
    answers = []
    for request in requests:
        model = loaded(path)
        answers.append(model.generate(request).future.result())
        model.close()
    return answers


def questions(model: LoadedModel) -> list[GenerationRequest]:
    return [asked(model, f"Where is job {n} and what is said of it?" * (1 + n % 3)) for n in range(8)]


def test_greedy_output_is_the_same_alone_and_in_company_of_seven(model: LoadedModel, exact_gguf: Path) -> None:
    requests = questions(model)
    together = [ticket.future.result() for ticket in [model.generate(request) for request in requests]]
    expected = alone(exact_gguf, requests)
    assert [answer.tokens for answer in together] == [answer.tokens for answer in expected]
    assert [answer.text for answer in together] == [answer.text for answer in expected]
    assert len({answer.tokens for answer in together}) > 1
    assert model.counts.steps < sum(len(answer.tokens) for answer in together)  # they did share steps


class Held:
    """Stops the model at the given piece of text of one answer until it is let go."""

    def __init__(self, piece: int) -> None:
        self._left = piece
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self, text: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.reached.set()
            self.released.wait()


def test_one_of_eight_is_cancelled_and_the_other_seven_are_unharmed(exact_gguf: Path) -> None:
    model = loaded(exact_gguf)
    requests = questions(model)
    held = Held(piece=2)
    cut = GenerationRequest(
        tokens=requests[3].tokens,
        sampling=Sampling(temperature=1.5, seed=4),  # greedy it might be over before
        max_tokens=200,
        on_text=held,
    )
    tickets = [model.generate(cut if n == 3 else request) for n, request in enumerate(requests)]
    held.reached.wait()
    tickets[3].cancel()
    held.released.set()
    answers = [ticket.future.result() for ticket in tickets]
    model.close()
    assert answers[3].end == "cancelled"
    assert len(answers[3].tokens) <= 3  # not one more, but for marks without a text
    assert answers[3].text
    expected = alone(exact_gguf, [request for n, request in enumerate(requests) if n != 3])
    assert [answer.tokens for n, answer in enumerate(answers) if n != 3] == [answer.tokens for answer in expected]


@pytest.mark.parametrize("cells", [4_096, 768])
def test_random_joins_and_cancels_change_nobodys_answer(exact_gguf: Path, cells: int) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    model = loaded(exact_gguf, context_tokens=cells, parallel=12, prompt_tokens=16)
    requests = [
        asked(
            model,
            "What is a job? " * draw.randint(1, 12),
            most=draw.randint(1, 60),
            system=SYSTEM[: draw.choice([0, 60, 200])],
        )
        for _ in range(60)
    ]
    tickets = []
    for request in requests:
        tickets.append(model.generate(request))
        if draw.random() < 0.3:
            tickets[draw.randrange(len(tickets))].future.result()
        if draw.random() < 0.2:
            draw.choice(tickets).cancel()
    answers = [ticket.future.result() for ticket in tickets]
    reference = loaded(exact_gguf)
    for request, answer in zip(requests, answers, strict=True):
        expected = reference.generate(request).future.result()
        assert answer.tokens == expected.tokens[: len(answer.tokens)]
        if answer.end != "cancelled":
            assert answer == expected.__class__(
                text=expected.text,
                end=expected.end,
                tokens=expected.tokens,
                prompt_tokens=expected.prompt_tokens,
                cached_tokens=answer.cached_tokens,
            )
    reference.close()
    model.close()


def test_a_pinned_system_prompt_is_not_read_again(model: LoadedModel) -> None:
    model.pin_system_prompt(SYSTEM).result()
    answer = model.generate(asked(model, "What?")).future.result()
    assert answer.prompt_tokens - answer.cached_tokens < 20


def test_the_same_seed_draws_the_same_in_company(model: LoadedModel) -> None:
    drawn = Sampling(temperature=2.0, seed=11)
    request = asked(model, "Say anything.", sampling=drawn, most=12)
    answers = [ticket.future.result() for ticket in [model.generate(request) for _ in range(4)]]
    assert len({answer.tokens for answer in answers}) == 1


def test_what_is_refused_says_so_and_the_model_goes_on(model: LoadedModel) -> None:
    bad = GenerationRequest(tokens=(1, 2), sampling=Sampling(grammar="root ::= nowhere"))
    with pytest.raises(ValueError, match="does not take the grammar"):
        model.generate(bad).future.result()
    assert model.generate(asked(model, "And now?")).future.result().end == "stop"


def test_closing_ends_whoever_waits(exact_gguf: Path) -> None:
    model = loaded(exact_gguf)
    held = Held(piece=1)
    request = asked(model, "What?")
    running = model.generate(
        GenerationRequest(tokens=request.tokens, sampling=Sampling(temperature=2.0), max_tokens=500, on_text=held)
    )
    held.reached.wait()
    closing = threading.Thread(target=model.close)
    closing.start()
    held.released.set()
    closing.join()
    with pytest.raises(RuntimeError, match="the model was closed"):
        running.future.result()
    with pytest.raises(RuntimeError, match="the model was closed"):
        model.generate(request)
