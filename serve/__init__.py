"""The HTTP front: a FastAPI application over the queue's client, and its Ray Serve deployment."""
