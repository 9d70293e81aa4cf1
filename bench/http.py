"""Load through HTTP: raw keep-alive sockets, since a client library would be what is measured."""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Figures:
    """Requests per second and latency percentiles in milliseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    mean_bytes: float


def get(port: int, paths: Sequence[str], token: str, connections: int, seconds: float, clients: int = 1) -> Figures:
    """GET the paths in turn over ``connections`` sockets, spread over ``clients`` processes, for ``seconds``."""
    requests = [(f"GET {p} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
                 "Accept: application/fhir+json\r\n\r\n").encode() for p in paths]
    return run(port, lambda n: requests[n % len(requests)], connections, seconds, clients)


def post(port: int, path: str, body: Callable[[int], bytes], token: str, connections: int, seconds: float,
         clients: int = 1, first: int = 0) -> Figures:
    """POST the bodies number ``first`` on, each once, as ``get``."""
    head = (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: ")

    def request(n: int) -> bytes:
        content = body(first + n)
        return f"{head}{len(content)}\r\n\r\n".encode() + content
    return run(port, request, connections, seconds, clients)


def run(port: int, request: Callable[[int], bytes], connections: int, seconds: float, clients: int = 1) -> Figures:
    """Send request number 0, 1, 2 … over ``connections`` sockets of ``clients`` processes, for ``seconds``."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(port, request, i, clients, connections // clients, seconds, queue))
               for i in range(clients)]
    for worker in workers:
        worker.start()
    results = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    took = sorted(t for latencies, _, _ in results for t in latencies)
    if not took:
        raise SystemExit("no request was answered")
    at = lambda p: took[min(len(took) - 1, int(len(took) * p / 100))] * 1000  # noqa: E731
    return Figures(len(took) / seconds, at(50), at(99), sum(e for _, e, _ in results),
                   sum(b for _, _, b in results) / len(took))


def _work(port: int, request: Callable[[int], bytes], turn: int, step: int, connections: int, seconds: float,
          queue: multiprocessing.queues.Queue[Any]) -> None:
    latencies, errors, size = [], 0, 0
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        s = socket.create_connection(("127.0.0.1", port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(s, selectors.EVENT_READ, [0.0, b""])
        key = selector.get_key(s)
        s.sendall(request(turn))
        key.data[0], turn = time.perf_counter(), turn + step
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for key, _ in selector.select(1):
            ready = cast(socket.socket, key.fileobj)
            key.data[1] += ready.recv(1 << 18)
            whole = _whole(key.data[1])
            if not whole:
                continue
            latencies.append(time.perf_counter() - key.data[0])
            size += whole
            errors += not key.data[1].startswith(b"HTTP/1.1 200")
            key.data[1] = b""
            content = request(turn)
            key.data[0], turn = time.perf_counter(), turn + step
            ready.sendall(content)
    queue.put((latencies, errors, size))


def _whole(answer: bytes) -> int:
    """The length of a complete answer, else 0."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    at = answer.lower().find(b"content-length:", 0, end)
    if at < 0:
        raise SystemExit("an answer without Content-Length")
    length = end + 4 + int(answer[at + 15:answer.find(b"\r\n", at)])
    return length if len(answer) >= length else 0
