"""Who calls: JWTs of CDS clients with real keys, and everything that must not pass ("Trusting CDS Clients")."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as rules
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from gateway.adapter import load_all
from gateway.config import Settings
from gateway.edges.http import cds_hooks, create_app
from gateway.edges.http.cds_hooks import keys
from gateway.edges.http.cds_hooks.clients import Clients, is_jwt
from gateway.errors import Category, GatewayError
from gateway.store import Store, open_store
from tests.cds_samples import Key, Server, call, claims, server

BASE = "https://huren.example"
DISCOVERY = f"{BASE}/cds-services"
SERVICE = f"{DISCOVERY}/recognition"
ISSUER = "https://his.example/"


@pytest.fixture
def database_url() -> str:
    """SQLite is enough here: `test_store_ledger` holds on both what is used once."""
    return ""


@pytest.fixture(scope="module")
def key() -> Key:
    """The workstation's key."""
    return Key()


@pytest.fixture
def jwks(key: Key) -> Iterator[Server]:
    """The workstation's key set, at its ``jku``."""
    with server() as found:
        found.serve("/jwks", {"keys": [key.public()]})
        yield found


def hospital(folder: Path, said: str, name: str = "h1", **files: Any) -> Path:
    """A hospital folder with this ``[cds_hooks]``."""
    own = folder / name
    own.mkdir(parents=True)
    (own / "manifest.toml").write_text(f'[institution]\nid = "{name}"\nname = "{name}"\ncode_system = "urn:{name}"\n'
                                       f"[cds_hooks]\n{said}\n")
    for file, content in files.items():
        (own / f"{file}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def own_settings(settings: Settings, tmp_path: Path, jwks: Server) -> Settings:
    """A gateway that asks for a login, and one hospital that trusts the issuer by its key set's address."""
    folder = hospital(tmp_path / "hospitals", f'issuers = ["{ISSUER}"]\njku = ["{jwks.base}/jwks"]')
    return replace(settings, adapters=str(folder), public_url=BASE)


@pytest.fixture
def client(own_settings: Settings, store: Store) -> FlaskClient:
    return create_app(own_settings, store).test_client()


def ask(client: FlaskClient, token: str) -> TestResponse:
    """Discovery with a token."""
    return client.get("/cds-services", headers={"Authorization": f"Bearer {token}"})


def refusal(response: TestResponse) -> str:
    """The sentence of a 401."""
    assert response.status_code == 401 and "invalid_token" in response.headers["WWW-Authenticate"]
    return str(response.json["issue"][0]["diagnostics"])  # type: ignore[index]


def by_hand(header: dict[str, Any], payload: dict[str, Any] | bytes, sign: Any = None) -> str:
    """A token that no library would make."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    parts = [base64.urlsafe_b64encode(one).rstrip(b"=") for one in (json.dumps(header).encode(), body)]
    signed = sign(b".".join(parts)) if sign else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signed).rstrip(b"=")]).decode()


# ---------------------------------------------------------------- what passes

@pytest.mark.parametrize("alg", ["ES384", "RS384", "ES256", "RS256"])
def test_a_signed_token_is_taken(alg: str, own_settings: Settings, store: Store, jwks: Server) -> None:
    """Both recommended algorithms and their shorter brothers; the key is found at the allowed address."""
    own = Key(alg)
    jwks.serve("/jwks", {"keys": [own.public()]})
    client = create_app(own_settings, store).test_client()
    assert ask(client, own.sign(claims(DISCOVERY), jku=f"{jwks.base}/jwks")).status_code == 200
    assert ask(client, own.sign(claims([DISCOVERY]))).status_code == 200  # jku is optional: known out of band


@pytest.mark.parametrize("audience", [SERVICE, [SERVICE], DISCOVERY, BASE, f"{BASE}/",
                                      ["https://other.example", SERVICE]])
def test_the_audience_is_the_service_or_what_holds_it(client: FlaskClient, key: Key, audience: Any) -> None:
    """The URL of the service, of all our services or the base; alone or in a list."""
    answer = client.post("/cds-services/recognition", json={}, headers={
        "Authorization": f"Bearer {key.sign(claims(audience))}"})
    assert answer.status_code == 400  # past the login: the body says nothing


def test_the_caller_acts_for_the_hospital_of_the_issuer(own_settings: Settings, store: Store, key: Key) -> None:
    """``iss`` leads to the hospital; ``tenant`` is the client's own affair."""
    clients = Clients(own_settings, store, load_all(own_settings.adapter_folders).all)
    caller = clients.caller_of(key.sign(claims(SERVICE, tenant="another")), "/cds-services/recognition")
    assert (caller.name, caller.institution) == (ISSUER, "h1")
    assert caller.may("c", "DetectedIssue") and caller.sees("DetectedIssue") == "h1"
    assert not caller.may("r", "Patient")


def test_a_key_file_needs_no_network(settings: Settings, store: Store, tmp_path: Path, key: Key, jwks: Server) -> None:
    """A hospital without an address for its keys puts them into its folder; a ``jku`` is then not even asked."""
    folder = hospital(tmp_path / "hospitals", f'issuers = ["{ISSUER}"]\nkeys = "keys.json"',
                      keys={"keys": [key.public()]})
    client = create_app(replace(settings, adapters=str(folder), public_url=BASE), store).test_client()
    assert ask(client, key.sign(claims(DISCOVERY))).status_code == 200
    assert ask(client, key.sign(claims(DISCOVERY), jku=f"{jwks.base}/jwks")).status_code == 200
    assert jwks.asked == []


def test_clocks_may_differ_by_a_minute(client: FlaskClient, key: Key) -> None:
    """A client whose clock is 50 seconds off is let in, one that is two minutes off is told."""
    now = int(time.time())
    assert ask(client, key.sign(claims(DISCOVERY, exp=now - 50, iat=now - 350))).status_code == 200
    assert ask(client, key.sign(claims(DISCOVERY, iat=now + 50))).status_code == 200
    assert ask(client, key.sign(claims(DISCOVERY, exp=now + 20.5))).status_code == 200  # NumericDate (RFC 7519 2)
    assert "expired" in refusal(ask(client, key.sign(claims(DISCOVERY, exp=now - 120))))
    assert "future" in refusal(ask(client, key.sign(claims(DISCOVERY, iat=now + 120))))


def test_a_token_of_ours_is_taken_too(client: FlaskClient, store: Store) -> None:
    """`huren client add --institution`: no JWT needed."""
    token = store.client_add("his", "h1", ("institution/DetectedIssue.rc",))
    assert not is_jwt(token)
    assert ask(client, token).status_code == 200
    assert client.post("/cds-services/recognition", json=call(), headers={
        "Authorization": f"Bearer {store.client_add('nobody', None, ('system/*.rs',))}"}).status_code == 403


# ---------------------------------------------------------------- what does not

def test_without_a_login_there_is_nothing(client: FlaskClient) -> None:
    """Discovery, the call and feedback: each needs a client ("for every single CDS Service call")."""
    assert client.get("/cds-services").status_code == 401
    assert client.post("/cds-services/recognition", json=call()).status_code == 401
    assert client.post("/cds-services/recognition/feedback", json={}).status_code == 401


def test_a_token_is_used_once(client: FlaskClient, key: Key) -> None:
    """``jti`` protects against replay: a second use is refused, another token with the same ``jti`` as well."""
    token = key.sign(claims(DISCOVERY, jti="one"))
    assert ask(client, token).status_code == 200
    assert "used before" in refusal(ask(client, token))
    assert "used before" in refusal(ask(client, key.sign(claims(DISCOVERY, jti="one", exp=int(time.time()) + 100))))


def test_a_token_is_used_once_by_all_processes(own_settings: Settings, store: Store, key: Key) -> None:
    """Another process over the same database knows what was used."""
    token = key.sign(claims(DISCOVERY))
    assert ask(create_app(own_settings, store).test_client(), token).status_code == 200
    other = open_store(own_settings)
    try:
        assert "used before" in refusal(ask(create_app(own_settings, other).test_client(), token))
    finally:
        other.close()


def test_a_refused_token_does_not_use_up_its_jti(client: FlaskClient, key: Key) -> None:
    """Who guesses a ``jti`` and signs with a foreign key takes nothing from the client."""
    forged = Key(kid=key.kid).sign(claims(DISCOVERY, jti="mine"))
    assert "signature" in refusal(ask(client, forged))
    assert ask(client, key.sign(claims(DISCOVERY, jti="mine"))).status_code == 200


def test_unsigned_tokens_are_refused(client: FlaskClient) -> None:
    """``alg`` none, in any spelling."""
    for alg in ("none", "None", "NONE", "nOnE", "", None):
        token = by_hand({"alg": alg, "typ": "JWT", "kid": "k1"}, claims(DISCOVERY))
        assert "alg must be" in refusal(ask(client, token))


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_the_public_key_is_no_shared_secret(client: FlaskClient, key: Key, alg: str) -> None:
    """HMAC with the public key's bytes: the classic confusion of algorithms."""
    for form in (serialization.Encoding.PEM, serialization.Encoding.DER):
        secret = key.private.public_key().public_bytes(form, serialization.PublicFormat.SubjectPublicKeyInfo)
        token = by_hand({"alg": alg, "typ": "JWT", "kid": "k1"}, claims(DISCOVERY),
                        lambda signed, secret=secret: hmac.new(secret, signed, hashlib.sha256).digest())
        assert "alg must be" in refusal(ask(client, token))


@pytest.mark.parametrize(("header", "says"), [
    ({"crit": ["exp"]}, "crit"), ({"crit": []}, "crit"), ({"crit": ["b64"], "b64": False}, "crit"),
    ({"typ": "at+jwt"}, "typ"), ({"typ": None}, "typ"), ({"typ": 3}, "typ"), ({"kid": None}, "kid"),
    ({"kid": ""}, "kid"), ({"kid": 7}, "kid"), ({"kid": "another"}, "no key"), ({"kid": "../../etc/passwd"}, "no key"),
    ({"jku": "https://evil.example/jwks"}, "jku"), ({"jku": ["x"]}, "jku"), ({"jku": ""}, "jku")])
def test_headers_that_are_refused(client: FlaskClient, key: Key, header: dict[str, Any], says: str) -> None:
    """Critical extensions that nobody knows, another type, no key or a foreign one, an address that is not allowed."""
    made = {"alg": "ES384", "typ": "JWT", "kid": "k1"} | header

    def sign(signed: bytes) -> bytes:
        algorithm = jwt.algorithms.get_default_algorithms()["ES384"]
        return algorithm.sign(signed, key.private)

    made = {name: value for name, value in made.items() if value is not None}
    assert says in refusal(ask(client, by_hand(made, claims(DISCOVERY), sign)))


def test_a_foreign_address_is_never_asked(client: FlaskClient, key: Key) -> None:
    """Nobody makes the gateway fetch from where he likes: not by ``jku``, ``x5u`` or a key in the header."""
    with server() as evil:
        own = Key(kid="evil")
        evil.serve("/jwks", {"keys": [own.public()]})
        assert "jku is not in" in refusal(ask(client, own.sign(claims(DISCOVERY), jku=f"{evil.base}/jwks")))
        token = own.sign(claims(DISCOVERY), x5u=f"{evil.base}/jwks", jwk=own.public())
        assert "no key" in refusal(ask(client, token))
        assert evil.asked == []


def test_a_longer_address_is_another_one(client: FlaskClient, key: Key, jwks: Server) -> None:
    """The allow-list holds whole addresses, no beginnings."""
    for path in ("/jwks/x", "/jwks?x=1", "/jwks#x", "/JWKS"):
        assert "jku is not in" in refusal(ask(client, key.sign(claims(DISCOVERY), jku=jwks.base + path)))


@pytest.mark.parametrize(("more", "says"), [
    ({"iss": "https://evil.example/"}, "iss"), ({"iss": None}, "iss"), ({"iss": 5}, "iss"), ({"iss": [ISSUER]}, "iss"),
    ({"aud": "https://other.example/cds-services"}, "aud"), ({"aud": None}, "aud"), ({"aud": []}, "aud"),
    ({"aud": {"a": 1}}, "aud"), ({"aud": f"{SERVICE}/feedback"}, "aud"), ({"aud": f"{BASE}.evil.example"}, "aud"),
    ({"aud": "http://localhost/cds-services"}, "aud"),
    ({"exp": None}, "exp"), ({"exp": "soon"}, "exp"), ({"exp": True}, "exp"), ({"exp": 10 ** 400}, "exp"),
    ({"exp": -1}, "exp"),
    ({"exp": int(time.time()) + 90_000}, "exp"), ({"iat": None}, "iat"), ({"iat": {}}, "iat"),
    ({"nbf": int(time.time()) + 3_000}, "nbf"), ({"nbf": "x"}, "nbf"),
    ({"jti": None}, "jti"), ({"jti": ""}, "jti"), ({"jti": 4}, "jti"), ({"jti": "x" * 300}, "jti")])
def test_claims_that_are_refused(client: FlaskClient, key: Key, more: dict[str, Any], says: str) -> None:
    """Each claim that the specification requires is required, of its kind, and within its bounds."""
    made = {name: value for name, value in (claims(DISCOVERY) | more).items() if value is not None}
    algorithm = jwt.algorithms.get_default_algorithms()["ES384"]
    token = by_hand({"alg": "ES384", "typ": "JWT", "kid": "k1"}, made,
                    lambda signed: algorithm.sign(signed, key.private))
    assert says in refusal(ask(client, token))


def test_a_token_of_another_service_is_not_taken_here(client: FlaskClient, key: Key) -> None:
    """The Host header of the request does not make an audience ours."""
    answer = client.get("/cds-services", headers={
        "Authorization": f"Bearer {key.sign(claims('https://other.example/cds-services'))}", "Host": "other.example"})
    assert "aud" in refusal(answer)


@pytest.mark.parametrize("public", [
    {"alg": "ES256"}, {"use": "enc"}, {"crv": "P-256"}, {"kty": "oct", "k": "c2VjcmV0"}, {"x": "AAAA"}, {"x": 5},
    {"y": None}, {"kty": ["EC"]}, {"crv": {}}])
def test_keys_that_do_not_fit_are_not_used(own_settings: Settings, store: Store, jwks: Server, key: Key,
                                           public: dict[str, Any]) -> None:
    """A key for another algorithm, use or curve, and a broken one, verify nothing (RFC 7517 4)."""
    jwks.serve("/jwks", {"keys": [key.public(**public)]})
    client = create_app(own_settings, store).test_client()
    assert "no key" in refusal(ask(client, key.sign(claims(DISCOVERY))))


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_short_rsa_keys_are_not_used(own_settings: Settings, store: Store, jwks: Server) -> None:
    """At least 2048 bits (RFC 7518 3.3)."""
    weak = Key("RS256", bits=1024)
    jwks.serve("/jwks", {"keys": [weak.public()]})
    client = create_app(own_settings, store).test_client()
    assert "no key" in refusal(ask(client, weak.sign(claims(DISCOVERY))))


def test_one_issuer_speaks_for_one_hospital(settings: Settings, store: Store, tmp_path: Path) -> None:
    """Two manifests that claim one issuer stop the start, and so do addresses that are not safe and files not there."""
    folder = tmp_path / "hospitals"
    hospital(folder, f'issuers = ["{ISSUER}"]')
    hospital(folder, f'issuers = ["{ISSUER}"]', "h2")
    with pytest.raises(GatewayError, match="another hospital"):
        Clients(settings, store, load_all([folder]).all)
    for number, (said, says) in enumerate([('jku = ["http://his.example/jwks"]', "https"),
                                           ('jku = ["file:///etc/x"]', "https"),
                                           ('keys = "none.json"', "cannot be read")]):
        hospital(tmp_path / str(number), said)
        with pytest.raises(GatewayError, match=says):
            cds_hooks.require_usable(settings, load_all([tmp_path / str(number)]).all)


# ---------------------------------------------------------------- key sets

def test_a_key_set_is_remembered(client: FlaskClient, key: Key, jwks: Server) -> None:
    """Ten requests ask for the set once."""
    assert {ask(client, key.sign(claims(DISCOVERY))).status_code for _ in range(10)} == {200}
    assert len(jwks.asked) == 1


def test_a_new_key_is_found_within_a_minute(own_settings: Settings, store: Store, key: Key, jwks: Server,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown ``kid`` asks again, at most once a minute: nobody makes us a flood by inventing names."""
    client = create_app(own_settings, store).test_client()
    assert ask(client, key.sign(claims(DISCOVERY))).status_code == 200
    new = Key(kid="k2")
    jwks.serve("/jwks", {"keys": [key.public(), new.public()]})
    for number in range(5):
        assert "no key" in refusal(ask(client, new.sign(claims(DISCOVERY), kid=f"x{number}")))
    assert len(jwks.asked) == 1
    monkeypatch.setattr(keys, "PAUSE", 0.0)
    assert ask(client, new.sign(claims(DISCOVERY))).status_code == 200
    assert len(jwks.asked) == 2


def test_a_key_set_that_is_away_is_our_side(own_settings: Settings, store: Store, key: Key, jwks: Server,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """503 and try again, not 401: the client did nothing wrong; a set that was once known still counts."""
    jwks.serve("/jwks", {}, 500)
    client = create_app(own_settings, store).test_client()
    answer = ask(client, key.sign(claims(DISCOVERY)))
    assert answer.status_code == 503 and "Retry-After" in answer.headers
    monkeypatch.setattr(keys, "RETRY", 0.0)
    jwks.serve("/jwks", {"keys": [key.public()]})
    assert ask(client, key.sign(claims(DISCOVERY))).status_code == 200
    jwks.serve("/jwks", {}, 500)
    monkeypatch.setattr(keys, "PAUSE", 0.0)
    monkeypatch.setattr(keys, "FRESH", -1.0)
    assert ask(client, key.sign(claims(DISCOVERY))).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"keys": {}}', b'{"keys": [1, null, {"kid": "k1"}]}', b"\xff",
                                     b'{"keys": "' + b"x" * keys.SIZE + b'"}'])
def test_a_key_set_that_is_none_verifies_nothing(own_settings: Settings, store: Store, key: Key, jwks: Server,
                                                 content: bytes) -> None:
    """Whatever an address answers, nobody gets in by it, and nothing breaks."""
    jwks.serve("/jwks", content)
    client = create_app(own_settings, store).test_client()
    assert ask(client, key.sign(claims(DISCOVERY))).status_code in (401, 503)


def test_a_key_set_follows_no_redirect(own_settings: Settings, store: Store, key: Key, jwks: Server) -> None:
    """What the allowed address points to is not allowed by that."""
    with server() as other:
        other.serve("/jwks", {"keys": [key.public()]})
        jwks.serve("/jwks", b"", 302, Location=f"{other.base}/jwks")
        client = create_app(own_settings, store).test_client()
        assert ask(client, key.sign(claims(DISCOVERY))).status_code == 503
        assert other.asked == []


# ---------------------------------------------------------------- whatever comes

@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clients, Key]]:
    """One hospital with its keys in a file, for many tokens."""
    own, folder = Key(), tmp_path_factory.mktemp("judge")
    hospital(folder / "hospitals", f'issuers = ["{ISSUER}"]\nkeys = "keys.json"',
             keys={"keys": [own.public()]})
    settings = Settings(data=folder, adapters=str(folder / "hospitals"), public_url=BASE)
    store = open_store(settings, migrate=True)
    yield Clients(settings, store, load_all(settings.adapter_folders).all), own
    store.close()


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
                     lambda inner: st.lists(inner, max_size=3)
                     | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6)
_NAMES = st.sampled_from(["alg", "kid", "typ", "jku", "crit", "b64", "iss", "aud", "exp", "iat", "jti", "nbf", "x"])


@rules(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(_NAMES, _JSON, max_size=3), body=st.dictionaries(_NAMES, _JSON, max_size=3),
       signed=st.booleans())
def test_whatever_stands_in_a_token_is_refused_in_words(judge: tuple[Clients, Key], header: dict[str, Any],
                                                        body: dict[str, Any], signed: bool) -> None:
    """No header and no claim of any kind breaks the check; a changed token never passes unless it says the same."""
    clients, key = judge
    algorithm = jwt.algorithms.get_default_algorithms()["ES384"]
    token = by_hand({"alg": "ES384", "typ": "JWT", "kid": "k1"} | header, claims(DISCOVERY) | body,
                    (lambda data: algorithm.sign(data, key.private)) if signed else None)
    try:
        caller = clients.caller_of(token, "/cds-services")
    except GatewayError as error:
        assert error.category is Category.FORBIDDEN and error.detail == "login"
    else:
        assert signed and caller.institution == "h1"


@rules(max_examples=100, deadline=None)
@given(cut=st.integers(0, 2), flip=st.integers(0, 10_000), text=st.text(max_size=30))
def test_a_token_with_a_changed_byte_does_not_pass(judge: tuple[Clients, Key], cut: int, flip: int, text: str) -> None:
    """One character of header, payload or signature changed, or anything else in its place."""
    clients, key = judge
    parts = key.sign(claims(DISCOVERY)).split(".")
    place = flip % (len(parts[cut]) - 1)  # the last one may hold bits that mean nothing
    other = "A" if parts[cut][place] != "A" else "B"
    parts[cut] = parts[cut][:place] + other + parts[cut][place + 1:]
    for token in (".".join(parts), text):
        with pytest.raises(GatewayError):
            clients.caller_of(token, "/cds-services")
