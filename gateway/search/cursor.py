"""Cursors of pages: where the page before ended, signed, bound to the query that it belongs to."""

from __future__ import annotations

import base64
import hmac
import struct
from typing import Any

import orjson

from gateway.search.plan import Key
from gateway.search.query import invalid

_SIGNATURE = 16


def seal(secret: bytes, query: str, key: Key) -> str:
    """A cursor: base64url of signature and content."""
    values, person, pk = key
    content = orjson.dumps([[_packed(value) for value in values], person, pk])
    return base64.urlsafe_b64encode(_sign(secret, query, content) + content).rstrip(b"=").decode()


def opened(secret: bytes, query: str, cursor: str) -> Key:
    """INVALID when we did not make the cursor for this very query."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        signature, content = raw[:_SIGNATURE], raw[_SIGNATURE:]
    except ValueError:
        signature = content = b""
    if not hmac.compare_digest(signature, _sign(secret, query, content)):
        raise invalid("this page does not belong to this query; follow the next link as it was given", "_cursor")
    values, person, pk = orjson.loads(content)
    return tuple(_unpacked(value) for value in values), person, pk


def _sign(secret: bytes, query: str, content: bytes) -> bytes:
    return hmac.digest(secret, query.encode() + b"\0" + content, "sha256")[:_SIGNATURE]


def _packed(value: Any) -> Any:
    if isinstance(value, float):  # also an infinite one, which JSON cannot say
        return {"f": struct.pack(">d", value).hex()}
    if isinstance(value, (bytes, memoryview)):
        return {"b": bytes(value).hex()}
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        [(kind, text)] = value.items()
        raw = bytes.fromhex(text)
        return struct.unpack(">d", raw)[0] if kind == "f" else raw
    return value
