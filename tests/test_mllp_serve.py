"""`huren serve` with both HL7v2 ports: certificates, figures over all processes, a worker that dies, `huren doctor`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench import gateway
from tests.mllp_peers import Hospital, block
from tests.test_mllp_pipeline import exchange, hospital, oru
from tests.test_mllp_tls import Authority, authority

pytestmark = pytest.mark.long
__all__ = ["authority"]  # a fixture of the other file


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[gateway.Gateway]:
    """Both ports, two processes, one hospital that has a certificate and one that has none."""
    parent = hospital(tmp_path_factory.mktemp("h"), more='certificates = ["lis.one.example"]')
    hospital(parent, "lab-2", "LAB2")
    files = {name.upper(): value for name, value in authority.settings.items() if name != "mllp_tls"}
    with gateway.running(HUREN_ADAPTERS=str(parent), HUREN_MLLP_WORKERS="2", HUREN_MLLP_TLS="127.0.0.1:0",
                         **{f"HUREN_{name}": value for name, value in files.items()}) as g:
        yield g


def tls_port(g: gateway.Gateway) -> int:
    """As the line of the edge says it."""
    [line] = [line for line in g.log.read_text(encoding="utf-8").splitlines() if "mllps://" in line]
    return int(line.rpartition(":")[2])


def figures(g: gateway.Gateway) -> dict[str, float]:
    """The samples of ``/metrics`` that tell of HL7v2."""
    with urllib.request.urlopen(f"http://127.0.0.1:{g.http}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)
            if name.startswith(("huren_mllp", "huren_orders"))}


def test_hospitals_send_over_both_ports_and_all_of_it_is_counted(running: gateway.Gateway, authority: Authority,
                                                                 tmp_path: Path) -> None:
    """`huren send --tls` for the one, plain for the other; neither for the other's; the figures of both processes."""
    (tmp_path / "one.hl7").write_bytes(oru("T1"))
    (tmp_path / "two.hl7").write_bytes(oru("T2", facility="LAB2", number="F2"))
    papers = ["--tls", "--mllp", f"127.0.0.1:{tls_port(running)}", "--cert", authority.one.cert, "--key",
              authority.one.private, "--ca", authority.root.cert]
    plain = ["--mllp", f"127.0.0.1:{running.mllp}"]

    def send(name: str, *how: str) -> str:
        run = subprocess.run([sys.executable, "-m", "gateway", "send", str(tmp_path / name), *how], env=running.env,
                             capture_output=True, text=True, check=False)
        return run.stdout + run.stderr

    assert "1 sent, 1 accepted, 0 refused" in send("one.hl7", *papers)
    assert "1 sent, 1 accepted, 0 refused" in send("two.hl7", *plain)
    assert "must show a TLS certificate" in send("one.hl7", *plain)
    assert "another hospital's" in send("two.hl7", *papers)
    assert "--cert" in send("one.hl7", *papers[:3], "--ca", authority.root.cert)  # it is asked for a certificate
    found = figures(running)
    assert found['huren_mllp_answers_total{code="AA"}'] == 2 and found['huren_mllp_answers_total{code="AR"}'] == 2
    assert found['huren_mllp_connections_total{transport="plain"}'] >= 2
    assert found['huren_mllp_connections_refused_total{reason="handshake"}'] >= 1


def test_a_worker_that_dies_takes_neither_port_nor_figures_along(running: gateway.Gateway,
                                                                 authority: Authority) -> None:
    """SIGKILL for both MLLP processes: both ports answer again, the counters go on, open connections are none."""
    before = figures(running)['huren_mllp_answers_total{code="AA"}']
    mllp = [p for p in psutil.Process(running.process.pid).children()
            if running.mllp in {c.laddr.port for c in p.net_connections() if c.status == "LISTEN"}]
    assert len(mllp) == 2
    for process in mllp:
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    for n, (port, facility, context) in enumerate(((running.mllp, "LAB2", None),
                                                   (tls_port(running), "LAB1", authority.of(authority.one)))):
        while True:
            try:
                peer = Hospital(("127.0.0.1", port), context, 5)
                assert exchange(peer, oru(f"K{n}", facility=facility, number=f"K{n}"))[0] == "AA"
                peer.socket.close()
                break
            except (OSError, AssertionError):
                assert time.monotonic() < until
                time.sleep(0.2)
    while figures(running)['huren_mllp_connections{transport="tls"}'] and time.monotonic() < until:
        time.sleep(0.1)
    after = figures(running)
    assert after['huren_mllp_answers_total{code="AA"}'] == before + 2
    assert after['huren_mllp_connections{transport="tls"}'] == after['huren_mllp_connections{transport="plain"}'] == 0


def test_a_killed_gateway_settles_what_it_was_told_to_keep(authority: Authority, tmp_path: Path) -> None:
    """CA, then SIGKILL for everything: after the start the message is stored, whether its AA had come or not."""
    parent = hospital(tmp_path / "h", "lab-2", "LAB2")
    data = tmp_path / "data"
    data.mkdir()
    with gateway.running(data=data, HUREN_ADAPTERS=str(parent)) as g:
        peer = Hospital(("127.0.0.1", g.mllp))
        for n in range(30):
            peer.write(block(oru(f"C{n}", facility="LAB2", number=f"C{n}", more="||AL|AL")))
        committed = set()
        while len(committed) < 10:
            code, control_id = peer.msa()
            if code == "CA":
                committed.add(control_id)
        for process in g.processes():
            process.kill()
        peer.socket.close()
    with gateway.running(data=data, HUREN_ADAPTERS=str(parent)) as g:
        listed = subprocess.run([sys.executable, "-m", "gateway", "inbox", "list", "--limit", "100"], env=g.env,
                                capture_output=True, text=True, check=True).stdout.splitlines()
        header = listed[0].split("\t")
        rows = [dict(zip(header, line.split("\t"), strict=True)) for line in listed[1:]]
    assert rows and {row["status"] for row in rows} == {"stored"} and len(rows) >= len(committed)


def test_doctor_looks_at_certificates(authority: Authority, tmp_path: Path) -> None:
    """How long the certificate holds; a file that is missing is to be mended."""
    environ = {"HUREN_DATA": str(tmp_path), "HUREN_HTTP": "127.0.0.1:0", "HUREN_MLLP": "127.0.0.1:0",
               "HUREN_DIMSE": "127.0.0.1:0", "HUREN_MLLP_TLS": "127.0.0.1:0", "PATH": "/usr/bin:/bin",
               "HUREN_MLLP_TLS_CERT": authority.gateway.cert, "HUREN_MLLP_TLS_KEY": authority.gateway.private}

    def doctor(**more: str) -> str:
        return subprocess.run([sys.executable, "-m", "gateway", "doctor"], env=environ | more, capture_output=True,
                              text=True, check=False).stdout

    said = doctor()
    assert re.search(r"^note +tls +the certificate holds until .*, 29 days$", said, re.M)
    assert re.search(r"^note +tls +HUREN_MLLP_TLS_CA is not set", said, re.M)
    assert re.search(r"^bad +tls +HUREN_MLLP_TLS_CERT: /nowhere", doctor(HUREN_MLLP_TLS_CERT="/nowhere"), re.M)
