"""How many workers, which go, which are ill."""
