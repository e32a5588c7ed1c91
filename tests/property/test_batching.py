"""Any order of joins, cancels and shortages: everybody ends, and says what it says alone."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st

from aiqueue.llama.engine import BatchingEngine, EngineOptions
from aiqueue.llama.requests import Generation, GenerationRequest, Sampling
from aiqueue.llama.sequence import Sequence
from tests.tools.fake_backend import FakeBackend, answer_alone

SYSTEM = tuple(range(300, 330))

requests = st.fixed_dictionaries(
    {
        "system": st.booleans(),
        "own": st.integers(1, 40),
        "most": st.integers(1, 50),
        "level": st.integers(0, 3),
        "seed": st.integers(0, 5),
    }
)
actions = st.lists(
    st.one_of(
        requests, st.tuples(st.just("cancel"), st.integers(0, 30)), st.tuples(st.just("step"), st.integers(1, 9))
    ),
    min_size=1,
    max_size=40,
)


@given(
    actions=actions,
    cells=st.integers(100, 400),
    parallel=st.integers(2, 6),
    urgent=st.integers(0, 1),
    can_share=st.booleans(),
)
def test_everybody_ends_and_says_what_it_says_alone(
    actions: list[dict[str, int] | tuple[str, int]], cells: int, parallel: int, urgent: int, can_share: bool
) -> None:
    backend = FakeBackend(cells=cells, sequences=parallel + 3, batch_tokens=16, can_share=can_share)
    engine = BatchingEngine(backend, EngineOptions(parallel=parallel, urgent=urgent, prompt_tokens=5))
    asked: list[tuple[Sequence, GenerationRequest]] = []
    ends: dict[int, Generation | Exception] = {}
    for action in actions:
        if isinstance(action, dict):
            prompt = (*(SYSTEM if action["system"] else ()), *range(action["own"]))
            request = GenerationRequest(
                tokens=prompt,
                max_tokens=action["most"],
                level=action["level"],
                sampling=Sampling(seed=action["seed"]),
            )
            number = len(asked)
            asked.append((engine.add(request, lambda outcome, number=number: ends.update({number: outcome})), request))
        elif action[0] == "cancel":
            if asked:
                engine.cancel(asked[action[1] % len(asked)][0])
        else:
            for _ in range(action[1]):
                engine.step()
    for _ in range(60 * len(asked) * 50):
        if not engine.busy:
            break
        engine.step()
    assert not engine.busy
    assert backend.open_samplers == 0
    event(f"evictions: {min(engine.counts.evictions, 1)}")
    for number, (sequence, request) in enumerate(asked):
        ended = ends[number]
        assert isinstance(ended, Generation)
        most = min(request.max_tokens or 0, cells - len(request.tokens))
        alone = answer_alone(request.tokens, most=most, seed=request.sampling.seed)
        if ended.end == "cancelled":
            assert sequence.cancelled
            alone = alone[: len(ended.tokens)]
        assert list(ended.tokens) == alone
        assert 0 <= ended.cached_tokens < ended.prompt_tokens
