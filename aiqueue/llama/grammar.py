"""From OpenAI's ``response_format`` to a grammar that llama.cpp holds an answer to."""

from __future__ import annotations

import json
from typing import Any

from llama_cpp.llama_grammar import JSON_GBNF, json_schema_to_gbnf

from aiqueue.schema_limits import schema_faults


def grammar_of(response_format: dict[str, Any]) -> str:
    """Return the grammar (GBNF) that ``response_format`` calls for; empty for plain text.

    Raises ValueError for a kind of format, or a JSON schema, that can't be turned into a grammar.
    """
    kind = response_format.get("type")
    if kind == "text":
        return ""
    if kind == "json_object":
        schema = response_format.get("schema")
    elif kind == "json_schema":
        schema = (response_format.get("json_schema") or {}).get("schema")
    else:
        raise ValueError(f"response_format.type {kind!r} is none of text, json_object, json_schema")
    if schema is None:
        return str(JSON_GBNF)
    if fault := next(schema_faults(response_format), None):
        raise ValueError(f"response_format.{fault.field} {fault.message}")
    try:
        return str(json_schema_to_gbnf(json.dumps(schema)))
    except Exception as error:  # its translator raises whatever it trips over
        raise ValueError(f"response_format: the schema can't be followed: {type(error).__name__}: {error}") from None
