"""SIGKILL in the middle of a load: every acknowledged message is there exactly once, and none half-stored."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import gateway
from bench.messages import oru
from bench.mllp import ACCEPTED

pytestmark = pytest.mark.long


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder that outlives the gateway's death."""
    folder = Path(tempfile.mkdtemp(prefix="huren-crash-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _send_until_cut(port: int, first: int, acknowledged: list[int]) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as s:
        for n in range(first, first + 10_000):
            s.sendall(b"\x0b" + oru(n, 50) + b"\x1c\r")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                part = s.recv(65536)
                if not part:
                    return
                answer += part
            assert ACCEPTED.search(answer), answer
            acknowledged.append(n)


def _fhir(g: gateway.Gateway, path: str) -> dict:  # type: ignore[type-arg]
    url = path if path.startswith("http") else f"http://127.0.0.1:{g.http}/fhir/{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {g.token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))


def _all(g: gateway.Gateway, path: str) -> Iterator[dict]:  # type: ignore[type-arg]
    bundle = _fhir(g, path)
    while True:
        for entry in bundle.get("entry", ()):
            yield entry["resource"]
        following = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
        if not following:
            return
        bundle = _fhir(g, following[0])


def test_kill_9_loses_nothing_acknowledged_and_leaves_nothing_half(database_url: str, data: Path) -> None:
    """All processes are killed under 8 connections' load; after the start each report is whole and there once."""
    acknowledged: list[int] = []
    with gateway.running(database_url, data) as g:
        threads = [threading.Thread(target=_send_until_cut, args=(g.mllp, 100_000 * (k + 1), acknowledged))
                   for k in range(8)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 30
        while len(acknowledged) < 400 and time.monotonic() < until:
            time.sleep(0.05)
        for process in g.processes():
            with contextlib.suppress(Exception):
                process.kill()
        for thread in threads:
            thread.join()
    assert len(acknowledged) >= 400
    with gateway.running(database_url, data) as g:
        reports = list(_all(g, "DiagnosticReport?_count=500"))
        numbers = [i["value"] for r in reports for i in r["identifier"] if i["value"].startswith("F")]
        assert len(numbers) == len(set(numbers)), "a report is there twice"
        assert {f"F{n}" for n in acknowledged} <= set(numbers), "an acknowledged message is lost"
        observations = {o["id"] for o in _all(g, "Observation?_count=1000&_elements=id")}
        results = [ref["reference"].split("/")[1] for r in reports for ref in r["result"]]
        assert len(results) == 22 * len(reports) and set(results) == observations, "a report is half-stored"
        for n in acknowledged[:20]:  # a sender that did not see the answer sends again: nothing changes
            with socket.create_connection(("127.0.0.1", g.mllp)) as s:
                s.sendall(b"\x0b" + oru(n, 50) + b"\x1c\r")
                assert ACCEPTED.search(s.recv(65536))
        again = list(_all(g, "DiagnosticReport?_count=500"))
        assert [_version(r) for r in again] == [_version(r) for r in reports]


def _version(resource: dict) -> tuple[str, str]:  # type: ignore[type-arg]
    return resource["id"], resource["meta"]["versionId"]
