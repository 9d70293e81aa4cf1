"""Messages that nobody would send, at the conversion: no input may crash it, hang it or make it grow.

`python -m bench.fuzz --bytes 10000000` changes that many bytes of real messages and says what became of them;
`--guided` lets atheris choose instead (extra `fuzz`), which looks for inputs that reach new lines of our code.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway import hl7v2
from gateway.adapter import Adapter, load
from gateway.config import SHIPPED_ADAPTERS
from gateway.edges.mllp import Frames, NotMllp, TooLarge
from gateway.errors import GatewayError
from gateway.fhir import check
from gateway.fhir import json as fhir_json

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "hl7v2"
#: Longest time for one input, in seconds: a message of this size converts in a few milliseconds.
SLOW = 2.0
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: Bytes that mean something to a reader, so that mutations reach beyond "no MSH segment".
_TELLING = [b"|", b"|", b"^", b"^", b"~", b"\\", b"&", b"\r", b"\n", b'""', b"\x0b", b"\x1c", b"\x00", b"\xff",
            b"\x81\x30\x81\x30", b"\\X4", b"\\.br\\", b"\\X00\\", b"-", b".", b"1e999", b"99999999", b"0000",
            b"\xe4\xb8\xad", b"ED", b"SN", b"NA", b"CE", b"MSH|", b"PID|", b"OBX|", b"OBR|", b"SPM|", b"MRG|", b"NTE|",
            b"Z", b"\xef\xbb\xbf", b"^^^^"]


class Failure(AssertionError):
    """An input that did what none may do."""


@dataclass(slots=True)
class Tally:
    """What became of the inputs."""

    inputs: int = 0
    changed: int = 0  # bytes
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds

    def row(self) -> str:
        """One line to print."""
        said = ", ".join(f"{name} {count:,}" for name, count in self.outcomes.most_common())
        return (f"{self.inputs:,} inputs, {self.changed:,} bytes changed: {said}; slowest {self.slowest * 1000:.0f} ms")


def seeds() -> list[bytes]:
    """Messages to start from: the adapters' examples and, where it lies beside the checkout, the public corpus."""
    paths = [*sorted(SHIPPED_ADAPTERS.glob("*/examples/*.hl7")), *sorted(CORPUS.rglob("*.hl7"))]
    found = dict.fromkeys(raw for path in paths for raw in hl7v2.split(path.read_bytes()) if len(raw) < 20_000)
    return list(found)


def adapters() -> list[Adapter]:
    """Every shipped hospital: their tables, charsets and hooks read messages differently."""
    return [load(path.parent) for path in sorted(SHIPPED_ADAPTERS.glob("*/manifest.toml"))]


def mutated(rng: random.Random, seed: bytes, other: bytes) -> tuple[bytes, int]:
    """A message with some of its bytes changed, and how many."""
    data, changed = bytearray(seed), 0
    header = seed.replace(b"\n", b"\r").find(b"\r") + 1
    any_byte = rng.random() < 0.1  # most keep to ASCII, or the character set would be the reason of every refusal
    for _ in range(rng.choice((1, 1, 2, 4, 8, 16, 64))):
        # most leave MSH alone: without it a message is refused before it is read
        at = rng.randrange(min(header, len(data)) if rng.random() < 0.9 else 0, len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:  # other bytes
            for n in range(at, min(len(data), at + rng.choice((1, 1, 4, 40)))):
                data[n] = rng.randrange(256) if any_byte else rng.randrange(32, 127)
                changed += 1
        elif kind == 1:  # something that means something
            piece = rng.choice(_TELLING)
            data[at:at] = piece
            changed += len(piece)
        elif kind == 2:  # less
            gone = data[at:at + rng.choice((1, 8, 80))]
            del data[at:at + len(gone)]
            changed += len(gone)
        elif kind == 3 and other:  # a part of another message
            begin = rng.randrange(len(other))
            piece = other[begin:begin + rng.choice((10, 100, 400))]
            data[at:at] = piece
            changed += len(piece)
        else:
            changed += _segments(rng, data, kind)
    return bytes(data), changed


def _segments(rng: random.Random, data: bytearray, kind: int) -> int:
    """Segments in another order, twice, or a field of one in the place of another's."""
    lines = bytes(data).replace(b"\n", b"\r").split(b"\r")
    if len(lines) < 3:
        return 0
    first, second = rng.randrange(1, len(lines)), rng.randrange(1, len(lines))
    if kind == 4:
        lines[first], lines[second] = lines[second], lines[first]
        changed = 2  # their places
    elif kind == 5:
        lines.insert(second, lines[first])
        changed = len(lines[first])
    else:
        one, two = lines[first].split(b"|"), lines[second].split(b"|")
        a, b = rng.randrange(len(one)), rng.randrange(len(two))
        one[a] = two[b]
        lines[first] = b"|".join(one)
        changed = len(two[b])
    data[:] = b"\r".join(lines)
    return changed


def try_one(raw: bytes, adapter: Adapter, tally: Tally) -> None:
    """All that the gateway does with a block before it is stored: only a refusal may come of it."""
    began = time.perf_counter()
    for piece in hl7v2.split(raw) or [raw]:
        try:
            header = hl7v2.peek(piece)
        except GatewayError as error:
            outcome = error.category.value
        else:
            outcome = _convert(piece, header, adapter)
            answer = hl7v2.ack(header, "AA", now=_NOW, control_id="1")
            if not answer.startswith(b"MSH"):
                raise Failure(f"an answer that is none: {answer[:20]!r}")
        tally.outcomes[outcome] += 1
    _frame(raw)
    seconds = time.perf_counter() - began
    tally.inputs += 1
    tally.slowest = max(tally.slowest, seconds)
    if seconds > SLOW:
        raise Failure(f"took {seconds:.1f} s")


def _convert(piece: bytes, header: hl7v2.Header, adapter: Adapter) -> str:
    try:
        message = adapter.parse(piece)
        conversion = adapter.convert_hl7(message, header.sending_facility)
        for change in conversion.changes:
            check.require_valid(change.resource, profile=True)
            fhir_json.dumps(change.resource)
    except GatewayError as error:
        if error.category.value == "fault" or not error.message:
            raise Failure(f"a refusal without a reason at {error.where}") from error
        return error.category.value
    return "accepted"


def _frame(raw: bytes) -> None:
    frames = Frames(1 << 20)
    try:
        for begin in range(0, len(raw), 97):
            frames.feed(raw[begin:begin + 97])
            while frames.next() is not None:
                pass
    except (NotMllp, TooLarge):
        pass


def run(total: int, seed: int, starts: Sequence[bytes], hospitals: Sequence[Adapter]) -> Tally:
    """Change at least ``total`` bytes; a `Failure`, or whatever escapes, names the input by its number."""
    tally = Tally()
    for number in _numbers(tally, total):
        rng = random.Random(seed << 32 | number)
        raw, changed = mutated(rng, rng.choice(starts), rng.choice(starts))
        tally.changed += changed
        try:
            try_one(raw, _hospital(rng, raw, hospitals), tally)
        except Exception as error:
            error.add_note(f"input {number} of seed {seed}: {raw[:2000]!r}")
            raise
    return tally


def _hospital(rng: random.Random, raw: bytes, hospitals: Sequence[Adapter]) -> Adapter:
    """Mostly the one that the message names, else `generic`; now and then any, whose character set may not fit."""
    if rng.random() < 0.1:
        return rng.choice(hospitals)
    named = [one for one in hospitals if any(facility.encode() in raw[:200] for facility in one.sending_facility)]
    return next(iter(named or [one for one in hospitals if one.per_facility] or hospitals))


def _numbers(tally: Tally, total: int) -> Iterable[int]:
    number = 0
    while tally.changed < total:
        yield number
        number += 1


def _guided(starts: Sequence[bytes], hospitals: Sequence[Adapter], arguments: list[str]) -> None:
    try:
        import atheris
    except ImportError:
        raise click.ClickException("atheris is not installed; install the extra `fuzz`") from None
    tally = Tally()

    def one(data: bytes) -> None:
        rng = random.Random(data[:8])
        start = rng.choice(starts)
        at = rng.randrange(len(start) + 1)
        raw = start[:at] + data[8:] + start[at:]
        try_one(raw, _hospital(rng, raw, hospitals), tally)
        try_one(data, hospitals[0], tally)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


@click.command()
@click.option("--bytes", "total", type=click.IntRange(1), default=10_000_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--guided", is_flag=True, help="Let atheris choose the inputs; further arguments are libFuzzer's.")
@click.argument("arguments", nargs=-1)
def main(total: int, seed: int, guided: bool, arguments: tuple[str, ...]) -> None:
    """Try changed messages and say what became of them."""
    starts, hospitals = seeds(), adapters()
    if guided:
        _guided(starts, hospitals, list(arguments))
        return
    run(max(1, total // 20), seed + 1, starts, hospitals)  # fills every cache
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    tally = run(total, seed, starts, hospitals)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    click.echo(f"{tally.row()}; memory grew by {grown / 1024:.0f} MB; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
