"""What runs when nobody configured anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiqueue import presets
from aiqueue.config import PoolConfig, ProviderConfig, Settings
from aiqueue.presets import LOCAL_PROVIDER, complete, default_pools, default_providers


@pytest.fixture(autouse=True)
def no_demo_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a demo model that this environment may have."""
    monkeypatch.setattr(presets, "_DEMO_PACKAGE", "no_such_package")


def test_accounts_whose_keys_are_there_are_providers() -> None:
    assert default_providers({}) == {}
    found = default_providers({"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": ""})
    assert {name: entry.kind for name, entry in found.items()} == {"openai": "openai"}


def test_a_model_file_is_the_local_provider_under_its_own_name(tmp_path: Path) -> None:
    found = default_providers({}, tmp_path / "tiny-model.gguf")
    assert found[LOCAL_PROVIDER].models == ("tiny-model",)
    assert found[LOCAL_PROVIDER].model_path == tmp_path / "tiny-model.gguf"


def test_providers_behind_a_network_share_a_pool_and_a_model_has_its_own(tmp_path: Path) -> None:
    providers = default_providers({"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, tmp_path / "m.gguf")
    pools = default_pools(providers)
    assert {name: pool.providers for name, pool in pools.items()} == {
        "remote": ("openai", "anthropic"),
        "local": ("local",),
    }
    assert default_pools({}) == {}


def test_what_is_configured_is_left_alone() -> None:
    settings = Settings(
        providers={"mine": ProviderConfig(kind="simulated")}, pools={"p": PoolConfig(providers=("mine",), slots=3)}
    )
    assert complete(settings, {"OPENAI_API_KEY": "k"}) == settings


def test_providers_without_pools_get_them() -> None:
    settings = complete(Settings(providers={"mine": ProviderConfig(kind="simulated")}), {})
    assert settings.pool_of("mine") == "remote"
