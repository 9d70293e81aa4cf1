"""Starts `huren serve` on free ports over a folder of its own, and watches it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.messages import HOSPITAL

BIN = Path(sys.executable).parent  # where `huren` is installed


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Gateway:
    """A running gateway."""

    process: subprocess.Popen[bytes]
    data: Path
    http: int
    mllp: int
    dimse: int
    token: str
    seconds_to_ready: float
    log: Path
    env: dict[str, str] = field(default_factory=dict, repr=False)

    def client(self, name: str, institution: str) -> str:
        """The token of another client, one of an institution."""
        added = subprocess.run([sys.executable, "-m", "gateway", "client", "add", name, "--institution", institution,
                                "--scope", "institution/*.cruds"], env=self.env, check=True, capture_output=True,
                               text=True)
        return added.stdout.split()[-1]

    def processes(self) -> list[psutil.Process]:
        """The supervisor and all its children."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def memory_mb(self) -> float:
        """Proportional set size of all processes."""
        return sum(p.memory_full_info().pss for p in self.processes()) / 1e6

    def cpu_seconds(self) -> float:
        """Processor time of all processes so far."""
        return sum(sum(p.cpu_times()[:4]) for p in self.processes())

    def disk_bytes(self) -> int:
        """What the data folder takes on disk."""
        os.sync()
        du = subprocess.run(["du", "-s", "-B1", str(self.data)], capture_output=True, check=True)
        return int(du.stdout.split()[0])


@contextlib.contextmanager
def running(database_url: str = "", data: Path | None = None, **more: str) -> Iterator[Gateway]:
    """A gateway with the bench hospital; its folder is removed afterwards unless ``data`` was given."""
    folder = data or Path(tempfile.mkdtemp(prefix="huren-bench-"))
    http, mllp, dimse = free_port(), free_port(), free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("HUREN_")} | {
        "HUREN_DATA": str(folder), "HUREN_HTTP": f"127.0.0.1:{http}", "HUREN_MLLP": f"127.0.0.1:{mllp}",
        "HUREN_DIMSE": f"127.0.0.1:{dimse}", "HUREN_ADAPTERS": str(HOSPITAL), "HUREN_LOG_LEVEL": "warning", **more}
    if database_url:
        env["HUREN_DATABASE_URL"] = database_url
    huren = [sys.executable, "-m", "gateway"]
    subprocess.run([*huren, "migrate"], env=env, check=True, capture_output=True)
    added = subprocess.run([*huren, "client", "add", f"bench-{http}", "--scope", "system/*.cruds"], env=env, check=True,
                           capture_output=True, text=True)
    token = added.stdout.split()[-1]
    log = folder / "serve.log"
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen([*huren, "serve"], env=env, stdout=out, stderr=out)
    try:
        _wait_ready(process, http, log)
        yield Gateway(process, folder, http, mllp, dimse, token, time.perf_counter() - began, log, env)
    finally:
        _stop(process)
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


@contextlib.contextmanager
def demo(data: Path) -> Iterator[Gateway]:
    """`huren serve --demo` on free ports, after its examples were sent."""
    http, mllp, dimse = free_port(), free_port(), free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("HUREN_")} | {
        "HUREN_DATA": str(data), "HUREN_HTTP": f"127.0.0.1:{http}", "HUREN_MLLP": f"127.0.0.1:{mllp}",
        "HUREN_DIMSE": f"127.0.0.1:{dimse}"}
    log = data / "serve.log"
    began = time.perf_counter()
    with log.open("wb") as out:
        command = [sys.executable, "-m", "gateway", "serve", "--demo"]
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    try:
        _wait_ready(process, http, log)
        g = Gateway(process, data, http, mllp, dimse, "", time.perf_counter() - began, log, env)
        _wait_settled(g)
        yield g
    finally:
        _stop(process)


def _wait_settled(g: Gateway) -> None:
    """Until the number of studies and reports has stood still for a second."""
    last, since, until = "", time.perf_counter(), time.perf_counter() + 60
    while time.perf_counter() < until:
        counts = []
        for kind in ("ImagingStudy", "DiagnosticReport"):
            with urllib.request.urlopen(f"http://127.0.0.1:{g.http}/fhir/{kind}?_summary=count") as answer:
                counts.append(answer.read().decode().partition('"total":')[2][:5])
        if (said := " ".join(counts)) != last or said.startswith("0"):
            last, since = said, time.perf_counter()
        elif time.perf_counter() - since > 1.5:
            return
        time.sleep(0.1)
    raise SystemExit("the demo's examples did not settle within 60 s")


def _wait_ready(process: subprocess.Popen[bytes], http: int, log: Path) -> None:
    """Waits for the line that says so: connecting to a port before it listens may connect to itself, and take it."""
    until = time.perf_counter() + 60
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise SystemExit(f"the gateway did not start:\n{log.read_text()}")
        if b"\nhuren: ready in " in log.read_bytes():
            with urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=10) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.01)
    raise SystemExit(f"the gateway was not ready within 60 s:\n{log.read_text()}")

