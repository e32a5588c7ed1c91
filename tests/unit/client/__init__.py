"""Tests of aiqueue.client."""
