"""Ray actors: thin shells around `aiqueue`."""
