"""Providers: everything that answers a job. ``registry.open_provider`` makes one from its configuration entry."""
