"""The OpenAPI description. Bodies are validated from raw bytes and answers are encoded by msgspec, so FastAPI knows
neither: their schemas are put in here, made from the very classes that do the work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from serve.http_errors import PROBLEM_JSON, Problem

TITLE = "aiqueue"
DESCRIPTION = """A durable queue for AI inference.

Field names are camelCase, except inside `payload` and `result.response`, where they are the providers' own. Errors are
RFC 9457 problem bodies. A submit that was answered is on disk. Where a JSON object names a key twice, the last one
counts. A request whose Host is not a name of this server gets 421, one that a page of another site sends 403. What Ray
Serve refuses by itself is plain text: 503 while too many requests wait, 500 while no replica is up."""

JsonObject = dict[str, Any]
_REF = "#/components/schemas/{}"
_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait before the next try", "schema": {"type": "integer"}}}
_BUG = "A bug in the server; its log has the details."


def json_body(model: type[BaseModel], *, required: bool = True) -> JsonObject:
    """Return the part of an operation that describes its request body."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": _ref(model.__name__)}}}}


def path_parameter(name: str, description: str) -> JsonObject:
    """Return the part of an operation that describes its path parameter."""
    parameter = {"name": name, "in": "path", "required": True, "description": description}
    return {"parameters": [{**parameter, "schema": {"type": "string", "format": "uuid"}}]}


def answer(model: type[msgspec.Struct], description: str, headers: JsonObject | None = None) -> JsonObject:
    """Return the description of a successful answer."""
    content = {"application/json": {"schema": _ref(model.__name__)}}
    return {"description": description, "content": content, **({"headers": headers} if headers else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One endpoint: where it is found, and what it says of itself. Its description is the endpoint's docstring."""

    method: str
    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    name: str  #: the operation's id, from which clients are generated
    answer: JsonObject
    status: int = 200
    failures: Mapping[int, str] = field(default_factory=dict)  #: status -> when
    extra: JsonObject = field(default_factory=dict)  #: what else OpenAPI should know: body, parameters

    def add_to(self, app: FastAPI, tag: str) -> None:
        """Put this operation on ``app``."""
        described: dict[int | str, JsonObject] = {self.status: self.answer}
        for status, text in {**self.failures, 500: _BUG}.items():
            described[status] = _problem(status, text)
        app.add_api_route(
            self.path,
            self.endpoint,
            methods=[self.method],
            operation_id=self.name,
            status_code=self.status,
            response_class=Response,
            responses=described,
            openapi_extra=self.extra,
            tags=[tag],
        )


def _problem(status: int, text: str) -> JsonObject:
    described = {"description": text, "content": {PROBLEM_JSON: {"schema": _ref(Problem.__name__)}}}
    return described | ({"headers": _RETRY_AFTER} if status in (429, 503) else {})


def install_schema(
    app: FastAPI, *, bodies: list[type[BaseModel]], answers: list[type[msgspec.Struct]], version: str
) -> None:
    """Make ``app`` describe itself, with ``bodies`` and ``answers`` among its components."""

    def describe() -> JsonObject:
        if app.openapi_schema is None:
            schema = get_openapi(title=TITLE, version=version, description=DESCRIPTION, routes=app.routes)
            schema["components"] = {"schemas": _components(bodies, answers)}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # the framework's documented way


def _components(bodies: list[type[BaseModel]], answers: list[type[msgspec.Struct]]) -> JsonObject:
    _, definitions = models_json_schema([(body, "validation") for body in bodies], ref_template=_REF.format("{model}"))
    _, components = msgspec.json.schema_components([*answers, Problem], ref_template=_REF.format("{name}"))
    return dict(sorted({**definitions["$defs"], **components}.items()))


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name)}
