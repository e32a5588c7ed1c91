"""The HTTP surface: the application alone over ASGI, and all of it over a real Serve."""
