"""Properties that hold for every sequence of commands (hypothesis), without Ray."""
