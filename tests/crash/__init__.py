"""Faults, injected for real: processes are killed while jobs run."""
