"""Tools that make what tests need."""
