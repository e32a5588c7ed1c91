"""The notebooks, run as their readers run them."""
