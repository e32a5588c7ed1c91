"""The orchestrator over a queue on the same event loop, without Ray."""
