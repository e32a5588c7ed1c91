"""What the house rules are checked with; the rules are in ``tests/test_house_rules.py``."""
