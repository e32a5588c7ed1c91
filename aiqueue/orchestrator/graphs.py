"""Chains and graphs: steps, what each waits for, and the templates that name them. Checked before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set, Sized
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any, NamedTuple

from aiqueue import json_text
from aiqueue.client.adapter import AnyPayload
from aiqueue.client.given import in_order
from aiqueue.engine.dependencies import ON_ERROR, excess
from aiqueue.errors import FieldError, ValidationError
from aiqueue.iterables import is_iterable
from aiqueue.protocol import Need
from aiqueue.templates import Reference, references
from aiqueue.texts import check_step, is_number, plain
from aiqueue.waiting import Pace, Parts

_LISTED = 20  # names in one error
_PIECE = 262  # bytes of payloads that count like one step more: of 256 KiB the templates are looked for at once
_UNKNOWN_SIZE = 1_000 * _PIECE  # of a payload that is no JSON
_TOO_DEEP = "is nested too deeply, or contains itself"
_STEP_FIELDS = frozenset({"name", "payload"})
_SPELLINGS = (("depends_on", "dependsOn"), ("on_error", "onError"))
_NODE_FIELDS = frozenset({"payload", "depends_on", "dependsOn", "on_error", "onError", "name"})


class Step(NamedTuple):
    """One job of a graph. ``needs``: places of the steps it waits for."""

    name: str
    payload: AnyPayload
    needs: tuple[int, ...]
    on_error: str


class Graph(NamedTuple):
    """Steps in an order in which each comes after all that it needs."""

    steps: list[Step]

    def needs_in_parts(self, ids: Sequence[str]) -> Parts[list[tuple[Need, ...]]]:
        """Return what each step waits for, with the names that templates may use."""
        pace, needs, taken = Pace(), list[tuple[Need, ...]](), {step.name for step in self.steps}
        for at in range(len(ids)):
            needs.append(self._needs_of(at, ids, taken))
            if pace.is_full(1 + len(needs[-1])):
                yield
        return needs

    def _needs_of(self, at: int, ids: Sequence[str], taken: Set[str]) -> tuple[Need, ...]:
        step, needs = self.steps[at], list[Need]()
        for of in step.needs:
            name = self.steps[of].name
            # A place never stands for a step if another one has it as its name. Templates of a graph don't use places;
            # they are kept where they do no harm, since an idempotency key is compared by these texts.
            place = () if str(of) in taken and str(of) != name else (f"steps.{of}",)
            previous = ("previous",) if len(step.needs) == 1 or of == at - 1 else ()
            needs.append(Need(ids[of], (*place, f"steps.{name}", *previous)))
        return tuple(needs)


def chain_in_parts(steps: Sequence[AnyPayload | Mapping[str, Any]], *, stop_on_error: bool) -> Parts[Graph]:
    """Return steps that follow one another. A step is a payload, or ``{"name": …, "payload": …}``.

    Raises ValidationError: no step, a name twice or that is another step's place, a template that names what does not
    come before, too many needs.
    """
    if isinstance(steps, str | bytes | Mapping) or not is_iterable(steps):
        raise ValidationError([FieldError("steps", f"must be a list of payloads, not {type(steps).__name__}")])
    in_order("steps", steps)
    steps = list(steps)
    if not steps:
        raise ValidationError([FieldError("steps", "is empty: a chain has at least one step")])
    names, payloads, errors = [], [], list[FieldError]()
    for at, step in enumerate(steps):
        named = isinstance(step, Mapping) and "payload" in step
        if named and isinstance(step, Mapping) and (unknown := sorted(map(str, set(step) - _STEP_FIELDS))):
            known = _list(sorted(_STEP_FIELDS))
            errors.append(FieldError(f"steps.{at}.{unknown[0]}", f"is not a field of a step; there are: {known}"))
        name = step.get("name") if named and isinstance(step, Mapping) else None
        unnamed = name is None or (isinstance(name, str) and not name)
        names.append(str(at) if unnamed else _chosen(name, at))
        payloads.append(step["payload"] if named and isinstance(step, Mapping) else step)
    on_error = "fail" if stop_on_error else "include"
    places = _places(names)
    made, pace = [], Pace()
    for at, payload in enumerate(payloads):
        needs = {at - 1} if at else set[int]()
        found, size = _references(payload, at, errors)
        for field, wanted in found:
            of = at - 1 if wanted.name == "previous" else places.get(_step_of(wanted))
            if of is None or not 0 <= of < at:
                message = f"{wanted} names no step before this one; there are: {_list(names, at)}"
                errors.append(FieldError(field, message, at))
            else:
                needs.add(of)
        made.append(Step(names[at], payload, tuple(sorted(needs)), on_error))
        if pace.is_full(1 + len(needs) + size // _PIECE):
            yield
    if errors:
        raise ValidationError(errors)
    _check_edges("steps", (len(step.needs) for step in made))
    return Graph(made)


def graph_in_parts(nodes: Mapping[str, Any]) -> Parts[Graph]:
    """Return the steps of a graph in an order that fits. A node is ``{"payload", "depends_on", "on_error"}``.

    What a template names need not stand in ``depends_on`` as well. Raises ValidationError: unknown names, cycles, too
    many needs.
    """
    if not isinstance(nodes, Mapping):
        raise ValidationError([FieldError("nodes", f"must be a mapping of names to nodes, not {type(nodes).__name__}")])
    if not nodes:
        raise ValidationError([FieldError("nodes", "is empty: give a mapping of names to nodes")])
    for name in nodes:
        check_step("nodes", name)
    _check_edges("nodes", map(_count_needs, nodes.values()))  # before each is looked at
    pace, errors, needed = Pace(), list[FieldError](), dict[str, list[str]]()
    for name, node in nodes.items():
        needed[name], size = _parents(name, node, nodes, errors)
        if pace.is_full(1 + len(needed[name]) + size // _PIECE):
            yield
    if errors:
        raise ValidationError(errors)
    _check_edges("nodes", map(len, needed.values()))  # with those that templates name
    order = yield from _order(needed)
    places, steps = {name: at for at, name in enumerate(order)}, list[Step]()
    for name in order:
        needs = tuple(places[parent] for parent in needed[name])
        steps.append(Step(plain(name), nodes[name]["payload"], needs, _on_error(nodes[name])))
        if pace.is_full(1 + len(needs)):
            yield
    return Graph(steps)


def _order(needed: Mapping[str, Collection[str]]) -> Parts[list[str]]:
    """Return the names so that each comes after those that it needs: in waves, as ``static_order`` has them."""
    pace, order, sorter = Pace(), list[str](), TopologicalSorter[str]()
    wanted = Counter[str]()
    for name, parents in needed.items():
        sorter.add(name, *parents)
        wanted.update(parents)
        if pace.is_full(1 + len(parents)):
            yield
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ValidationError([FieldError("nodes", f"depend on each other in a circle: {circle}")]) from None
    while wave := sorter.get_ready():
        order += wave
        for name in wave:
            sorter.done(name)
            if pace.is_full(1 + wanted[name]):
                yield
    return order


def _count_needs(node: Any) -> int:
    """Return how many others a node says that it needs; 0 for what is no node: ``_parents`` refuses that."""
    given = _field(node, "depends_on", "dependsOn", ()) if isinstance(node, Mapping) else ()
    return len(given) if is_iterable(given) and isinstance(given, Sized) and not isinstance(given, str) else 0


def _check_edges(field: str, counts: Iterable[int]) -> None:
    if over := excess(counts):
        raise ValidationError([FieldError(field, over)])


def check_fan_in(payload: AnyPayload, count: int) -> None:
    """Raise ValidationError for too many results, and for templates that a job over ``count`` of them can't have."""
    _check_edges("job_ids", [count])
    errors: list[FieldError] = []
    for field, wanted in _references(payload, None, errors)[0]:
        root, _, at = wanted.name.partition(".")
        if root == "steps" or (root == "previous" and count != 1) or (at and int(at) >= count):
            errors.append(
                FieldError(field, f"{wanted}: there are {{{{results}}}} and {{{{results[0]}}}} to [{count - 1}]")
            )
    if errors:
        raise ValidationError(errors)


def _parents(name: str, node: Any, nodes: Mapping[str, Any], errors: list[FieldError]) -> tuple[list[str], int]:
    """Return the names of what a node waits for, in its own order, and its payload's size; note what is wrong."""
    where = f"nodes.{name}"
    if not isinstance(node, Mapping) or "payload" not in node:
        errors.append(FieldError(where, 'is no node: give {"payload": …, "depends_on": [names]}'))
        return [], 0
    if unknown := sorted(map(str, set(node) - _NODE_FIELDS)):
        errors.append(
            FieldError(f"{where}.{unknown[0]}", f"is not a field of a node; there are: {_list(sorted(_NODE_FIELDS))}")
        )
    errors += [
        FieldError(f"{where}.{both[1]}", f"is {both[0]}, which is given too: leave out one of them")
        for both in _SPELLINGS
        if node.keys() >= set(both)
    ]
    if _on_error(node) not in ON_ERROR:
        errors.append(FieldError(f"{where}.on_error", f"must be one of {_list(sorted(ON_ERROR))}"))
    # No list: to look each up in one takes the square of them.
    parents = dict.fromkeys(_depends_on(where, node, errors))
    for parent in parents:
        if parent not in nodes:
            errors.append(FieldError(f"{where}.depends_on", f"unknown node {parent!r}; there are: {_list(nodes)}"))
    found, size = _references(node["payload"], None, errors, f"{where}.payload.")
    parents |= dict.fromkeys(step for _, wanted in found if (step := _step_of(wanted)) in nodes)
    for field, wanted in found:  # now that all that it needs is known: ``previous`` is the only one of them
        if wrong := _fault_of(wanted, nodes, len(parents)):
            errors.append(FieldError(field, f"{wanted} {wrong}"))
    return [parent for parent in parents if parent in nodes], size


def _depends_on(where: str, node: Mapping[str, Any], errors: list[FieldError]) -> list[str]:
    """Return the names of the nodes that a node says it needs; note what is no name."""
    given = _field(node, "depends_on", "dependsOn", ())
    if isinstance(given, str):
        return [given]
    names: list[Any] = list(given) if is_iterable(given) else [None]  # read once: it may be an iterator
    if not all(isinstance(name, str) for name in names):
        errors.append(FieldError(f"{where}.depends_on", "must be a list of names of nodes"))
        return []
    try:
        in_order(f"{where}.depends_on", given)
    except ValidationError as error:
        errors += error.errors
    return names


def _fault_of(wanted: Reference, nodes: Mapping[str, Any], count: int) -> str:
    """Return what is wrong with a template of a node that needs ``count`` others; empty if nothing is."""
    root, _, which = wanted.name.partition(".")
    if root == "steps":
        return "" if which in nodes else f"names no node; there are: {_list(nodes)}"
    if root == "previous" and count != 1:
        return f"is the only node that this one needs, but it needs {count}: write {{{{steps.NAME}}}}"
    if which and int(which) >= count:
        return f"names no node: this one needs {count}, counted from 0"
    return ""


def _references(
    payload: Any, index: int | None, errors: list[FieldError], where: str = ""
) -> tuple[list[tuple[str, Reference]], int]:
    """Return the templates of a payload, each with its field, which begins with ``where``; note those that are none.

    Beside them stands the payload's size in bytes, which tells how long this took.
    """
    size = _UNKNOWN_SIZE
    try:
        encoded = _encoded(payload)
        if encoded is not None:
            size = len(encoded)
            if b"{{" not in encoded:
                return [], size
        if not isinstance(payload, Mapping):
            payload = payload.model_dump(exclude_none=True)
        return [(f"{where}{field}", wanted) for field, wanted in references(_as_stored(payload))], size
    except ValidationError as error:
        errors += [FieldError(f"{where}{item.field}", item.message, index) for item in error.errors]
    except RecursionError:
        errors.append(FieldError(where.rstrip(".") or "payload", _TOO_DEEP, index))
    return [], size


def _as_stored(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a payload with dicts in the place of mappings and models, whose texts may be templates too."""
    try:
        made: Mapping[str, Any] = json_text.plain(payload)
    except (TypeError, ValueError, OverflowError):  # it is no JSON, which the check of payloads says
        return payload
    return made


def _encoded(payload: Any) -> bytes | None:
    """Return a payload as JSON; None for what is none, which the check of payloads says."""
    try:
        if isinstance(payload, Mapping):
            return json_text.encode(payload)
        return payload.model_dump_json(exclude_none=True).encode() if hasattr(payload, "model_dump_json") else b"{}"
    except (TypeError, ValueError, OverflowError):
        return None


def _places(names: Sequence[str]) -> dict[str, int]:
    """Return the place of each step of a chain, by its name and by the place itself."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValidationError([FieldError("steps", f"have a name twice: {_list(twice)}")])
    return {str(at): at for at in range(len(names))} | {name: at for at, name in enumerate(names)}


def _step_of(wanted: Reference) -> str:
    """Return the step that a template names, by its name or its place; empty if it names none."""
    root, _, which = wanted.name.partition(".")
    return which if root == "steps" else ""


def _chosen(name: object, at: int) -> str:
    """Return a name that the caller chose for the step at ``at``. Raises ValidationError."""
    name = check_step(f"steps.{at}.name", name)
    if is_number(name) and name != str(at):
        message = (
            f"is a number, {name}, which in a template is a place: {{{{steps.0}}}} is the first step. Add a letter"
        )
        raise ValidationError([FieldError(f"steps.{at}.name", message)])
    return name


def _on_error(node: Mapping[str, Any]) -> str:
    policy = _field(node, "on_error", "onError", "fail")
    return plain(policy) if isinstance(policy, str) else str(policy)


def _field(node: Mapping[str, Any], name: str, alias: str, default: Any) -> Any:
    """Return a field of a node, in either spelling; None is as absent, as over HTTP."""
    value = node.get(name, node.get(alias))
    return default if value is None else value


def _list(names: Collection[str], count: int | None = None) -> str:
    """Return the first ``count`` names (all) as text; of many, only some: an error of each node may list all nodes."""
    count = len(names) if count is None else count
    shown = ", ".join(map(str, islice(names, min(count, _LISTED))))
    return f"{shown} and {count - _LISTED} more" if count > _LISTED else shown or "none"
