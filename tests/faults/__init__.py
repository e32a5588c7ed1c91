"""Faults of the machine, injected for real: disks that fill up, fail or are slow, and processes that are not alone."""
