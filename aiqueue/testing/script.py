"""What the simulated provider is to do: a behaviour for each request, in Python or in the name of the model.

In a model's name, so that any client in any process can ask for it::

    sim                            answer at once (as does every name that does not start with "sim:")
    sim:500                        always HTTP 500
    sim:500*2,ok                   HTTP 500 twice, then answers
    sim:429+retry_after=2,ok       HTTP 429 with that header, then answers
    sim:ok+latency=0.2+tokens=50   one step with settings: 50 tokens, after 200 ms
    sim:hang                       never answers, until the client goes away

Steps stand between commas and are walked once for each distinct request: a job that is tried again comes to its next
step, whatever other jobs do in the meantime. The last step stays. A step is an HTTP status, ``ok``, ``tool`` (the model
calls the first tool it was given) or a fault; behind plus signs its settings: ``latency`` and ``token_delay`` in
seconds, ``tokens``, and ``retry_after`` as the header says it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast, get_args

from aiqueue.texts import is_number

Fault = Literal["hang", "cut", "malformed", "reset", "error_body", "no_choices"]

_PREFIX = "sim:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How one request is answered. Durations are in seconds.

    The faults: ``hang`` (nothing comes), ``cut`` (half of the body, then the connection closes), ``malformed`` (no
    JSON), ``reset`` (the connection breaks before any answer), ``error_body`` (HTTP 200 with an error in it),
    ``no_choices`` (JSON that lacks the answer).
    """

    status: int = 200
    fault: Fault | None = None
    latency_s: float = 0.0
    retry_after: str | None = None
    message: str = ""  #: of an error; empty: "simulated error" and the status
    tokens: int | None = None  #: None: as many as the answer has words
    token_delay_s: float = 0.0
    calls_tool: bool = False


OK = Behaviour()


class Script:
    """Behaviours for the next requests in the order of their arrival; after them, what the models' names say."""

    def __init__(self, behaviours: Iterable[Behaviour] = ()) -> None:
        self._next = deque(behaviours)
        self._seen: Counter[tuple[str, bytes]] = Counter()

    def add(self, *behaviours: Behaviour) -> None:
        """Append ``behaviours``. May be called from any thread."""
        self._next.extend(behaviours)

    def take(self, model: str, body: bytes) -> Behaviour:
        """Return what to do with the request that arrives now."""
        if self._next:
            return self._next.popleft()
        steps = steps_of(model)
        step = steps[min(self._seen[model, body], len(steps) - 1)]
        if len(steps) > 1:
            self._seen[model, body] += 1
        return step


def steps_of(model: str) -> tuple[Behaviour, ...]:
    """Return the behaviours that ``model`` asks for. Raises ValueError for words that are not in the language.

    >>> [step.status for step in steps_of("sim:429*2,ok")]
    [429, 429, 200]
    """
    if not model.startswith(_PREFIX):
        return (OK,)
    steps: list[Behaviour] = []
    for text in model.removeprefix(_PREFIX).split(","):
        step, _, times = text.partition("*")
        steps += [_behaviour(step)] * int(times or 1)
    return tuple(steps)


def _behaviour(step: str) -> Behaviour:
    what, *words = step.split("+")
    settings = dict(word.split("=", 1) for word in words)
    behaviour = Behaviour(
        status=int(what) if is_number(what) else 200,
        fault=cast(Fault, what) if what in get_args(Fault) else None,
        latency_s=float(settings.pop("latency", 0)),
        retry_after=settings.pop("retry_after", None),
        tokens=int(settings.pop("tokens")) if "tokens" in settings else None,
        token_delay_s=float(settings.pop("token_delay", 0)),
        calls_tool=what == "tool",
    )
    known = is_number(what) or what in (*get_args(Fault), "ok", "tool")
    if settings or not known:
        raise ValueError(f"the simulated provider does not know {step!r}")
    return behaviour
