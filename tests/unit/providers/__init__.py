"""Tests of ``aiqueue/providers``: the real SDKs against the simulated provider, the real llama.cpp on a tiny model."""
