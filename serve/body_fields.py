"""Bodies with more unknown fields than anyone means: few of them are looked at.

Each unknown field is an error, which takes pydantic 6 µs and 1 KiB; an answer shows ten of a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from operator import is_not
from typing import Any

import msgspec
import pydantic

from aiqueue import models
from aiqueue.errors import ValidationError
from serve.body_json import decode

_MOST = 100  # unknown fields of an object that are kept
_SMALL = 4_096  # bytes: an object of fewer is not looked at; it has some 600 fields at most
_FEW = 2_000  # quotes in a body: each name has two
_ANY = "*"
_OBJECT = dict[str, msgspec.Raw]

#: Where a body has objects whose fields are known. The objects of a list stand in its place.
_Places = Mapping[str, "_Places"]
_JOB: _Places = {"config": {}, "messages": {}}
_PLACES: _Places = {
    "options": {},
    "payload": _JOB,
    "jobs": _JOB,
    "steps": {**_JOB, "payload": _JOB},
    "nodes": {_ANY: {"payload": _JOB}},
}


def few_unknown(model: type[pydantic.BaseModel], fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Return the fields of a body without most of those that no model has."""
    return _few(fields, _known(model))


def with_few_unknown(model: type[pydantic.BaseModel], raw: bytes) -> bytes:
    """Return a body with few unknown fields in each of its objects; what is no JSON is returned as it is."""
    if raw.count(b'"') < _FEW:
        return raw
    return bytes(_trimmed(raw, _PLACES, _known(model)))


def _trimmed(
    raw: bytes | msgspec.Raw, places: _Places, known: frozenset[str], kind: Any = _OBJECT | list[msgspec.Raw]
) -> bytes | msgspec.Raw:
    """Return an object, or a list of objects, with few unknown fields in each, and in those at ``places`` of it."""
    if memoryview(raw).nbytes < _SMALL:
        return raw
    try:
        found = decode(raw, kind)
    except (msgspec.ValidationError, ValidationError):
        return raw
    kept: Any
    if isinstance(found, list):
        kept = [_trimmed(each, places, known, _OBJECT) for each in found]
        is_less = any(map(is_not, kept, found))
    else:
        any_name = places.get(_ANY)
        kept = _few(found, known) if any_name is None else found
        inside = {name: places.get(name, any_name) for name in kept}
        trimmed = {name: _trimmed(kept[name], inner, known) for name, inner in inside.items() if inner is not None}
        is_less = len(kept) < len(found) or any(kept[name] is not value for name, value in trimmed.items())
        kept = kept | trimmed
    return msgspec.Raw(msgspec.json.encode(kept)) if is_less else raw


def _few(fields: dict[str, msgspec.Raw], known: frozenset[str]) -> dict[str, msgspec.Raw]:
    unknown = [name for name in fields if name not in known]
    dropped = frozenset(unknown[_MOST:])
    return {name: value for name, value in fields.items() if name not in dropped} if dropped else fields


@cache
def _known(model: type[pydantic.BaseModel]) -> frozenset[str]:
    """Return the names, in both spellings, of all fields that a body and its jobs may have."""
    ours = [each for each in vars(models).values() if isinstance(each, type) and issubclass(each, pydantic.BaseModel)]
    fields = [field for each in (model, *ours) for field in each.model_fields.items()]
    return frozenset(name for name, _ in fields) | frozenset(field.alias or name for name, field in fields)
