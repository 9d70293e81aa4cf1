"""Who calls: the CDS client's signed JWT ("Trusting CDS Clients"), or a token of `huren client add`.

A manifest's ``[cds_hooks]`` says whom a hospital trusts: ``issuers`` (claim ``iss``), ``jku`` (addresses of key sets
that may be fetched, and no other) or ``keys`` (a file with a key set in the hospital's folder). Every refusal is a 401
with a sentence that says what is wrong.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import jwt

from gateway.adapter import Adapter
from gateway.caller import Caller
from gateway.config import Settings
from gateway.edges.http.cds_hooks.keys import Keys, key_file, usable_url
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.store import Store

#: What may sign ("JWT Signing Algorithm": ES384 and RS384 are recommended, ``none`` and symmetric ones forbidden).
ALGORITHMS = ("ES384", "RS384", "ES256", "RS256")
#: Seconds by which clocks may differ; the longest life of a token that is remembered against replay.
SKEW = 60
LONGEST = 3600
MAX_TOKEN = 16 * 1024
#: What a hospital's workstation may do: see reminders of its own orders, and decide them.
SCOPES = ("institution/DetectedIssue.rc",)
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class _Trust:
    """What a hospital's manifest says of its workstations."""

    institution: str
    jku: tuple[str, ...]
    keys: Mapping[str, Any]


class Clients:
    """See the module. One per process; the use of a ``jti`` is remembered in the store, for all processes."""

    def __init__(self, settings: Settings, store: Store, adapters: Iterable[Adapter], keys: Keys | None = None) -> None:
        self._store = store
        self._base = settings.base_url
        self._trusted = trusted(adapters, settings.demo)
        self._keys = keys or Keys()

    def caller_of(self, token: str, path: str) -> Caller:
        """Who sent a JWT to one of our paths; FORBIDDEN (detail ``login``) says why it is not taken."""
        header, claims = _unverified(token)
        _check_header(header)
        trust = self._trusted.get(claims["iss"]) if isinstance(claims.get("iss"), str) else None
        if trust is None:
            raise _refused("iss is not known here; add it to [cds_hooks] issuers of the hospital's manifest.toml")
        self._verify(token, header, trust)
        now = time.time()
        _check_times(claims, now)
        self._check_audience(claims.get("aud"), path)
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= 256:
            raise _refused("jti must be a text of 1 to 256 characters, another one in each token")
        expires = int((claims["exp"] + SKEW) * 1_000_000)
        if not self._store.use_once("jti", f"{claims['iss']}|{jti}", expires):
            raise _refused("this token was used before (jti); sign a new one for each request")
        return Caller(claims["iss"], trust.institution, SCOPES)

    def _verify(self, token: str, header: dict[str, Any], trust: _Trust) -> None:
        """The signature, by a key of the hospital; nothing of the token is believed before."""
        try:
            jwt.api_jws.decode_complete(token, self._key(header, trust), algorithms=[header["alg"]])
        except jwt.PyJWTError:
            raise _refused("the signature is not one of the key that kid names; sign with that key") from None

    def _key(self, header: dict[str, Any], trust: _Trust) -> jwt.PyJWK:
        """The key that ``kid`` names, in the hospital's file or in the key set of an allowed ``jku``."""
        kid, alg, jku = header["kid"], header["alg"], header.get("jku")
        if found := key_in(trust.keys, kid, alg):
            return found
        if jku is not None and trust.jku and jku not in trust.jku:
            raise _refused("jku is not in [cds_hooks] jku of the hospital's manifest.toml")
        allowed: tuple[str, ...] = (jku,) if jku is not None and trust.jku else trust.jku
        for url in allowed:
            if found := key_in(self._keys.of(url, kid), kid, alg):
                return found
        raise _refused(f"no key of this kid for {alg} is known of the issuer; publish it at its jku, or add it to the "
                       "[cds_hooks] keys of the hospital's manifest.toml")

    def _check_audience(self, audience: Any, path: str) -> None:
        """``aud`` is the URL of the service; that of the whole of our services, and the base, are taken too."""
        named = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
        parts = path.strip("/").split("/")
        ours = {self._base, *(f"{self._base}/{'/'.join(parts[:n])}" for n in range(1, len(parts) + 1))}
        if not any(isinstance(one, str) and one.rstrip("/") in ours for one in named):
            raise _refused(f"aud must be the URL of the service that is called, {self._base}/{'/'.join(parts)}; set "
                           "HUREN_PUBLIC_URL where clients see another address")


def trusted(adapters: Iterable[Adapter], demo: bool) -> dict[str, _Trust]:
    """By issuer, what the manifests say of it; INVALID names the manifest that cannot be followed."""
    found: dict[str, _Trust] = {}
    for adapter in adapters:
        said = adapter.cds_hooks
        for url in said.get("jku", ()):
            usable_url(url, demo, f"{adapter.name}/manifest.toml [cds_hooks] jku")
        own = key_file(adapter.folder / said["keys"]) if said.get("keys") else {}
        trust = _Trust(adapter.source.institution, tuple(said.get("jku", ())), own)
        for issuer in said.get("issuers", ()):
            if issuer in found:
                raise GatewayError(Category.INVALID, f"[cds_hooks] issuers of {adapter.name} names an issuer of "
                                   "another hospital; one issuer speaks for one hospital", "manifest.toml")
            found[issuer] = trust
    return found


def is_jwt(token: str) -> bool:
    """Whether a bearer token has the form of a signed JWT; those of `huren client add` have no dots."""
    return _JWT(token) is not None


def key_in(keys: Mapping[str, Any], kid: str, alg: str) -> jwt.PyJWK | None:
    """The public key of this name in a JWK Set, when it is one for this algorithm (RFC 7517 4, RFC 7518 3)."""
    for key in keys.get("keys", ()):
        if not isinstance(key, dict) or key.get("kid") != kid or key.get("use", "sig") != "sig":
            continue
        if key.get("alg", alg) != alg or (key.get("kty"), key.get("crv")) != _FITS[alg]:
            continue
        public = {name: value for name, value in key.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
        try:
            found = jwt.PyJWK(public, algorithm=alg)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError):
            continue
        if key["kty"] == "EC" or getattr(found.key, "key_size", 0) >= 2048:  # RFC 7518 3.3
            return found
    return None


#: Key type and curve that an algorithm needs.
_FITS: dict[str, tuple[str, str | None]] = {"ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"),
                                            "RS256": ("RSA", None), "RS384": ("RSA", None)}


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims as they are written: only to find the key with which they are then verified."""
    if len(token) > MAX_TOKEN:
        raise _refused(f"the token is longer than {MAX_TOKEN} characters")
    try:
        header, claims = (json.loads(base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True))
                          for part in token.split(".")[:2])
    except (GatewayError, ValueError):
        raise _refused("the token is no JWT: header and payload must be JSON objects in base64url (RFC 7519 7.2)"
                       ) from None
    return header, claims


def _check_header(header: dict[str, Any]) -> None:
    if header.get("alg") not in ALGORITHMS:
        raise _refused(f"alg must be one of {', '.join(ALGORITHMS)}; unsigned and symmetric tokens are refused")
    if "crit" in header:  # RFC 7515 4.1.11: an extension that is critical and not understood
        raise _refused("crit names extensions that are not understood here; sign without them")
    if not isinstance(header.get("typ"), str) or header["typ"].upper() != "JWT":
        raise _refused("typ must be JWT")
    if not isinstance(header.get("kid"), str) or not header["kid"]:
        raise _refused("kid must name the key that signed")
    if "jku" in header and not isinstance(header["jku"], str):
        raise _refused("jku must be the URL of a key set")


def _check_times(claims: dict[str, Any], now: float) -> None:
    """``exp`` and ``iat`` with `SKEW` of tolerance; a ``jti`` can be remembered for `LONGEST` only."""
    for name in ("exp", "iat"):
        value = claims.get(name)
        if not _is_number(value):
            raise _refused(f"{name} must be a number of seconds since 1970-01-01T00:00:00Z")
    if claims["exp"] <= now - SKEW:
        raise _refused("the token has expired (exp); sign a new one for each request")
    if claims["exp"] > now + LONGEST + SKEW:
        raise _refused(f"exp lies more than {LONGEST} seconds ahead; sign a new token for each request")
    if claims["iat"] > now + SKEW:
        raise _refused("iat lies in the future; set the client's clock")
    if "nbf" in claims and not (_is_number(claims["nbf"]) and claims["nbf"] <= now + SKEW):
        raise _refused("the token is not valid yet (nbf)")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _refused(sentence: str) -> GatewayError:
    return GatewayError(Category.FORBIDDEN, sentence, "Authorization", detail="login")
