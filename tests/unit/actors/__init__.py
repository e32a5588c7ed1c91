"""Tests of actors, without Ray."""
