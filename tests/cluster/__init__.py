"""The whole system on a real Ray."""
