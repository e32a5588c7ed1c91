"""Where accepted jobs and their ends are kept. Acknowledged means committed here."""
