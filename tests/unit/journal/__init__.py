"""Tests of aiqueue.journal."""
