"""A short-lived login for the plug-in in a browser: a signed token, bound to hospital, doctor and patient or lines.

The workstation's server asks for it with its own token (``POST /recognition/sessions``), and the page carries it as
Bearer. It holds no patient's data: a person by our internal number, lines by their id. It cannot be taken back before
it expires, so it lives for 15 minutes at most.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import orjson

from gateway.caller import Caller
from gateway.edges.http.exchange import Request
from gateway.errors import Category, GatewayError
from gateway.store.model import Line

if TYPE_CHECKING:
    from gateway.store import Store

#: Seconds for which a session lives at most.
LONGEST = 15 * 60
#: Lines that one session may name.
MOST_LINES = 50
_PREFIX = "hs1"  # without a dot: no JWT
#: What the plug-in does: it reads reminders and decides.
SCOPES = ("institution/DetectedIssue.crs",)
#: Where a session is a login.
PATHS = ("/recognition/", "/cds-services/")


@dataclass(frozen=True, slots=True)
class Session:
    """``person``: 0 for none; ``lines``: empty for none. With neither, the lines that the doctor ordered."""

    client: str
    institution: str
    doctor: str
    expires: int  # seconds since the epoch
    person: int = 0
    lines: tuple[str, ...] = ()

    @property
    def caller(self) -> Caller:
        """Who asks, for the service and the audit."""
        return Caller(f"{self.client}/plug-in", self.institution, SCOPES)

    def require_line(self, line: Line) -> None:
        """FORBIDDEN for a line that this session is not about."""
        if self.person or self.lines:
            allowed = line.id in self.lines or bool(self.person) and line.person == self.person
        else:
            allowed = line.body.get("doctor") == self.doctor
        if line.institution != self.institution or not allowed:
            raise GatewayError(Category.FORBIDDEN, "this session is about another patient; open one for this one",
                               "line")

    def require_person(self, person: int) -> None:
        """FORBIDDEN for another patient than the session's."""
        if self.person and person != self.person:
            raise GatewayError(Category.FORBIDDEN, "this session is about another patient; open one for this one",
                               "patient")

    def require_doctor(self, doctor: str) -> None:
        """FORBIDDEN for whoever is not the session's doctor."""
        if doctor != self.doctor:
            raise GatewayError(Category.FORBIDDEN, "this session is another doctor's; open one for this one", "doctor")


class Sessions:
    """Makes and reads the tokens of one database."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._secret = b""

    def open(self, session: Session) -> str:
        """The token of a session."""
        said = orjson.dumps([session.client, session.institution, session.doctor, session.expires, session.person,
                             session.lines])
        return f"{_PREFIX}~{_text(said)}~{_text(self._signature(said))}"

    def expiry(self, seconds: int) -> int:
        """When a session that is opened now ends."""
        return int(self._clock()) + min(seconds, LONGEST)

    def of(self, request: Request) -> Session | None:
        """The session of a request; None where another kind of login is sent. FORBIDDEN: forged, or over."""
        scheme, _, token = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token.startswith(f"{_PREFIX}~") or not request.path.startswith(PATHS):
            return None
        said, signature = _bytes(token.split("~"))
        if not said or not hmac.compare_digest(signature, self._signature(said)):
            raise GatewayError(Category.FORBIDDEN, "this session is not ours; open another", "Authorization",
                               detail="login")
        client, institution, doctor, expires, person, lines = orjson.loads(said)
        if expires <= self._clock():
            raise GatewayError(Category.FORBIDDEN, "this session is over; open another", "Authorization",
                               detail="login")
        return Session(client, institution, doctor, expires, person, tuple(lines))

    def _signature(self, said: bytes) -> bytes:
        self._secret = self._secret or self._store.secret("plug-in")
        return hmac.new(self._secret, said, sha256).digest()


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(parts: list[str]) -> tuple[bytes, bytes]:
    """What is said and its signature; empty where the token is no token."""
    if len(parts) != 3:
        return b"", b""
    try:
        said, signature = (urlsafe_b64decode(part.encode() + b"=" * (-len(part) % 4)) for part in parts[1:])
    except ValueError:
        return b"", b""
    return said, signature
