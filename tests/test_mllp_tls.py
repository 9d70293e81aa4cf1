"""TLS on a port of its own: who may shake hands, for whom a certificate may send, files that change."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
import time
from dataclasses import dataclass, replace
from pathlib import Path

import hl7.client
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway import adapter
from gateway.adapter import certificate_name, peer_of
from gateway.config import Settings, load
from gateway.edges.mllp.tls import client_context
from gateway.edges.mllp_sender import Sender
from gateway.errors import GatewayError
from gateway.pipeline import Pipeline
from gateway.store import Store
from gateway.supervisor import require_loopback
from tests.mllp_peers import Hospital, Recorder, block, joined, listening, message
from tests.test_mllp_pipeline import exchange, hospital, oru

NOW = datetime.datetime.now(datetime.UTC)


@dataclass
class Paper:
    """A certificate with its key, as files."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    folder: Path
    name: str

    @property
    def cert(self) -> str:
        """The certificate's file."""
        return str(self.folder / f"{self.name}.crt")

    @property
    def private(self) -> str:
        """The key's file."""
        return str(self.folder / f"{self.name}.key")

    @property
    def fingerprint(self) -> str:
        """As `openssl x509 -fingerprint -sha256` prints it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def written(self) -> Paper:
        """Itself, in its files."""
        Path(self.cert).write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        Path(self.private).write_bytes(self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return self


def paper(folder: Path, name: str, common: str, issuer: Paper | None = None, *, days: int = 30,
          alternatives: list[x509.GeneralName] | None = None) -> Paper:
    """A certificate; without an issuer an authority's own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = (x509.CertificateBuilder().subject_name(subject)
               .issuer_name(issuer.certificate.subject if issuer else subject).public_key(key.public_key())
               .serial_number(x509.random_serial_number()).not_valid_before(NOW - datetime.timedelta(days=40))
               .not_valid_after(NOW + datetime.timedelta(days=days))
               .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True))
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return Paper(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key, folder, name).written()


@dataclass
class Authority:
    """A regional authority, the gateway's papers, and those of two hospitals and a stranger."""

    root: Paper
    gateway: Paper
    one: Paper
    two: Paper
    nobody: Paper

    @property
    def settings(self) -> dict[str, str]:
        """A port of its own for TLS with client certificates."""
        return {"mllp_tls": "127.0.0.1:0", "mllp_tls_cert": self.gateway.cert, "mllp_tls_key": self.gateway.private,
                "mllp_tls_ca": self.root.cert}

    def of(self, paper: Paper | None) -> ssl.SSLContext:
        """A sender with these papers."""
        return client_context(self.root.cert, *((paper.cert, paper.private) if paper else ()))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Made once."""
    folder = tmp_path_factory.mktemp("papers")
    root = paper(folder, "root", "Regional Health Authority")
    here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return Authority(root, paper(folder, "gateway", "gateway", root, alternatives=here),
                     paper(folder, "one", "LIS Hospital 1", root,
                           alternatives=[x509.DNSName("lis.one.example"), x509.RFC822Name("it@one.example")]),
                     paper(folder, "two", "第二医院", root), paper(folder, "nobody", "LIS Hospital 1"))


def test_a_foreign_client_sends_over_tls(authority: Authority) -> None:
    """The standard library's own TLS client; plain and TLS are open at once, and the port says who is there."""
    recorder = Recorder()
    with listening(recorder, **authority.settings) as listener:
        with joined(listener, authority.of(authority.one)) as peer:
            assert isinstance(peer.socket, ssl.SSLSocket) and peer.socket.version() in ("TLSv1.2", "TLSv1.3")
            for n in range(3):
                peer.write(block(message(f"T{n}")))
                assert peer.msa() == ("AA", f"T{n}")
        with hl7.client.MLLPClient(*listener.address) as client:
            assert b"MSA|AA|P1" in client.send(block(message("P1")))
    [tls, plain] = sorted(recorder.peers, key=len, reverse=True)
    assert plain == "127.0.0.1" and tls.split(" ")[0] == "127.0.0.1"
    assert set(tls.split(" ")[1:]) == set(map(certificate_name, (
        authority.one.fingerprint, "LIS Hospital 1", "lis.one.example", "it@one.example")))


def test_who_has_no_certificate_of_the_authority_is_not_let_in(authority: Authority) -> None:
    """None at all, one of an unknown issuer with a well-known name, an expired one, and an old TLS."""
    late = paper(authority.root.folder, "late", "LIS Hospital 1", authority.root, days=-1)
    recorder = Recorder()
    with listening(recorder, **authority.settings) as listener:
        for papers in (None, authority.nobody, late):
            with pytest.raises((ssl.SSLError, OSError, AssertionError)), joined(listener, authority.of(papers)) as peer:
                peer.write(block(message("X1")))
                peer.msa()
        old = authority.of(authority.one)
        with pytest.warns(DeprecationWarning):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)), joined(listener, old):
            pass
        with joined(listener, authority.of(authority.one)) as peer:
            peer.write(block(message("T1")))
            assert peer.msa() == ("AA", "T1")
    assert [raw for raw in recorder.got if b"|X1|" in raw] == []


def test_without_an_authority_no_certificate_is_asked_for(authority: Authority) -> None:
    """HUREN_MLLP_TLS_CA is left out: the channel is encrypted, and the sender is known by its address alone."""
    recorder = Recorder()
    settings = authority.settings | {"mllp_tls_ca": ""}
    with listening(recorder, **settings) as listener, joined(listener, authority.of(None)) as peer:
        peer.write(block(message("T1")))
        assert peer.msa() == ("AA", "T1")
    assert recorder.peers == {"127.0.0.1"}


def test_plain_bytes_on_the_tls_port_are_turned_away(authority: Authority) -> None:
    """They are no handshake; nothing is passed on, and the next sender is served."""
    recorder = Recorder()
    with listening(recorder, **authority.settings) as listener:
        assert listener.tls_address is not None
        peer = Hospital(listener.tls_address)
        peer.write(block(message("X1")))
        peer.socket.settimeout(5)
        with pytest.raises(Exception):  # noqa: B017 - an alert, which is no MLLP, or the end
            peer.msa()
        peer.socket.close()
        with joined(listener, authority.of(authority.one)) as sender:
            sender.write(block(message("T1")))
            assert sender.msa() == ("AA", "T1")
    assert len(recorder.got) == 1


def test_who_does_not_shake_hands_holds_up_nobody(authority: Authority) -> None:
    """Thirty connections that say nothing: the next one shakes hands at once."""
    with listening(Recorder(), **authority.settings) as listener:
        assert listener.tls_address is not None
        silent = [socket.create_connection(listener.tls_address) for _ in range(30)]
        began = time.monotonic()
        with joined(listener, authority.of(authority.one)) as peer:
            peer.write(block(message("T1")))
            assert peer.msa() == ("AA", "T1")
        assert time.monotonic() - began < 2
        for connection in silent:
            connection.close()


def test_limits_hold_over_tls(authority: Authority) -> None:
    """Idle time, frame time, and a stop that answers what runs."""
    recorder = Recorder(seconds=0.4)
    with listening(recorder, mllp_idle_seconds=1, **authority.settings) as listener:
        with joined(listener, authority.of(authority.one)) as idle:
            began = time.monotonic()
            assert idle.answer() is None and 0.8 < time.monotonic() - began < 5
        with joined(listener, authority.of(authority.one)) as waiting, \
                joined(listener, authority.of(authority.one)) as busy:
            busy.write(block(message("D1")))
            assert recorder.begun.wait(5)
            assert listener.drain(5)
            assert busy.msa() == ("AA", "D1") and busy.answer() is None and waiting.answer() is None
    with listening(Recorder(), mllp_frame_seconds=1, **authority.settings) as listener, \
            joined(listener, authority.of(authority.one)) as slow:
        slow.write(b"\x0bMSH|")
        began = time.monotonic()
        assert slow.answer() is None and 0.8 < time.monotonic() - began < 5


def test_a_large_message_goes_both_ways(authority: Authority) -> None:
    """Ten megabytes in many records, and an answer after it."""
    recorder = Recorder()
    with listening(recorder, **authority.settings) as listener, \
            joined(listener, authority.of(authority.one)) as peer:
        raw = message("T1", "NTE|1||" + "x" * 10_000_000)
        peer.write(block(raw))
        assert peer.msa() == ("AA", "T1") and recorder.got == [raw.strip()]


# -------------------------------------------------------------------------------------------------- for whom

@pytest.mark.parametrize("listed", ["LIS Hospital 1", "lis.one.example", "LIS.ONE.EXAMPLE", "fingerprint",
                                    "SHA256:fingerprint"])
def test_a_certificate_sends_for_its_own_hospital_alone(store: Store, settings: Settings, tmp_path: Path,
                                                        authority: Authority, listed: str) -> None:
    """By common name, alternative name or fingerprint. Nobody else sends for that hospital, neither with another
    certificate nor without TLS, and its own sends for no other hospital: AR 207, in quarantine."""
    named = listed.replace("fingerprint", authority.one.fingerprint)
    parent = hospital(tmp_path / "h", more=f'certificates = ["{named}"]')
    hospital(parent, "lab-2", "LAB2", 'certificates = ["第二医院", "second.example"]')
    hospital(parent, "lab-3", "LAB3")
    settings = replace(settings, mllp="127.0.0.1:0", **authority.settings)  # type: ignore[arg-type]
    senders = {"one": authority.of(authority.one), "two": authority.of(authority.two), "plain": None}
    allowed = {("one", "LAB1"), ("two", "LAB2"), ("plain", "LAB3")}
    with listening(Pipeline(settings, store, adapter.load_all([parent])), settings) as listener:
        for name, context in senders.items():
            with joined(listener, context) as peer:
                for facility in ("LAB1", "LAB2", "LAB3"):
                    answer = exchange(peer, oru(f"M-{name}", facility=facility, number=name))
                    expected = ["AA"] if (name, facility) in allowed else ["AR", "MSH^1^4", "207"]
                    assert [answer[0], *answer[3:]] == expected, (name, facility)
    assert sorted(row.status for row in store.inbox()) == ["quarantined"] * 6 + ["stored"] * 3


def test_a_platform_may_send_for_several_hospitals(tmp_path: Path) -> None:
    """One certificate in several manifests."""
    parent = hospital(tmp_path / "h", more='certificates = ["platform.example"]')
    hospital(parent, "lab-2", "LAB2", 'certificates = ["platform.example"]')
    adapters = adapter.load_all([parent])
    peer = peer_of("10.0.0.1", ["platform.example", "sha256:" + "ab" * 32])
    assert [adapters.for_hl7(f, "", peer).name for f in ("LAB1", "LAB2")] == ["lab-1", "lab-2"]


def test_a_name_cannot_pass_for_another() -> None:
    """What is compared holds no blank and no fingerprint that is not one, whatever a certificate says."""
    peer = peer_of("10.0.0.1", ["evil lis.one.example", "第二医院", "a\tb\nc"])
    assert len(peer.split(" ")) == 4 and "lis.one.example" not in peer.split(" ")
    assert not peer.isspace() and "\n" not in peer and peer.isascii()
    assert certificate_name("AB:" * 31 + "ab") == "sha256:" + "ab" * 32 == certificate_name("sha256:" + "AB" * 32)


# -------------------------------------------------------------------------------------------------- files

def test_new_files_are_taken_without_a_restart(tmp_path: Path, authority: Authority) -> None:
    """A renewed certificate serves the next connection; a broken file leaves the old one; open ones go on."""
    here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    mine = paper(tmp_path, "gateway", "first", authority.root, alternatives=here)
    settings = authority.settings | {"mllp_tls_cert": mine.cert, "mllp_tls_key": mine.private}

    def shown(peer: Hospital) -> str:
        told = peer.socket.getpeercert()  # type: ignore[attr-defined]
        return str(dict(part[0] for part in told["subject"])["commonName"])

    with listening(Recorder(), **settings) as listener, joined(listener, authority.of(authority.one)) as first:
        assert shown(first) == "first"
        paper(tmp_path, "gateway", "second", authority.root, alternatives=here)
        with joined(listener, authority.of(authority.one)) as second:
            assert shown(second) == "second"
        Path(mine.cert).write_text("half a fi", encoding="utf-8")
        with joined(listener, authority.of(authority.one)) as third:
            assert shown(third) == "second"
        first.write(block(message("T1")))
        assert first.msa() == ("AA", "T1")


@pytest.mark.parametrize(("changed", "said"), [
    ({"mllp_tls_cert": "no-such.crt"}, "HUREN_MLLP_TLS_CERT.*no-such"), ({"mllp_tls_key": "no-such.key"}, "_KEY"),
    ({"mllp_tls_ca": "no-such.crt"}, "HUREN_MLLP_TLS_CA"), ({"mllp_tls_key": "two"}, "private key"),
    ({"mllp_tls_ca": os.devnull}, "HUREN_MLLP_TLS_CA must be")])
def test_files_that_do_not_do_stop_the_start(authority: Authority, changed: dict[str, str], said: str) -> None:
    """A sentence that names the setting."""
    changed = {k: authority.two.private if v == "two" else v for k, v in changed.items()}
    with pytest.raises(GatewayError, match=said), listening(Recorder(), **authority.settings | changed):
        pass


@pytest.mark.parametrize(("environ", "said"), [
    ({"HUREN_MLLP_TLS": ":2576"}, "needs HUREN_MLLP_TLS_CERT"), ({"HUREN_MLLP_TLS": "2576"}, "HOST:PORT"),
    ({"HUREN_MLLP_TLS_CERT": "a.crt"}, "HUREN_MLLP_TLS is not"), ({"HUREN_MLLP_TLS_CA": "a.crt"}, "HUREN_MLLP_TLS")])
def test_half_of_the_settings_stops_the_start(environ: dict[str, str], said: str) -> None:
    """A port without a certificate, or a certificate without a port."""
    with pytest.raises(GatewayError, match=said):
        load(environ)


def test_our_own_sender_speaks_tls(authority: Authority) -> None:
    """It checks the receiver's name against its authorities, and says what went wrong."""
    with listening(Recorder(), **authority.settings) as listener:
        assert listener.tls_address is not None
        sender = Sender(*listener.tls_address, tls=authority.of(authority.one))
        assert sender.send(message("T1")).accepted
        sender.close()
        distrustful = Sender(*listener.tls_address, tls=client_context("", authority.one.cert, authority.one.private))
        with pytest.raises(GatewayError, match="certificate"):
            distrustful.send(message("T2"))


def test_the_demo_listens_with_tls_on_this_machine_only() -> None:
    """It asks nobody who they are."""
    require_loopback(Settings(mllp_tls="127.0.0.1:2576"))
    with pytest.raises(GatewayError, match="HUREN_MLLP_TLS"):
        require_loopback(Settings(mllp_tls="0.0.0.0:2576"))
