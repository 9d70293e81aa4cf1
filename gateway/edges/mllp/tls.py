"""TLS for MLLP: who a sender is by its certificate; files that change are read again without a restart."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import threading
from pathlib import Path
from typing import Any

from gateway.config import Settings
from gateway.errors import Category, GatewayError

log = logging.getLogger("huren.mllp")

_NAMED = ("DNS", "URI", "email", "IP Address")


class ServerTls:
    """The listener's side. ``context()`` is made anew when one of the files has changed; a broken one changes nothing.

    With HUREN_MLLP_TLS_CA each sender must show a certificate that one of these authorities has signed.
    """

    def __init__(self, settings: Settings) -> None:
        self._certificate, self._key = settings.mllp_tls_cert, settings.mllp_tls_key
        self._authorities = settings.mllp_tls_ca
        self._lock = threading.Lock()
        self._stamp = self._stamped()
        self._context = self._made()

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        with self._lock:
            if (stamp := self._stamped()) != self._stamp:
                self._stamp = stamp
                try:
                    self._context = self._made()
                    log.info("mllp tls outcome=reloaded")
                except GatewayError as error:
                    log.error("mllp tls outcome=kept-old reason=%s where=%s", error.message, error.where)
            return self._context

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load_chain(context, self._certificate, self._key, "HUREN_MLLP_TLS_CERT", "HUREN_MLLP_TLS_KEY")
        if self._authorities:
            context.verify_mode = ssl.CERT_REQUIRED
            _load_authorities(context, self._authorities, "HUREN_MLLP_TLS_CA")
        return context

    def _stamped(self) -> tuple[object, ...]:
        return tuple(_stamp(name) for name in (self._certificate, self._key, self._authorities) if name)


def client_context(authorities: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """A sender's side: it checks the receiver's name against ``authorities``, or the system's."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load_authorities(context, authorities, "--ca")
    if certificate:
        _load_chain(context, certificate, key, "--cert", "--key")
    return context


def names_of(connection: ssl.SSLSocket) -> frozenset[str]:
    """What the peer's certificate is called: common names, alternative names and SHA-256 fingerprint; empty: none."""
    encoded = connection.getpeercert(binary_form=True)
    told: Any = connection.getpeercert()
    if not encoded or not told:  # none shown, or none that was verified
        return frozenset()
    names = {"sha256:" + hashlib.sha256(encoded).hexdigest()}
    names.update(value for part in told.get("subject", ()) for kind, value in part if kind == "commonName")
    names.update(value for kind, value in told.get("subjectAltName", ()) if kind in _NAMED)
    return frozenset(names)


def _load_chain(context: ssl.SSLContext, certificate: str, key: str, setting: str, key_setting: str) -> None:
    for name, where in ((certificate, setting), (key, key_setting)):
        if name:
            _require_readable(name, where)
    try:
        # A password is asked for on a terminal that a server has not: say so instead.
        context.load_cert_chain(certificate, key or None, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise GatewayError(Category.INVALID, f"{setting} and {key_setting} must be a PEM certificate chain and its "
                           f"private key without a password ({_reason(error)})", setting) from None


def _load_authorities(context: ssl.SSLContext, name: str, where: str) -> None:
    _require_readable(name, where)
    try:
        context.load_verify_locations(name)
    except (ssl.SSLError, ValueError) as error:
        raise GatewayError(Category.INVALID, f"{where} must be a file of PEM certificates ({_reason(error)})",
                           where) from None


def _require_readable(name: str, where: str) -> None:
    try:
        with Path(name).open("rb"):
            pass
    except OSError as error:
        raise GatewayError(Category.INVALID, f"{where}: {name}: {error.strerror}; name a file that this user may read",
                           where) from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__


def _stamp(name: str) -> tuple[int, int, int]:
    try:
        found = os.stat(name)
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
