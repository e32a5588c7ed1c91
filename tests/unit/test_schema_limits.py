"""Schemas that would end or block a worker that follows them with llama.cpp."""

from __future__ import annotations

from typing import Any

import pytest

from aiqueue.schema_limits import schema_faults


def fields(schema: Any) -> list[str]:
    return sorted(fault.field for fault in schema_faults({"type": "json_object", "schema": schema}))


def string(pattern: str) -> dict[str, str]:
    return {"type": "string", "pattern": pattern}


@pytest.mark.parametrize("name", ["minLength", "maxLength", "minItems", "maxItems"])
@pytest.mark.parametrize(("value", "found"), [(1_000, 0), (1_001, 1), (20_000, 1), (2**31, 1), (1e9, 1), ("many", 0)])
def test_a_limit_over_a_thousand_is_named(name: str, value: object, found: int) -> None:
    assert fields({name: value}) == [f"schema.{name}"] * found


def test_a_limit_is_found_wherever_it_stands() -> None:
    bad = {"type": "string", "maxLength": 5_000}
    schema = {
        "properties": {"maxLength": bad, "enum": {"anyOf": [{"type": "null"}, bad]}},
        "items": bad,
        "$defs": {"const": {"prefixItems": [bad]}},
    }
    assert fields(schema) == [
        "schema.$defs.const.prefixItems.0.maxLength",
        "schema.items.maxLength",
        "schema.properties.enum.anyOf.1.maxLength",
        "schema.properties.maxLength.maxLength",
    ]


def test_openais_form_of_a_schema_is_looked_at_too() -> None:
    described = {"name": "x", "schema": {"maxItems": 9_999}}
    (fault,) = schema_faults({"type": "json_schema", "json_schema": described})
    assert fault.field == "json_schema.schema.maxItems"
    assert "9999, over the limit of 1000" in fault.message


def test_values_that_look_like_limits_are_none() -> None:
    assert fields({"const": {"maxLength": 5_000}, "enum": [{"maxItems": 5_000}], "default": {"minItems": 5_000}}) == []
    assert fields({"properties": {"maxLength": {"type": "integer"}}}) == []


@pytest.mark.parametrize(
    "pattern",
    [
        "^a{1001}$",
        "^[a-z]{0,20000}$",
        "^(a{1,40}){1,40}$",
        "^((a{1,11}){1,11}){1,11}$",
        "^(ab{,2000}c)$",
        "^((a?){30}){30}$",
        "^(a?){30}a{30}$",
        "^((x{0,50}){0,50}){0,50}$",
        "^(a|){20}$",
        "^(a|b?){17}$",
        "^((a{0,1}b?){0,9}){1,10}$",
        "^(a?)?{50}$",
        "(" * 51 + "a" + ")" * 51,
        "x)(a?){90}",
    ],
)
def test_a_pattern_that_would_kill_or_hang_is_refused(pattern: str) -> None:
    assert fields(string(pattern)) == ["schema.pattern"]


@pytest.mark.parametrize(
    "pattern",
    [
        "^[0-9]{3}-[0-9]{4}$",
        "^[a-z]{1,1000}$",
        "^(a|b){1,30}$",
        "^(ab?){10}$",
        "^(a*b?){2}$",
        "^(a|b?){3}$",
        "^(a{1,30}){1,30}$",
        "^\\{2000\\}$",
        "^[{2000}]{2}$",
        "^[\\]{9999}]x$",
        "^(a*b)*$",
        "^a*b+c?$",
        "^(foo|bar|)$",
        "",
        "(",
        "a{",
        "[",
        "\\",
    ],
)
def test_a_pattern_that_does_no_harm_is_left_to_the_translator(pattern: str) -> None:
    assert fields(string(pattern)) == []


def test_a_schema_nested_deeper_than_pythons_stack_is_looked_at() -> None:
    schema: dict[str, Any] = {"maxLength": 5_000}
    for _ in range(5_000):
        schema = {"items": schema}
    assert len(fields(schema)) == 1


@pytest.mark.parametrize("digits", ["1001", "9" * 10, "9" * 5_000])
def test_a_number_of_any_length_in_a_pattern_is_over_the_limit(digits: str) -> None:
    assert fields(string(f"a{{{digits}}}")) == ["schema.pattern"]
