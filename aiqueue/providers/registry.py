"""From a configuration entry to a provider.

A provider's module, and with it its SDK or llama.cpp, is imported when the first one of its kind is opened: importing
all of them would cost each worker about two seconds and the queue actor too, which only needs ``job_types_of``.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiqueue.config import ProviderConfig, ProviderKind
from aiqueue.llama_config import ModelsConfig
from aiqueue.providers.base import Provider
from aiqueue.providers.features import FEATURES
from aiqueue.providers.remote import Credential

_NO_MODELS = ModelsConfig()


def open_provider(
    name: str, entry: ProviderConfig, environ: Mapping[str, str], models: ModelsConfig = _NO_MODELS
) -> Provider:
    """Return the provider that ``entry``, configured as ``name``, describes.

    Does no I/O: a missing key, model file or server is an error of each job (and of ``health_check``), so that a worker
    that serves several providers starts whatever the state of one of them. Keys are read from ``environ``, model
    files found through ``models``.
    """
    if entry.kind == "llama_cpp":
        from aiqueue.providers.llama_cpp import LlamaCppProvider

        return LlamaCppProvider(name, entry, models)
    if entry.kind == "simulated":
        from aiqueue.providers.simulated import SimulatedProvider

        return SimulatedProvider(name, entry)
    credential = credential_of(entry, environ)
    if entry.kind == "openai":
        from aiqueue.providers.openai import OpenAIProvider

        return OpenAIProvider(name, entry, credential)
    from aiqueue.providers.anthropic import AnthropicProvider

    return AnthropicProvider(name, entry, credential)


def job_types_of(kind: ProviderKind) -> tuple[str, ...]:
    """Return the job types that providers of ``kind`` serve."""
    return tuple(str(job_type) for job_type in FEATURES[kind])


def credential_of(entry: ProviderConfig, environ: Mapping[str, str]) -> Credential:
    """Return the key that ``entry`` calls for; one that ``environ`` lacks is None in it."""
    variable = entry.key_variable
    return Credential(environ.get(variable) or None, variable)
