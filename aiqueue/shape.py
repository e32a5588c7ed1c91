"""Validation that builds nothing: a model's own rules, as a check of plain dicts.

Of a submitted payload only the verdict is wanted, since the payload is stored as it was given. Making model instances
was half the cost of validating it, and a client that submits lists does little else.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from aiqueue import texts


def shape_of(adapter: TypeAdapter[Any]) -> SchemaValidator:
    """Return a validator with the rules of ``adapter`` for dicts all the way down; absent defaults stay absent.

    It accepts what the adapter accepts, with two differences. It does not check that names are ``texts.clean``: the
    caller does that, once per name instead of once per job. And it refuses model instances.
    """
    # A model's config covers the definitions it uses; a typed dict's does not.
    return SchemaValidator(cast(CoreSchema, _without_models(adapter.core_schema)), {"allow_inf_nan": False})


def _without_models(node: Any) -> Any:
    """Return a copy of a core schema in which models are typed dicts."""
    if isinstance(node, list):
        return [_without_models(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "function-after" and node["function"]["function"] is texts.clean:
        return _without_models(node["schema"])
    if node.get("type") == "model":
        fields = {name: _field(field["schema"]) for name, field in node["schema"]["fields"].items()}
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid", config=node["config"])
    return {key: value if key in ("cls", "metadata") else _without_models(value) for key, value in node.items()}


def _field(schema: dict[str, Any]) -> core_schema.TypedDictField:
    optional = schema["type"] == "default"
    return core_schema.typed_dict_field(
        _without_models(schema["schema"] if optional else schema), required=not optional
    )
