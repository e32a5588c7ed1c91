"""What callers give and get: options in all their forms, and the ids of what was submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pydantic

from aiqueue.client import given
from aiqueue.client.schedule_models import ScheduleDefinition
from aiqueue.engine.dependencies import ON_ERROR
from aiqueue.errors import FieldError, ValidationError
from aiqueue.models import BatchOptions, ChainOptions, GraphOptions
from aiqueue.texts import plain
from aiqueue.validation import field_errors

Options = Mapping[str, Any] | BatchOptions | GraphOptions | None
_STOP_FLAG = ("stopOnError", "stop_on_error")


class FanOut(NamedTuple):
    """Jobs that run beside each other."""

    batch_id: str
    job_ids: list[str]


class JobChain(list[str]):
    """The ids of a chain's jobs, in their order; ``chain_id`` is what the chain is asked for and cancelled by."""

    def __init__(self, chain_id: str, job_ids: Sequence[str]) -> None:
        super().__init__(job_ids)
        self.chain_id = chain_id


class JobGraph(dict[str, str]):
    """The ids of a graph's jobs, by the names of their nodes; ``graph_id`` is what the graph is asked for by."""

    def __init__(self, graph_id: str, job_ids: Mapping[str, str]) -> None:
        super().__init__(job_ids)
        self.graph_id = graph_id


def for_batch(options: Options) -> Mapping[str, Any] | BatchOptions | None:
    """Return options as those of a batch."""
    return options.model_dump(exclude_unset=True) if isinstance(options, GraphOptions) else options


def for_graph(options: Options) -> Mapping[str, Any] | GraphOptions | None:
    """Return options as those of a chain or a graph."""
    return options.model_dump(exclude_unset=True) if isinstance(options, BatchOptions) else options


def schedule_of(
    name: str | Mapping[str, Any], cron_expression: str, rules: Mapping[str, Any]
) -> tuple[ScheduleDefinition, str | None]:
    """Return a schedule from its name and line, or from one dict of all, and its idempotency key."""
    fields = dict(name) if isinstance(name, Mapping) else {"name": name}
    fields |= ({"cron_expression": cron_expression} if cron_expression else {}) | dict(rules)
    key = fields.pop("idempotency_key", None)
    try:
        return ScheduleDefinition.model_validate(fields), key
    except pydantic.ValidationError as error:
        raise ValidationError(field_errors(error)) from None


def checked_inputs(job_ids: object, on_error: object) -> tuple[list[str], str]:
    """Return the ids of what is fanned in, and the policy. Raises ValidationError for what can't be."""
    given.in_order("job_ids", job_ids)
    ids = given.job_ids(job_ids)
    if not ids:
        raise ValidationError([FieldError("job_ids", "is empty: a fan-in is over at least one job")])
    on_error = "fail" if on_error is None else on_error
    if not isinstance(on_error, str) or on_error not in ON_ERROR:
        raise ValidationError([FieldError("on_error", f"must be one of {', '.join(sorted(ON_ERROR))}")])
    return ids, plain(on_error)


def take_stop_flag(options: Options, stop_on_error: bool) -> tuple[Options, bool]:
    """Take ``stopOnError`` out of the options, where the specification has it. Raises ValidationError."""
    stop_on_error = _flag({"stop_on_error": stop_on_error}, "")
    if not isinstance(options, Mapping):
        return options, stop_on_error
    flag = {name: options[name] for name in _STOP_FLAG if options.get(name) is not None}
    rest = {name: value for name, value in options.items() if name not in _STOP_FLAG}
    return rest, _flag(flag, "options") if flag else stop_on_error


def _flag(given: Mapping[str, Any], where: str) -> bool:
    """Return the flag by the rules of HTTP. Raises ValidationError."""
    try:
        return ChainOptions.model_validate(given).stop_on_error
    except pydantic.ValidationError as error:
        raise ValidationError(field_errors(error, prefix=where)) from None
