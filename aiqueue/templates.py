"""Payloads that use what other jobs came to: ``{{previous.content}}``, ``{{steps.plan.json.items}}``.

A template is a path and nothing else: it is looked up, never run. Names are checked when the payload is submitted; the
worker fills them in when the job starts. ``\\{{`` stands for two braces.

Paths begin with ``previous``, ``steps[0]``, ``steps.name``, ``results[0]`` or ``results`` (all that the job waited for,
joined by an empty line). Then comes what is wanted: ``content`` (the text; also where nothing follows), ``json`` (the
text parsed, with a path into it), ``status``, ``error``, ``tokens``, ``model``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from aiqueue.errors import FieldError, TemplateFailed, ValidationError
from aiqueue.protocol import JobInput
from aiqueue.results import JobResult, decode_result
from aiqueue.texts import is_number

FIELDS = ("content", "json", "status", "error", "tokens", "model")
_ESCAPED = "\\{{"
_LONGEST = 1_000  # characters of a template; what is longer is none, and is quoted in no error
_PATH = re.compile(r"\s*([A-Za-z_]\w*(?:\.[\w-]+|\[[0-9]+\])*+)\s*")
_STEP = re.compile(r"\.([\w-]+)|\[([0-9]+)\]")
_HINT = "write a path such as {{previous.content}}, or \\{{ for two braces"
_to_json = msgspec.json.Encoder().encode


class Reference(NamedTuple):
    """A template, taken apart: ``name`` is whose result (``steps.plan``), ``path`` what of it."""

    name: str
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        return "{{" + ".".join(map(str, (self.name, *self.path))) + "}}"


def parse(text: str) -> Reference:
    """Return the template between two pairs of braces. Raises ValueError.

    >>> parse("steps.plan.json.items[0]")
    Reference(name='steps.plan', path=('json', 'items', 0))
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{{{{{text[:40]}…}}}} is no template, it has {len(text)} characters: {_HINT}")
    found = _PATH.fullmatch(text)
    if found is None:
        raise ValueError(f"{{{{{text}}}}} is no template: {_HINT}")
    root, *_ = re.split(r"[.\[]", found[1], maxsplit=1)
    path: list[str | int] = [name or int(number) for name, number in _STEP.findall(found[1][len(root) :])]
    name = root
    if root == "steps" or (root == "results" and path and isinstance(path[0], int)):
        if not path:
            raise ValueError("{{steps}} must say which one: {{steps[0]}}, {{steps.name}}")
        name = f"{root}.{path.pop(0)}"
    elif root not in ("previous", "results"):
        raise ValueError(f"{{{{{text}}}}}: unknown name {root!r}; there are previous, steps and results")
    wanted = path[0] if path else "content"
    if wanted not in FIELDS:
        raise ValueError(f"{{{{{text}}}}}: a result has no {wanted!r}; it has {', '.join(FIELDS)}")
    if len(path) > 1 and wanted != "json":
        raise ValueError(f"{{{{{text}}}}}: {wanted} has no parts; only json has")
    return Reference(name, tuple(path) or ("content",))


def references(payload: Mapping[str, Any]) -> list[tuple[str, Reference]]:
    """Return all templates of a payload, each with the field it stands in. Raises ValidationError."""
    found, errors = [], []
    for field, text in _texts(payload, ""):
        for _, _, inside in _braces(text):
            if inside is None:
                continue
            if field in ("type", "provider", "model"):
                errors.append(FieldError(field, "can't be a template: it decides where the job runs"))
                continue
            try:
                found.append((field, parse(inside)))
            except ValueError as error:
                errors.append(FieldError(field, str(error)))
    if errors:
        raise ValidationError(errors)
    return found


def fill(payload: dict[str, Any], inputs: Sequence[JobInput]) -> dict[str, Any]:
    """Return ``payload`` with the results filled in. Raises TemplateFailed where one lacks what is asked for."""
    by_name: dict[str, JobInput] = {}
    for at, each in enumerate(inputs):
        by_name.setdefault(f"results.{at if each.place < 0 else each.place}", each)
        by_name.update(dict.fromkeys(each.names, each))

    def replaced(text: str) -> str:
        pieces, at = [], 0
        for start, end, inside in _braces(text):
            value = "{{" if inside is None else _text(_look_up(parse(inside), by_name, inputs))
            pieces += [text[at:start], value]
            at = end
        return "".join([*pieces, text[at:]])

    filled: dict[str, Any] = _map_texts(payload, replaced)
    return filled


def _braces(text: str) -> Iterator[tuple[int, int, str | None]]:
    """Yield start, end and inside of all pairs of braces; inside is None for two that are escaped.

    Each character is looked at once: a pattern would look for the end behind each pair again.
    """
    at = 0
    while (start := text.find("{{", at)) >= 0:
        if start > at and text[start - 1] == "\\":
            at = start + 2
            yield start - 1, at, None
        elif (closed := text.find("}}", start + 2)) >= 0:
            at = closed + 2
            yield start, at, text[start + 2 : closed]
        else:  # none of those that follow is closed
            start = text.find(_ESCAPED, at)
            while start >= 0:
                yield start, start + 3, None
                start = text.find(_ESCAPED, start + 3)
            return


def _look_up(wanted: Reference, by_name: Mapping[str, JobInput], inputs: Sequence[JobInput]) -> Any:
    if wanted.name == "results":
        values = [_part(each, wanted) for each in inputs]
        return "\n\n".join(map(_text, values)) if wanted.path == ("content",) else values
    found = by_name.get(wanted.name)
    if found is None:
        raise TemplateFailed(f"Template {wanted}: there is no such result, or its job was skipped")
    return _part(found, wanted)


def _part(source: JobInput, wanted: Reference) -> Any:
    what = wanted.path[0]
    if source.status == "gone":
        raise TemplateFailed(f"Template {wanted}: {source.failure.message if source.failure else 'it is gone'}")
    if what == "status":
        return source.status
    if what == "error":
        return source.failure.message if source.failure else ""
    if source.status != "completed":
        if what == "content":  # a job that goes on after an error has it as its input
            return f"Error ({source.failure.kind}): {source.failure.message}" if source.failure else source.status
        raise TemplateFailed(f"Template {wanted}: that job ended as {source.status}")
    result = decode_result(source.result)
    if what == "json":
        return _inside(_parsed(result, wanted), wanted)
    return {"content": result.text, "tokens": result.tokens, "model": result.model}[str(what)]


def _parsed(result: JobResult, wanted: Reference) -> Any:
    try:
        return msgspec.json.decode(_without_fence(result.text))
    except (ValueError, RecursionError) as error:
        raise TemplateFailed(f"Template {wanted}: that answer is not JSON: {error}") from None


def _without_fence(text: str) -> str:
    """Return what models often wrap into a code block."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        return stripped[stripped.index("\n") + 1 : -3]
    return stripped


def _inside(value: Any, wanted: Reference) -> Any:
    for step in wanted.path[1:]:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and is_number(str(step)) and int(step) < len(value):
            value = value[int(step)]
        else:
            raise TemplateFailed(f"Template {wanted}: that answer's JSON has no {step!r} there")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _to_json(value).decode()


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Yield every text in a payload with its place."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{field}.{name}" if field else str(name))
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _texts(item, f"{field}.{at}")


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _map_texts(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_map_texts(item, change) for item in value]
    return value
