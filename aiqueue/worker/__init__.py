"""What a worker does, without Ray: fetch claims, run them on providers, report outcomes."""
