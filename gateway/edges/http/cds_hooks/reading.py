"""One GET of a foreign server: its body within a size and a time, or nothing."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from functools import cache

import httpx


@cache
def client() -> httpx.Client:
    """The pool of connections that all requests of this process share, made when the first is sent.

    The system's certificates are trusted; no redirect is followed, no proxy of the environment is used.
    """
    return httpx.Client(trust_env=False, follow_redirects=False, verify=ssl.create_default_context(),
                        limits=httpx.Limits(max_connections=64, max_keepalive_connections=16))


def body_of(url: str, headers: Mapping[str, str], size: int, until: float) -> bytes | None:
    """The body of a 200; None for any other status, a failure, more than ``size`` bytes or later than ``until``
    (`time.monotonic`). It is asked for uncompressed, so that a small answer cannot become a large one."""
    left = until - time.monotonic()
    if left <= 0:
        return None
    try:
        with client().stream("GET", url, headers={**headers, "Accept-Encoding": "identity"}, timeout=left) as response:
            if response.status_code != 200 or response.headers.get("Content-Encoding", "identity") != "identity":
                return None
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > size or time.monotonic() > until:
                    return None
        return bytes(body)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return None
