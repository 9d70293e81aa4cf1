"""Where a request really came from: ``Forwarded`` and ``X-Forwarded-*`` count only when a trusted proxy sent them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config import Settings, host_port
from gateway.errors import Category, GatewayError

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Origin:
    """The address of the one who asks, and the base of the links that we answer with."""

    peer: str
    base: str


class Proxies:
    """Reads ``HUREN_TRUSTED_PROXIES`` once: addresses and networks, separated by commas."""

    def __init__(self, settings: Settings) -> None:
        self._trusted: list[_Network] = []
        for text in filter(None, (part.strip() for part in settings.trusted_proxies.split(","))):
            try:
                self._trusted.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise GatewayError(Category.INVALID, "HUREN_TRUSTED_PROXIES must be addresses or networks such as "
                                   "10.0.0.7,192.168.1.0/24", "HUREN_TRUSTED_PROXIES") from None
        self._public = settings.public_url.rstrip("/")
        host, _ = host_port(settings.http)
        self._from_host = host in ("", "0.0.0.0", "::")  # bound to every address: the client knows which one it used
        self._base = settings.base_url

    def origin(self, environ: Mapping[str, Any]) -> Origin:
        """Peer and base of a request; ``HUREN_PUBLIC_URL`` wins over every header."""
        peer = environ.get("REMOTE_ADDR", "").removeprefix("::ffff:")
        if self._trusted and self._trusts(peer):
            return self._behind_proxy(environ, peer)
        if self._from_host and not self._public and (host := environ.get("HTTP_HOST", "")):
            return Origin(peer, f"http://{host}")
        return Origin(peer, self._base)

    def _trusts(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._trusted)

    def _behind_proxy(self, environ: Mapping[str, Any], peer: str) -> Origin:
        """The last address that no trusted proxy has, read from the right: what stands left of it may be invented."""
        hops = _forwarded(environ.get("HTTP_FORWARDED", ""))
        if hops:
            addresses = [hop.get("for", "") for hop in hops]
            scheme, host = hops[-1].get("proto", ""), hops[-1].get("host", "")
        else:
            addresses = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
            scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip()
            host = environ.get("HTTP_X_FORWARDED_HOST", "").rpartition(",")[2].strip()
        for address in reversed([_bare(a) for a in addresses]):
            if not address:
                break
            peer = address
            if not self._trusts(address):
                break
        if self._public or not host or not set(host) <= _HOST:
            return Origin(peer, self._base)
        return Origin(peer, f"{scheme if scheme in ('http', 'https') else 'http'}://{host}")


_HOST = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]")


def _forwarded(header: str) -> list[dict[str, str]]:
    """The hops of a Forwarded header, nearest proxy last (RFC 7239 4)."""
    hops = []
    for element in filter(None, (part.strip() for part in header.split(","))):
        pairs = (pair.partition("=") for pair in element.split(";"))
        hops.append({name.strip().lower(): value.strip().strip('"') for name, _, value in pairs})
    return hops


def _bare(address: str) -> str:
    """``[2001:db8::1]:80``, ``192.0.2.1:80`` → the address alone; empty when it is none (``unknown``, ``_hidden``)."""
    text = address.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
