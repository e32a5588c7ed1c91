"""Checks at the edge: pydantic for the shape, then what only a running system knows (providers, models, limits).

All errors are one tree: ``aiqueue.errors.ValidationError`` with a ``FieldError`` per field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pydantic
from pydantic_core import ErrorDetails

from aiqueue import texts
from aiqueue.errors import FieldError, PayloadTooLarge, ValidationError
from aiqueue.iterables import is_iterable
from aiqueue.json_text import encode
from aiqueue.models import PAYLOAD, AIJobType, ChatPayload, CompletionPayload, EmbeddingPayload, JobOptions
from aiqueue.protocol import ProviderEntry, Welcome
from aiqueue.schema_limits import schema_faults
from aiqueue.shape import shape_of
from aiqueue.waiting import Pace, Parts, at_once

Payload = ChatPayload | CompletionPayload | EmbeddingPayload
_TARGET = ("type", "provider", "model")
_MAX_KNOWN = 1_000
_PART = 100  # payloads that are checked at once
_PIECE = 2_621  # bytes that count like one payload more: 256 KiB are checked at once
_MAX_LISTED = 100  # errors of one input
_MAX_OF_JOB = 10
_MAX_SHOWN = 100  # jobs of a batch whose errors are listed
#: What pydantic puts into an error's path for the branch of a union it tried; ``list[…]``, ``literal[…]`` … too.
_BRANCHES = frozenset({*AIJobType, "str", "int", "float", "bool", "none", "list", "dict"})
_validate: Callable[[object], Payload] = PAYLOAD.validator.validate_python  # half a microsecond less per job
_validate_shape: Callable[[object], object] = shape_of(PAYLOAD).validate_python


def field_errors(
    error: pydantic.ValidationError, *, prefix: str = "", index: int | None = None, jobs_in: Collection[str] = ()
) -> list[FieldError]:
    """Return what pydantic found, with paths as users wrote them: ``messages.0.role``.

    These are the first errors: a hundred, and ten of each job in the fields ``jobs_in``. A job can have a million.
    """
    found, seen = [], Counter[tuple[int | str, ...]]()
    for detail in error.errors(include_url=False, include_input=False):
        loc = detail["loc"]
        job = loc[:2] if loc and loc[0] in jobs_in else ()
        seen[job] += 1
        if seen[job] > (_MAX_OF_JOB if job else _MAX_LISTED):
            continue
        path = [prefix, *_path(loc, detail["type"])] if prefix else _path(loc, detail["type"])
        found.append(FieldError(".".join(path) or "payload", _message(detail), index))
    return found


def _path(loc: Sequence[int | str], kind: str) -> list[str]:
    """Return an error's place without the branches of unions that pydantic names in it."""
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return [*_path(loc, ""), "type"]
    names = [str(part) for part in loc if not _is_branch(part)]
    if kind in ("extra_forbidden", "missing") and loc and _is_branch(loc[-1]):
        names.append(str(loc[-1]))  # a field that happens to be called like a branch
    return names


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part in _BRANCHES or (part.endswith("]") and "[" in part))


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "union_tag_invalid":
        return f"unknown type {detail['ctx']['tag']!r}; there are: {', '.join(AIJobType)}"
    return detail["msg"].removeprefix("Value error, ")


def validate_job_payload(payload: Mapping[str, Any] | Payload) -> Payload:
    """Return ``payload`` as its model, or raise ValidationError. Knows nothing of configured providers.

    >>> validate_job_payload({"type": "text_completion", "provider": "local", "model": "m", "prompt": "Hi"}).model
    'm'
    """
    try:
        return _validate(payload)
    except pydantic.ValidationError as error:
        raise ValidationError(field_errors(error)) from None


def _target_of(payload: Mapping[str, Any] | Payload) -> tuple[str, str, str]:
    """Return type, provider and model of a valid payload; raise ValidationError of any other."""
    if type(payload) is dict:
        try:
            _validate_shape(payload)
        except pydantic.ValidationError:
            pass  # wrong, or with a model among its values: the full validation tells
        else:
            return payload["type"], payload["provider"], payload["model"]
    model = validate_job_payload(payload)
    target: Any = [getattr(model, name, None) for name in _TARGET]  # a model that was copied may hold anything
    for name, value in zip(_TARGET, target, strict=True):
        if not isinstance(value, str):
            raise ValidationError([FieldError(name, f"must be a text, not {type(value).__name__}")])
    return target[0], target[1], target[2]


def validate_options(options: Mapping[str, Any] | JobOptions | None) -> JobOptions:
    """Return ``options`` as its model, or raise ValidationError."""
    if isinstance(options, JobOptions):
        return options
    try:
        return JobOptions.model_validate({} if options is None else options)
    except pydantic.ValidationError as error:
        raise ValidationError(field_errors(error, prefix="options")) from None


class CheckedPayload(NamedTuple):
    """A valid payload as it is stored. The model is not kept: a list of thousands would be slow to collect."""

    type: str
    provider: str
    model: str
    body: bytes  #: JSON


class PayloadChecker:
    """Validates and encodes payloads for one running system."""

    def __init__(self, welcome: Welcome) -> None:
        self.renew(welcome)

    def renew(self, welcome: Welcome) -> None:
        """Check from now on by what the queue says now: another one may have taken its place, with other settings."""
        self._providers = {entry.name: entry for entry in welcome.providers}
        self._max_bytes = welcome.max_payload_bytes
        self._max_metadata = welcome.max_metadata_bytes
        self._known: dict[tuple[str, str, str], tuple[str, str, str]] = {}  #: targets that exist, as plain texts

    def check(self, payload: Mapping[str, Any] | Payload | CheckedPayload) -> CheckedPayload:
        """Return what the queue must know of a payload, or raise ValidationError (PayloadTooLarge)."""
        if isinstance(payload, CheckedPayload):
            return payload
        given = _target_of(payload)
        target = self._known.get(given)
        if target is None:
            target = texts.plain(given[0]), texts.plain(given[1]), texts.plain(given[2])
            if error := self._unknown_target(*target):
                raise ValidationError([error])
            if len(self._known) < _MAX_KNOWN:
                self._known[target] = target
        if self._providers[target[1]].kind == "llama_cpp" and (found := _too_much(payload)):
            raise ValidationError(found)
        encoded = _json_of(payload)
        if len(encoded) > self._max_bytes:
            raise PayloadTooLarge(
                [FieldError("payload", f"has {len(encoded)} bytes, over the limit of {self._max_bytes}")]
            )
        return CheckedPayload(*target, encoded)

    def metadata_of(self, options: JobOptions) -> bytes:
        """Return the metadata as it is stored, empty for none. Raises PayloadTooLarge."""
        if not options.metadata:
            return b""
        encoded = encode(options.metadata)
        if len(encoded) > self._max_metadata:
            message = f"has {len(encoded)} bytes as JSON, over the limit of {self._max_metadata}"
            raise PayloadTooLarge([FieldError("options.metadata", message)])
        return encoded

    def check_all(self, payloads: Iterable[Mapping[str, Any] | Payload]) -> list[CheckedPayload]:
        """Check a list; the error names the index of every bad one, the first 100."""
        return at_once(self.check_in_parts(payloads))

    def check_in_parts(self, payloads: Iterable[Mapping[str, Any] | Payload]) -> Parts[list[CheckedPayload]]:
        """As ``check_all``, in parts."""
        if isinstance(payloads, str | bytes | Mapping | pydantic.BaseModel) or not is_iterable(payloads):
            message = f"must be a list of payloads, not {type(payloads).__name__}: give a list, also for one"
            raise ValidationError([FieldError("jobs", message)])
        pace = Pace(_PART)
        checked, errors, bad = [], list[FieldError](), 0
        too_large = True
        for index, payload in enumerate(payloads):
            pieces = _PART  # a wrong payload has no known size
            try:
                checked.append(self.check(payload))
                pieces = 1 + len(checked[-1].body) // _PIECE
            except ValidationError as error:
                too_large &= isinstance(error, PayloadTooLarge)
                bad += 1
                errors += [FieldError(item.field, item.message, index) for item in error.errors]
                if bad == _MAX_SHOWN:
                    break
            if pace.is_full(pieces):
                yield
        if errors:
            raise (PayloadTooLarge if too_large else ValidationError)(errors)
        return checked

    def _unknown_target(self, job_type: str, provider: str, model: str) -> FieldError | None:
        texts.PROVIDER.check("provider", provider)
        texts.MODEL.check("model", model)
        entry = self._providers.get(provider)
        if entry is None:
            return FieldError("provider", f"unknown provider {provider!r}; configured: {self._names()}")
        if job_type not in entry.job_types:
            return FieldError("type", f"provider {entry.name!r} has no {job_type}; {_offer(entry)}")
        if entry.models and model not in entry.models:
            known = ", ".join(entry.models)
            return FieldError("model", f"provider {entry.name!r} has no model {model!r}; it has: {known}")
        return None

    def _names(self) -> str:
        return ", ".join(sorted(self._providers)) or "none"


def _too_much(payload: Mapping[str, Any] | Payload) -> list[FieldError]:
    """Return what a payload asks of llama.cpp that would end the worker's process."""
    config = payload.config if isinstance(payload, pydantic.BaseModel) else payload.get("config")
    if isinstance(config, pydantic.BaseModel):
        response_format = getattr(config, "response_format", None)
    else:
        response_format = config.get("response_format") if isinstance(config, Mapping) else None
    if not isinstance(response_format, Mapping):
        return []
    return [FieldError(f"config.response_format.{name}", why) for name, why in schema_faults(response_format)]


def _offer(entry: ProviderEntry) -> str:
    return f"it has: {', '.join(entry.job_types)}"


def _json_of(payload: Mapping[str, Any] | Payload) -> bytes:
    try:
        if isinstance(payload, pydantic.BaseModel):
            return payload.model_dump_json(exclude_none=True, exclude_defaults=True, exclude_unset=False).encode()
        return encode(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError([FieldError("payload", f"is not JSON: {error}")]) from None
