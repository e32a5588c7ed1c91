"""What checks the rules of ``tests/test_house_rules.py`` and ``tests/test_project_files.py``."""
