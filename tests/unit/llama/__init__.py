"""Tests of ``aiqueue/llama``."""
