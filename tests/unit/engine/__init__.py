"""Tests of aiqueue.engine."""
