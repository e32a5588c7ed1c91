"""The batching engine on a model made of arithmetic: who joins when, what is shared, what ends an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aiqueue.llama.engine import BatchingEngine, EngineOptions
from aiqueue.llama.requests import Generation, GenerationRequest, PromptTooLong, Sampling
from tests.tools.fake_backend import FakeBackend, answer_alone

SYSTEM = tuple(range(100, 140))


class Bench:
    """An engine, and what came of each request."""

    def __init__(self, *, options: EngineOptions | None = None, **backend: Any) -> None:
        self.backend = FakeBackend(**backend)
        self.engine = BatchingEngine(self.backend, options or EngineOptions(parallel=4, prompt_tokens=8))
        self.ends: dict[int, Generation | Exception] = {}

    def add(self, prompt: Sequence[int], *, most: int | None = 6, **rest: Any) -> int:
        request = GenerationRequest(tokens=tuple(prompt), max_tokens=most, **rest)
        sequence = self.engine.add(request, lambda outcome: self.ends.update({number: outcome}))
        number = sequence.number
        self.sequence = sequence
        return number

    def run(self, steps: int = 10_000) -> None:
        while self.engine.busy and steps:
            self.engine.step()
            steps -= 1

    def answer(self, number: int) -> Generation:
        ended = self.ends[number]
        assert isinstance(ended, Generation), ended
        return ended


def test_each_says_in_company_what_it_says_alone() -> None:
    bench = Bench()
    prompts = [tuple(range(seed, seed + 5 + seed % 7)) for seed in range(1, 20)]
    numbers = [bench.add(prompt, most=30, sampling=Sampling(seed=3)) for prompt in prompts]
    bench.run()
    for prompt, number in zip(prompts, numbers, strict=True):
        assert list(bench.answer(number).tokens) == answer_alone(prompt, most=30, seed=3)
    assert max(map(len, bench.backend.steps)) == 4  # as many as may at once
    assert bench.backend.open_samplers == 0


def test_a_request_joins_while_others_are_in_the_middle_of_theirs() -> None:
    bench = Bench()
    first = bench.add(range(1, 9), most=20)
    bench.run(5)
    second = bench.add(range(30, 35), most=2)
    bench.run(3)
    assert second in bench.ends
    assert first not in bench.ends
    bench.run()
    assert list(bench.answer(first).tokens) == answer_alone(range(1, 9), most=20)


def test_a_long_prompt_is_read_in_chunks_and_nobody_waits_for_it() -> None:
    bench = Bench()
    talking = bench.add(range(1, 9), most=20)
    bench.run(1)
    bench.add(range(200, 260), most=1)
    before = len(bench.backend.steps)
    bench.run(5)
    assert [sorted(step.values()) for step in bench.backend.steps[before:]] == [[1, 8]] * 5
    bench.run()
    assert list(bench.answer(talking).tokens) == answer_alone(range(1, 9), most=20)


def test_requests_with_one_system_prompt_wait_for_the_first_to_read_it() -> None:
    bench = Bench(batch_tokens=16)
    numbers = [bench.add((*SYSTEM, 500 + n, 600 + n), most=3) for n in range(4)]
    bench.run()
    assert [bench.answer(number).cached_tokens for number in numbers] == [0, 40, 40, 40]
    assert sum(sum(step.values()) for step in bench.backend.steps) < 2 * len(SYSTEM)
    for n, number in enumerate(numbers):
        assert list(bench.answer(number).tokens) == answer_alone((*SYSTEM, 500 + n, 600 + n), most=3)


def test_one_that_waits_for_a_prefix_lets_others_pass() -> None:
    bench = Bench(batch_tokens=8)
    bench.add((*SYSTEM, 1), most=1)
    waiting = bench.add((*SYSTEM, 2), most=1)
    other = bench.add((900, 901), most=1)
    bench.run(3)
    assert other in bench.ends
    assert waiting not in bench.ends
    bench.run()
    assert bench.answer(waiting).cached_tokens == len(SYSTEM)


def test_the_next_turn_of_a_conversation_reads_only_what_is_new() -> None:
    bench = Bench()
    first = bench.add(SYSTEM, most=8)
    bench.run()
    said = bench.answer(first).tokens
    second = bench.add((*SYSTEM, *said, 7, 8), most=2)
    bench.run()
    assert bench.answer(second).cached_tokens == len(SYSTEM) + len(said) - 1  # nobody read its last token


def test_what_has_ended_keeps_so_many_cells_and_of_a_long_one_the_beginning() -> None:
    bench = Bench(options=EngineOptions(parallel=2, prompt_tokens=8, remember=50))
    for n in range(5):
        bench.add(range(100 * n, 100 * n + 30), most=3)
        bench.run()
        assert bench.backend.used <= 50
    bench.add(range(1_000, 1_090), most=1)
    bench.run()
    assert bench.backend.used == 50
    number = bench.add((*range(1_000, 1_090), 7), most=1)
    bench.run()
    assert bench.answer(number).cached_tokens == 50


def test_a_pinned_prompt_is_remembered_longer_than_what_came_later() -> None:
    bench = Bench(cells=128, options=EngineOptions(parallel=2, prompt_tokens=8))
    bench.engine.pin(SYSTEM, lambda outcome: None)
    bench.run()
    for n in range(6):
        bench.add(range(200 + 40 * n, 230 + 40 * n), most=3)
        bench.run()
    number = bench.add((*SYSTEM, 5), most=1)
    bench.run()
    assert bench.answer(number).cached_tokens == len(SYSTEM)


def test_a_model_that_can_not_share_reads_everything() -> None:
    bench = Bench(can_share=False)
    numbers = [bench.add((*SYSTEM, n), most=2) for n in range(3)]
    bench.run()
    assert [bench.answer(number).cached_tokens for number in numbers] == [0, 0, 0]


def test_when_cells_run_out_the_last_in_line_is_read_again_later_and_says_the_same() -> None:
    bench = Bench(cells=96, options=EngineOptions(parallel=2, prompt_tokens=8))
    talkative = [(n, 4) for n in range(1, 90) if len(answer_alone((n, 4), most=60, seed=5)) == 60]
    prompts = talkative[:2]
    numbers = [bench.add(prompt, most=60, sampling=Sampling(seed=5)) for prompt in prompts]
    bench.run()
    assert bench.engine.counts.evictions > 0
    for prompt, number in zip(prompts, numbers, strict=True):
        assert list(bench.answer(number).tokens) == answer_alone(prompt, most=60, seed=5)


def test_an_answer_ends_where_the_context_does() -> None:
    bench = Bench(cells=64)
    prompt = (17, 4)
    number = bench.add(prompt, most=None, sampling=Sampling(seed=5))
    bench.run()
    alone = answer_alone(prompt, most=62, seed=5)
    assert list(bench.answer(number).tokens) == alone
    assert bench.answer(number).end == ("length" if len(alone) == 62 else "stop")


def test_an_urgent_request_goes_before_those_that_wait() -> None:
    bench = Bench(options=EngineOptions(parallel=1, prompt_tokens=8))
    bench.add((1, 2), most=3)
    bench.run(1)
    low, urgent = bench.add((3, 4), most=1, level=3), bench.add((5, 6), most=1, level=0)
    bench.run()
    assert list(bench.ends).index(urgent) < list(bench.ends).index(low)


def test_a_reserved_slot_is_for_urgent_requests_only() -> None:
    bench = Bench(options=EngineOptions(parallel=2, urgent=1, prompt_tokens=8))
    bench.add((1, 2), most=30)
    waiting = bench.add((3, 4), most=1)
    bench.run(3)
    urgent = bench.add((5, 6), most=1, level=0)
    bench.run(2)
    assert urgent in bench.ends
    assert waiting not in bench.ends


def test_a_cancelled_request_keeps_its_text_and_disturbs_nobody() -> None:
    bench = Bench()
    heard: list[str] = []
    cut = bench.add(range(1, 5), most=40, on_text=heard.append, sampling=Sampling(seed=2))
    mine = bench.sequence
    others = [bench.add((n, n + 1), most=20) for n in (40, 50, 60)]
    bench.run(6)
    bench.engine.cancel(mine)
    bench.run(1)
    answer = bench.answer(cut)
    assert answer.end == "cancelled"
    assert list(answer.tokens) == answer_alone(range(1, 5), most=len(answer.tokens), seed=2)
    assert answer.text == "".join(heard) == "".join(f"<{token}>" for token in answer.tokens)
    bench.run()
    for n, other in zip((40, 50, 60), others, strict=True):
        assert list(bench.answer(other).tokens) == answer_alone((n, n + 1), most=20)


def test_a_request_cancelled_while_it_waits_never_runs() -> None:
    bench = Bench(options=EngineOptions(parallel=1))
    bench.add((1, 2), most=3)
    waiting = bench.add((3, 4))
    bench.engine.cancel(bench.sequence)
    bench.run()
    assert (bench.answer(waiting).end, bench.answer(waiting).tokens) == ("cancelled", ())


def test_a_stop_text_ends_an_answer_before_it() -> None:
    alone = answer_alone((17, 4), most=10, seed=5)
    bench = Bench()
    number = bench.add((17, 4), most=10, stop=(f"<{alone[3]}>",), sampling=Sampling(seed=5))
    bench.run()
    assert bench.answer(number).text == "".join(f"<{token}>" for token in alone[:3])
    assert bench.answer(number).end == "stop"


def test_a_listener_that_raises_ends_its_own_request_only() -> None:
    def listen(text: str) -> None:
        raise OSError("gone")

    bench = Bench()
    deaf = bench.add((1, 2), on_text=listen)
    other = bench.add((3, 4))
    bench.run()
    assert isinstance(bench.ends[deaf], OSError)
    assert list(bench.answer(other).tokens) == answer_alone((3, 4), most=6)


def test_a_failed_step_fails_whoever_is_there_and_the_next_begin_anew() -> None:
    bench = Bench()
    numbers = [bench.add((*SYSTEM, n)) for n in range(6)]
    bench.run(2)
    bench.backend.fail_next = RuntimeError("llama_decode returned -3")
    with pytest.raises(RuntimeError, match="llama_decode"):
        bench.engine.step()
    assert all(isinstance(bench.ends[number], RuntimeError) for number in numbers)
    assert not bench.engine.busy
    number = bench.add((*SYSTEM, 1))
    bench.run()
    assert bench.answer(number).cached_tokens == 0
    assert bench.backend.open_samplers == 0


def test_what_can_not_be_answered_is_refused_at_once() -> None:
    bench = Bench(cells=64)
    with pytest.raises(PromptTooLong, match="64 tokens, but at most 63 fit"):
        bench.add(range(64))
    with pytest.raises(ValueError, match="no tokens"):
        bench.add(())
    with pytest.raises(ValueError, match="grammar"):
        bench.add((1,), sampling=Sampling(grammar="root ::= x"))
    assert not bench.engine.busy
