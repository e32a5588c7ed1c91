"""Calls to the queue actor, found by its name. Ray's errors become ours."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from aiqueue.client.calls import CALL_S, PATIENCE_S, QueueCalls
from aiqueue.errors import AIQueueError, IncompatibleVersion, QueueNotRunning, QueueSilent, QueueUnavailable

QUEUE_ACTOR_NAME = "aiqueue-queue-0"  #: the number is the shard


class RayTransport(QueueCalls):
    """The queue actor of ``namespace``. Needs an initialised Ray; finds the actor anew if it was replaced.

    ``patience_s``: for how long what is harmless twice is asked while there is no queue, or one that restarts.
    """

    def __init__(self, namespace: str, *, poll_limit_s: float = 60.0, patience_s: float = PATIENCE_S) -> None:
        super().__init__(poll_limit_s=poll_limit_s, patience_s=patience_s)
        self._namespace = namespace
        self._actor: Any = None
        self._search: asyncio.Future[Any] | None = None

    @property
    def namespace(self) -> str:
        """The Ray namespace of the queue."""
        return self._namespace

    async def _carry(self, method: str, *args: object, limit_s: float = CALL_S) -> Any:
        try:
            async with asyncio.timeout(limit_s):
                return await self._sent(await self._found(), method, args)
        except RayTaskError as error:  # first: Ray makes it an instance of its cause's class too, TimeoutError say
            if isinstance(error.cause, AIQueueError):
                raise error.cause from None
            # Not as it is: a caller that handles its own TimeoutError or OSError would take it for one.
            cause = type(error.cause or error).__name__
            raise AIQueueError(f"the queue failed on {method} ({cause}); its actor's log says where") from error
        except TimeoutError:
            raise QueueSilent(f"the queue did not answer {method} within {limit_s:g} s") from None
        except ActorUnavailableError as error:
            raise QueueUnavailable(f"the queue actor is restarting ({type(error).__name__})") from error
        except RayActorError as error:
            self._actor = None
            raise QueueUnavailable(f"the queue actor is gone or restarting ({type(error).__name__})") from error
        except RayError as error:
            self._actor = None  # unless Ray says that the actor is still there, another may have its name
            raise QueueUnavailable(f"Ray could not carry the call {method}: {type(error).__name__}") from error

    @staticmethod
    def _sent(actor: Any, method: str, args: tuple[object, ...]) -> Any:
        try:
            return getattr(actor, method).remote(*args)
        except (AttributeError, TypeError) as error:  # Ray compares a call with the actor's class before it sends it
            raise IncompatibleVersion(
                f"the queue has no call {method} as this process makes it: one of the two is of an older release. "
                "Install the queue's release here, or upgrade the queue (`aiqueue down`, then `aiqueue up`)"
            ) from error

    async def _found(self) -> Any:
        """Return the actor's handle. Ray looks for it in a thread: while its control process is away, that takes long.

        One search for all calls: those that wait no longer leave it to the next ones.
        """
        if self._actor is None:
            if self._search is None:
                self._search = asyncio.ensure_future(asyncio.to_thread(self._look_up))
                self._search.add_done_callback(self._searched)
            self._actor = await asyncio.shield(self._search)
        return self._actor

    def _searched(self, search: asyncio.Future[Any]) -> None:
        self._search = None
        if not search.cancelled():
            search.exception()  # seen: all who asked may have gone

    def _look_up(self) -> Any:
        try:
            return ray.get_actor(QUEUE_ACTOR_NAME, namespace=self._namespace)
        except ValueError:
            raise QueueNotRunning(
                f"no queue is running in the Ray namespace {self._namespace!r}; start one with `aiqueue up`"
            ) from None
