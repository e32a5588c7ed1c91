"""Tests without Ray, one file for each file of ``aiqueue/``."""
