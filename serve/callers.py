"""Who a request comes from, as far as its headers tell: idempotency keys of one caller do not meet another's.

Headers are bytes. A key is UTF-8, as in a body, so that a key sent either way is the same key. Clients differ: curl and
aiohttp send UTF-8, requests and ``fetch`` send Latin-1, httpx sends no text but ASCII. Latin-1 is refused and not
guessed: a wrong guess would be another key, and make a second job.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from starlette.datastructures import Headers

from aiqueue import texts
from aiqueue.client.headers import DEFAULT_SCOPE
from aiqueue.errors import FieldError, ValidationError

KEY_TAKEN = "The idempotency key was used with another body."
KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "a second request with this key and the same body is the first one, for 24 hours; a key is its "
    "caller's, who is told apart by `Authorization` (of a Basic login the user name) or `X-API-Key`. Its bytes are "
    "UTF-8, so it is the same key as in a body; other bytes, and two different keys, are refused (400)",
    "schema": {"type": "string", "minLength": 1, "maxLength": texts.IDEMPOTENCY_KEY.most, "pattern": texts.PATTERN},
}
RETRY_KEY_PARAMETER = KEY_PARAMETER | {
    "description": "a second request with this key has the first one's answer, until the queue is restarted. Its bytes "
    "are UTF-8; other bytes, and two different keys, are refused (400)",
}
_IDENTIFIES = ("Authorization", "X-API-Key")  # the first that is there


def idempotency_key(headers: Headers) -> str | None:
    """Return the key that a request carries, None without one. Raises ValidationError for a bad one, and for two."""
    value = only_value(headers, "Idempotency-Key")
    if value is None:
        return None
    try:
        key = value.encode("latin-1").decode()  # Starlette reads the bytes of headers as Latin-1
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 at byte {error.start}: encode the key as UTF-8, or use ASCII characters only"
        raise ValidationError([FieldError("Idempotency-Key", message)]) from None
    return texts.IDEMPOTENCY_KEY.check("Idempotency-Key", key)


def caller_scope(headers: Headers) -> str:
    """Return a name for the caller, which is kept beside its keys: a hash, so that no secret is.

    Of a Basic login the user name alone counts, so a changed password is the same caller. Without any of the headers
    all callers are one, whom programs that use the Python client belong to as well.
    Raises ValidationError for a request that names two callers.
    """
    for name in _IDENTIFIES:
        if value := (only_value(headers, name) or "").strip():
            return hashlib.blake2b(f"{name.lower()} {_user_of(value)}".encode(), digest_size=12).hexdigest()
    return DEFAULT_SCOPE


def only_value(headers: Headers, name: str) -> str | None:
    """Return the value of a header that may be there once, or repeated unchanged. Raises ValidationError for two."""
    values = set(headers.getlist(name))
    if len(values) > 1:
        raise ValidationError([FieldError(name, f"is there with {len(values)} different values: send one of them")])
    return next(iter(values), None)


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
