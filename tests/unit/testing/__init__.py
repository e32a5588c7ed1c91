"""Tests of ``aiqueue/testing``: what other tests stand on."""
