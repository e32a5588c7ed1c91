"""From an entry to a provider, and which key it gets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aiqueue.config import ProviderConfig, ProviderKind
from aiqueue.errors import AuthenticationFailed
from aiqueue.providers.registry import credential_of, job_types_of, open_provider
from tests.unit.providers.conftest import CANARY, chat

OPENAI = ProviderConfig(kind="openai")
LOCAL = ProviderConfig(kind="openai", base_url="http://127.0.0.1:1/v1")


def test_the_kinds_default_variable_holds_the_key() -> None:
    assert credential_of(OPENAI, {"OPENAI_API_KEY": CANARY}).key == CANARY


def test_a_named_variable_replaces_the_default_one() -> None:
    entry = OPENAI.model_copy(update={"credential": "SECOND_ACCOUNT"})
    assert credential_of(entry, {"OPENAI_API_KEY": "wrong", "SECOND_ACCOUNT": CANARY}).key == CANARY


def test_another_server_does_not_get_the_accounts_key() -> None:
    assert credential_of(LOCAL, {"OPENAI_API_KEY": CANARY}).key is None


def test_a_credential_is_not_shown() -> None:
    assert CANARY not in repr(credential_of(OPENAI, {"OPENAI_API_KEY": CANARY}))


@pytest.mark.parametrize(("kind", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")])
@pytest.mark.parametrize("empty", [{}, {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": ""}])
async def test_a_missing_key_fails_the_job_and_names_the_variable(
    kind: ProviderKind, variable: str, empty: dict[str, str]
) -> None:
    provider = open_provider("cloud", ProviderConfig(kind=kind), empty)
    with pytest.raises(AuthenticationFailed, match=f"^Provider cloud: no API key: set {variable} in the environment"):
        await provider.run(chat())
    with pytest.raises(AuthenticationFailed, match=variable):
        await provider.health_check()


def test_job_types_are_known_per_kind() -> None:
    assert job_types_of("openai") == ("chat_completion", "text_completion", "embedding")
    assert job_types_of("anthropic") == ("chat_completion",)
    assert job_types_of("llama_cpp") == ("chat_completion", "text_completion", "embedding")


def test_importing_the_registry_imports_no_sdk() -> None:
    program = (
        "import sys, aiqueue.providers.registry as r; r.job_types_of('openai');"
        "print({'openai', 'anthropic', 'llama_cpp'} & sys.modules.keys())"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
