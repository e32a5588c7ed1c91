"""Who a request comes from, as far as its headers tell: idempotency keys of one caller do not meet another's."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

from aiqueue import texts
from aiqueue.client.headers import DEFAULT_SCOPE

KEY_TAKEN = "The idempotency key was used with another body."
KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "a second request with this key and the same body is the first one, for 24 hours; a key is its "
    "caller's, who is told apart by `Authorization` (of a Basic login the user name) or `X-API-Key`",
    "schema": {"type": "string", "minLength": 1, "maxLength": texts.IDEMPOTENCY_KEY.most, "pattern": texts.PATTERN},
}
RETRY_KEY_PARAMETER = KEY_PARAMETER | {
    "description": "a second request with this key has the first one's answer, until the queue is restarted",
}
_IDENTIFIES = ("authorization", "x-api-key")  # the first that is there


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request carries. Raises ValidationError for one that is none."""
    key = headers.get("idempotency-key")
    return None if key is None else texts.IDEMPOTENCY_KEY.check("Idempotency-Key", key)


def caller_scope(headers: Mapping[str, str]) -> str:
    """Return a name for the caller, which is kept beside its keys: a hash, so that no secret is.

    Of a Basic login the user name alone counts, so a changed password is the same caller. Without any of the headers
    all callers are one, whom programs that use the Python client belong to as well.
    """
    for name in _IDENTIFIES:
        if value := headers.get(name, "").strip():
            return hashlib.blake2b(f"{name} {_user_of(value)}".encode(), digest_size=12).hexdigest()
    return DEFAULT_SCOPE


def _user_of(value: str) -> str:
    """Return the user's name of a Basic login, or all of another value."""
    scheme, _, login = value.partition(" ")
    if scheme.lower() != "basic":
        return value
    try:
        user, _, _ = base64.b64decode(login.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return value
    return f"basic {user.hex()}"
