"""Key sets of CDS clients (RFC 7517 5): fetched from an allowed ``jku`` and remembered, or read from a file."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.edges.http.cds_hooks.reading import body_of
from gateway.errors import Category, GatewayError
from gateway.fhir import json

#: Seconds: a set is fresh for, may still be used for, and is asked again for at most every (an unknown ``kid``).
FRESH, USABLE, PAUSE = 300.0, 3600.0, 60.0
#: Seconds after which a set that could not be had is asked for again.
RETRY = 5.0
#: Seconds that a fetch may take, and bytes that a set may have.
WAIT, SIZE = 2.0, 256 * 1024
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(slots=True)
class _Known:
    keys: dict[str, Any] = field(default_factory=dict)
    fetched: float = float("-inf")
    asked: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock)


class Keys:
    """Sets by URL. An old set is renewed beside the requests that use it; only the first of all waits."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()
        self._beside = ThreadPoolExecutor(1, "jwks")

    def of(self, url: str, kid: str) -> dict[str, Any]:
        """The set at an allowed URL; asked again where it has no key of this name. BUSY where it cannot be had."""
        with self._lock:
            known = self._known.setdefault(url, _Known())
        now = time.monotonic()
        age = now - known.fetched
        named = any(isinstance(key, dict) and key.get("kid") == kid for key in known.keys.get("keys", ()))
        if not named or age > USABLE:
            self._renew(url, known)
        elif age > FRESH and now - known.asked > PAUSE:
            self._beside.submit(self._renew, url, known)
        if time.monotonic() - known.fetched > USABLE:
            raise GatewayError(Category.BUSY, "the key set of the client's jku cannot be read now; try again", "jku")
        return known.keys

    def _renew(self, url: str, known: _Known) -> None:
        """Ask once, at most every ``PAUSE`` seconds, whoever wants it; what was known stays where nothing comes."""
        with known.lock:
            pause = PAUSE if known.fetched >= known.asked else RETRY
            if time.monotonic() - known.asked < pause:
                return
            known.asked = time.monotonic()
            keys = self._fetched(url)
            if keys is not None:
                known.keys, known.fetched = keys, time.monotonic()

    def _fetched(self, url: str) -> dict[str, Any] | None:
        raw = body_of(url, {"Accept": "application/json"}, SIZE, time.monotonic() + WAIT)
        try:
            return key_set(raw) if raw is not None else None
        except GatewayError:
            return None


def key_set(raw: bytes) -> dict[str, Any]:
    """A JWK Set; INVALID or MALFORMED where it is none."""
    found = json.loads(raw)
    if not isinstance(found.get("keys"), list):
        raise GatewayError(Category.INVALID, "a JWK Set is an object with a list of keys (RFC 7517 5)", "keys")
    return found


def key_file(path: Path) -> dict[str, Any]:
    """The JWK Set that a manifest's ``[cds_hooks] keys`` names; INVALID where it cannot be read."""
    place = f"{path.parent.name}/{path.name}"
    try:
        return key_set(path.read_bytes())
    except OSError as error:
        raise GatewayError(Category.INVALID, f"[cds_hooks] keys: {place} cannot be read ({error.strerror})",
                           "manifest.toml") from None
    except GatewayError as error:
        raise GatewayError(Category.INVALID, f"[cds_hooks] keys: {place}: {error.message}", "manifest.toml") from None


def usable_url(url: str, demo: bool, where: str) -> str:
    """The URL, when it is https, or http on this machine; INVALID otherwise. In the demo http is taken everywhere."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    secure = host is not None and (parts.scheme == "https" or (parts.scheme == "http" and (demo or host in _LOOPBACK)))
    if not secure or port == 0 or parts.username or parts.fragment:
        raise GatewayError(Category.INVALID, "must be an https URL (http only on this machine)", where)
    return url
