"""Tests of aiqueue.worker."""
