"""Load through MLLP: closed loop, one thread and one connection each, every answer checked."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

#: The one answer of a message that asks for AL and NE, or for nothing (MSH-15, MSH-16).
ACCEPTED = re.compile(rb"\rMSA\|[AC]A\|")


@dataclass
class Load:
    """What a load did."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)  # seconds since the start at which each answer came
    refused: list[bytes] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Messages accepted per second."""
        return (len(self.latencies) - len(self.refused)) / self.seconds

    def percentile_ms(self, p: float) -> float:
        """Latency percentile in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] * 1000

    def tenths(self) -> tuple[float, float]:
        """Messages per second of the first and the last tenth."""
        moments, tenth = sorted(self.moments), max(1, len(self.moments) // 10)
        return tenth / moments[tenth - 1], tenth / (moments[-1] - moments[-tenth - 1])


def send(port: int, message: Callable[[int], bytes], first: int, count: int, connections: int) -> Load:
    """Send messages ``first`` … ``first + count - 1`` over ``connections`` persistent connections."""
    # Made beforehand: what the client takes while it sends, the gateway lacks.
    load, lock, messages = Load(), threading.Lock(), iter([message(n) for n in range(first, first + count)])
    failed: list[BaseException] = []
    began = time.perf_counter()

    def work() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for raw in _take(messages, lock):
                    start = time.perf_counter()
                    s.sendall(b"\x0b" + raw + b"\x1c\r")
                    answer = b""
                    while not answer.endswith(b"\x1c\r"):
                        part = s.recv(65536)
                        if not part:
                            raise ConnectionError("closed without an answer")
                        answer += part
                    now = time.perf_counter()
                    load.latencies.append(now - start)
                    load.moments.append(now - began)
                    if not ACCEPTED.search(answer):
                        load.refused.append(answer)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - began
    if failed:
        raise SystemExit(f"a connection failed: {failed[0]!r}")
    return load


def _take(messages: Iterator[bytes], lock: threading.Lock) -> Iterator[bytes]:
    while True:
        with lock:
            raw = next(messages, None)
        if raw is None:
            return
        yield raw
