"""No key survives in a text, and no text is long."""

from __future__ import annotations

import pytest

from aiqueue.providers.redact import MAX_CHARS, safe_text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Incorrect API key provided: sk-proj-abc123DEF456. See the docs", "abc123DEF456"),
        ("invalid x-api-key: sk-ant-api03-Zm9vYmFy", "Zm9vYmFy"),
        ("Authorization: Bearer abc.def-ghi was refused", "abc.def-ghi"),
        ("bearer 0123456789abcdef", "0123456789abcdef"),
        ('{"api_key": "0123456789abcdef"}', "0123456789abcdef"),
        ("GET http://proxy/?key=0123456789abcdef&a=b failed", "0123456789abcdef"),
        ("connect to http://user:hunter2@proxy:3128 failed", "hunter2"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln expired", "eyJzdWIiOiIxIn0"),
        ("AIzaSyA1234567890abcdefg is not enabled", "AIzaSyA1234567890abcdefg"),
        ("password=hunter2hunter2", "hunter2hunter2"),
    ],
)
def test_a_text_with_a_key_loses_it(text: str, secret: str) -> None:
    assert secret not in safe_text(text)


def test_the_known_secret_is_taken_out_whatever_it_looks_like() -> None:
    assert safe_text("no such user: plainword", secret="plainword") == "no such user: [redacted]"


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 5000 is more than this model's 4096 completion tokens",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "The model `gpt-x` does not exist or you do not have access to it.",
    ],
)
def test_a_text_without_a_key_stays(text: str) -> None:
    assert safe_text(text) == text


def test_a_long_text_is_cut_and_kept_on_one_line() -> None:
    text = safe_text("line\n" * 100_000)
    assert len(text) == MAX_CHARS
    assert "\n" not in text
