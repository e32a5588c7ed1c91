"""Everything that is tested without a person; `make test` runs it."""
