"""One GET of a foreign server: its body within a size and a time, or nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx


def body_of(client: httpx.Client, url: str, headers: Mapping[str, str], size: int, until: float) -> bytes | None:
    """The body of a 200; None for any other status, a failure, more than ``size`` bytes or later than ``until``
    (`time.monotonic`). It is asked for uncompressed, so that a small answer cannot become a large one."""
    left = until - time.monotonic()
    if left <= 0:
        return None
    try:
        with client.stream("GET", url, headers={**headers, "Accept-Encoding": "identity"}, timeout=left) as response:
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
