"""Who may use the HTTP paths: bearer tokens, kept only as digests."""

from __future__ import annotations

import secrets
import threading
import time
from hashlib import sha256

from gateway.caller import Caller, check_scope
from gateway.errors import Category, GatewayError
from gateway.store.database import Reader, Transaction
from gateway.store.model import Client

#: Seconds for which a look-up is remembered: a revoked token works at most so long in a process that saw it.
REMEMBERED = 3.0
_CACHED = 10_000


def check(name: str, scopes: tuple[str, ...]) -> None:
    """INVALID where a name or scope cannot be."""
    if not name.strip() or len(name) > 200:
        raise GatewayError(Category.INVALID, "give the client a name of 1 to 200 characters", "name")
    for scope in scopes:
        check_scope(scope)


def new_token() -> str:
    """A bearer token of 256 random bits, to be shown once."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """What is kept of a token; it has too much entropy to be guessed from this."""
    return sha256(token.encode()).digest()


def add(transaction: Transaction, client: Client, token: bytes) -> None:
    """CONFLICT when the name is taken by a client that is not revoked."""
    row = transaction.one("SELECT revoked FROM client WHERE name = ?", (client.name,))
    if row is not None and row[0] is None:
        raise GatewayError(Category.CONFLICT, "a client of this name exists: revoke it or take another name", "name")
    transaction.run("DELETE FROM client WHERE name = ?", (client.name,))
    transaction.insert("client", ("name", "institution", "scopes", "token", "created", "revoked"),
                       [(client.name, client.institution, " ".join(client.scopes), token, client.created, None)])


def revoke(transaction: Transaction, name: str, now: int) -> bool:
    """Whether there was one to revoke."""
    return transaction.run("UPDATE client SET revoked = ? WHERE name = ? AND revoked IS NULL", (now, name)) > 0


def listed(reader: Reader) -> list[Client]:
    """All, by name."""
    found = reader.all("SELECT name, institution, scopes, created, revoked FROM client ORDER BY name")
    return [Client(name, institution, tuple(scopes.split()), created, revoked)
            for name, institution, scopes, created, revoked in found]


class Tokens:
    """Look-ups, remembered for ``REMEMBERED`` seconds."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[float, Caller | None]] = {}
        self._lock = threading.Lock()

    def of(self, reader: Reader, token: bytes) -> Caller | None:
        """Who carries the token of this digest."""
        row = reader.one("SELECT name, institution, scopes FROM client WHERE token = ? AND revoked IS NULL", (token,))
        caller = Caller(row[0], row[1], tuple(row[2].split())) if row else None
        with self._lock:
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[token] = (time.monotonic() + REMEMBERED, caller)
        return caller

    def remembered(self, token: bytes) -> tuple[bool, Caller | None]:
        """Whether the answer is still known, and the answer."""
        until, caller = self._known.get(token, (0.0, None))
        return until > time.monotonic(), caller

    def forget(self) -> None:
        """After a change in this process."""
        with self._lock:
            self._known.clear()
