"""The queue as a service on one event loop: the engine, its journal, the event log, and who waits for what.

No Ray here: `actors.queue_actor` puts it into an actor, tests call it directly.
"""
