"""Settings for tests in which many jobs fail, which would close their provider's gate."""

from __future__ import annotations

from aiqueue.config import Settings


def never_closed(config: Settings) -> Settings:
    """Return the settings with gates that no number of failures closes."""
    update = {"breaker_failures": 10**6, "breaker_window": 10**6}
    providers = {
        name: one.model_copy(update={"gate": one.gate.model_copy(update=update)})
        for name, one in config.providers.items()
    }
    return config.model_copy(update={"providers": providers})
