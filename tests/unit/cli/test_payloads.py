"""From options to a payload."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiqueue.cli.payloads import Request, payload_of, read_payload
from aiqueue.errors import ValidationError
from aiqueue.models import AIJobType
from aiqueue.protocol import ProviderEntry
from aiqueue.validation import validate_job_payload

LOCAL = ProviderEntry("local", "llama_cpp", tuple(AIJobType), ("tiny",))
OPENAI = ProviderEntry("openai", "openai", tuple(AIJobType))
TWO = ProviderEntry("two", "openai", tuple(AIJobType), ("a", "b"))


def test_the_only_provider_and_its_only_model_need_no_name() -> None:
    payload = payload_of(Request(prompt="Why?"), [LOCAL])
    assert (payload["provider"], payload["model"]) == ("local", "tiny")
    assert "config" not in payload


@pytest.mark.parametrize("job_type", list(AIJobType))
def test_every_type_gives_a_valid_payload(job_type: AIJobType) -> None:
    payload = payload_of(Request(prompt="Why?", type=job_type, config={"temperature": None}), [LOCAL])
    assert validate_job_payload(payload).type is job_type


def test_a_system_message_comes_first() -> None:
    payload = payload_of(Request(prompt="Why?", system="Be brief", config={"max_tokens": 3}), [LOCAL])
    assert [message["role"] for message in payload["messages"]] == ["system", "user"]
    assert payload["config"] == {"max_tokens": 3}


@pytest.mark.parametrize(
    ("request_", "providers", "expected"),
    [
        (Request(prompt="?"), [LOCAL, OPENAI], "there are several; configured: local, openai"),
        (Request(prompt="?", provider="x"), [LOCAL], "unknown provider 'x'; configured: local"),
        (Request(prompt="?"), [], "configured: none"),
        (Request(prompt="?", provider="two"), [LOCAL, TWO], "has several: a, b"),
        (Request(prompt="?"), [OPENAI], "takes any model name"),
    ],
)
def test_what_is_not_clear_is_asked_for_with_the_choices(
    request_: Request, providers: list[ProviderEntry], expected: str
) -> None:
    with pytest.raises(ValidationError, match=expected):
        payload_of(request_, providers)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_one_payload_may_be_in_any_encoding_of_json(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"prompt": "größe"}, ensure_ascii=False), encoding=encoding)
    assert read_payload(path) == {"prompt": "größe"}


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"{"])
def test_a_file_that_is_not_json_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(content)
    with pytest.raises(ValidationError, match=r"job\.json: is not JSON"):
        read_payload(path)
