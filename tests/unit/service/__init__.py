"""Tests of aiqueue.service."""
