"""Compressed bodies and dictionaries; keys of resources."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import observation, put

from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.store import Store, codec, open_store, types
from gateway.store.codec import Codec
from gateway.store.model import Put, Unit

IDS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=64)


class _Dictionaries:
    """Where a Codec keeps its dictionaries, shared by two of them."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, bytes]] = []
        self.lock = threading.Lock()

    def codec(self) -> Codec:
        return Codec(self.load, self.newest, self.add)

    def load(self, number: int) -> bytes | None:
        return self.rows[number - 1][2] if number <= len(self.rows) else None

    def newest(self, kind: str) -> tuple[int, int]:
        found = [(stage, n) for n, (k, stage, _) in enumerate(self.rows, 1) if k == kind]
        return max(found, default=(0, 0))

    def add(self, kind: str, stage: int, data: bytes) -> int:
        with self.lock:
            for n, (k, s, _) in enumerate(self.rows, 1):
                if (k, s) == (kind, stage):
                    return n
            self.rows.append((kind, stage, data))
            return len(self.rows)


def _content(n: int) -> bytes:
    return (b'{"status":"final","code":{"coding":[{"system":"http://loinc.org","code":"%d-1","display":"Glucose"}]},'
            b'"subject":{"reference":"Patient/%032x"},"valueQuantity":{"value":%d.%d,"unit":"mmol/L"}}' %
            (n % 30, n * 7919, n, n % 10))


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_what_goes_in_comes_out(contents: list[bytes]) -> None:
    """Any bytes, in any order."""
    c = _Dictionaries().codec()
    packed = [c.compress("Observation", content) for content in contents]
    assert contents == [c.decompress(*p) for p in packed]


def test_dictionaries_are_trained_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some samples bodies shrink; another process reads them and goes on with the same dictionary."""
    monkeypatch.setattr(codec, "STAGES", ((200, 200, 4096), (1000, 500, 8192)))
    shared = _Dictionaries()
    one, two = shared.codec(), shared.codec()
    plain = one.compress("Observation", _content(1))
    assert 0 == plain[0]
    for n in range(200):
        one.compress("Observation", _content(n))
    one.wait()
    number, body = one.compress("Observation", _content(1))
    assert number == 1 and len(body) < len(plain[1]) / 2
    assert _content(1) == two.decompress(number, body) == two.decompress(*plain)
    assert 1 == two.compress("Observation", _content(2))[0]
    for n in range(1000):
        two.compress("Observation", _content(n))
    two.wait()
    assert [("Observation", 1), ("Observation", 2)] == [(k, s) for k, s, _ in shared.rows]
    assert _content(5) == one.decompress(*two.compress("Observation", _content(5)))
    for n in range(1000):
        one.compress("Observation", _content(n))
    one.wait()
    assert 2 == len(shared.rows) and 2 == one.compress("Observation", _content(1))[0]
    assert 0 == one.compress("Patient", _content(1))[0]


def test_what_is_shared_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short Organization that comes again is remembered for each dictionary; of a Patient nothing is."""
    monkeypatch.setattr(codec, "STAGES", ((100, 100, 4096),))
    compressed: list[bytes] = []
    real = codec._Coder.compress

    def noted(self: Any, one: bytes, kind: str) -> bytes:
        compressed.append(one)
        return real(self, one, kind)

    monkeypatch.setattr(codec._Coder, "compress", noted)
    c = _Dictionaries().codec()
    content, long = _content(0), b"x" * (codec._SHARED_BYTES + 1)
    before = [c.compress("Organization", content) for _ in range(3)]
    for n in range(1, 100):
        c.compress("Organization", _content(n))
    c.wait()
    after = [c.compress("Organization", content) for _ in range(3)]
    assert ([before[0]] * 3, [after[0]] * 3, 2) == (before, after, compressed.count(content))
    assert before[0][0] == 0 < after[0][0] and c.decompress(*before[0]) == c.decompress(*after[0]) == content
    for kind, one in (("Patient", content), ("Organization", long)):
        compressed.clear()
        assert [one, one] == [c.decompress(*c.compress(kind, one)) for _ in range(2)]
        assert compressed == [one, one]


def _references(n: int) -> bytes:
    targets = b",".join(b'{"reference":"Observation/%032x"}' % (n * 7919 ** 5 * (at + 1)) for at in range(1 + n % 9))
    return b'{"target":[%s],"recorded":"2026-11-22T08:00:00+08:00","activity":{"text":"ORU^R01"}}' % targets


def test_small_tables_take_no_more_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind with search tables of its own is no larger for it, and what was written without them reads the same."""
    monkeypatch.setattr(codec, "STAGES", ((200, 200, 16384),))
    contents, sizes = [_references(n) for n in range(1, 400)], []
    for tables in (codec._TABLES, {}):
        monkeypatch.setattr(codec, "_TABLES", tables)
        dictionaries = _Dictionaries()
        c = dictionaries.codec()
        for content in contents:
            c.compress("Provenance", content)
            c.wait()
        assert dictionaries.rows
        packed = [c.compress("Provenance", content) for content in contents]
        assert contents == [dictionaries.codec().decompress(*one) for one in packed]
        sizes.append(sum(len(body) for _, body in packed))
    assert sizes[0] <= sizes[1]


def test_samples_without_anything_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no dictionary can be made, bodies stay plain and readable."""
    monkeypatch.setattr(codec, "STAGES", ((10, 10, 4096),))
    c = _Dictionaries().codec()
    for n in range(30):
        assert b"%d" % n == c.decompress(*c.compress("Basic", b"%d" % n))
    c.wait()


def test_many_threads_share_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrent use gives each its own bytes back, also while a dictionary is being trained."""
    monkeypatch.setattr(codec, "STAGES", ((300, 200, 4096), (1500, 500, 8192)))
    c, wrong = _Dictionaries().codec(), []

    def work(seed: int) -> None:
        for n in range(seed, seed + 800):
            content = _content(n) * (1 + n % 5)
            if c.decompress(*c.compress("Observation", content)) != content:
                wrong.append(n)
    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    c.wait()
    assert [] == wrong


def test_a_damaged_body_or_a_missing_dictionary_is_a_fault() -> None:
    """Never wrong content, and the sentence names no data."""
    c = _Dictionaries().codec()
    for number, body in ((0, b"\x00garbage"), (0, c.compress("Basic", _content(1))[1][:-3]), (7, b"x")):
        with pytest.raises(GatewayError) as caught:
            c.decompress(number, body)
        assert Category.FAULT is caught.value.category


def test_the_store_keeps_its_dictionaries(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies of every stage are read by another process; equal content under another dictionary is no change."""
    monkeypatch.setattr(codec, "STAGES", ((100, 100, 4096), (400, 200, 8192)))
    resources = [observation(f"o{n}", f"p{n % 9}", str(n)) for n in range(600)]
    for at in range(0, 600, 50):
        store.write(Unit([Put(r) for r in resources[at:at + 50]]), GATEWAY)
        store.codec.wait()
    with store._database.read() as reader:
        numbers = {n for n, in reader.all("SELECT DISTINCT dict FROM resource")}
    assert 3 == len(numbers)
    other = open_store(settings)
    try:
        assert {"unchanged"} == {w.outcome for w in other.write(Unit([Put(r) for r in resources]), GATEWAY)}
        assert [b'"value":%d,' % n in other.read("Observation", f"o{n}", GATEWAY).tail  # type: ignore[union-attr]
                for n in range(600)] == [True] * 600
    finally:
        other.close()


# -------------------------------------------------------------------- keys


@given(IDS, st.sampled_from(types.NAMES))
def test_keys_read_back(resource_id: str, resource_type: str) -> None:
    """Type and id of a key are those it was made of."""
    key = types.key(resource_type, resource_id)
    assert (resource_type, resource_id) == (types.type_of(key), types.id_of(key))


@given(st.sets(IDS | st.uuids().map(str) | st.uuids().map(lambda u: str(u).upper()) | st.uuids().map(lambda u: u.hex),
               max_size=50))
def test_different_ids_have_different_keys(ids: set[str]) -> None:
    """No two ids share a key."""
    assert len(ids) == len({types.pack(i) for i in ids})


def test_a_uuid_takes_sixteen_bytes() -> None:
    """What all our own ids are."""
    assert 17 == len(types.key("Observation", "11111111-2222-5333-8444-55555555abcd"))


def test_type_numbers_never_change() -> None:
    """They stand in stored data."""
    assert (1, 40, 96, 103, 146) == tuple(types.number_of(n) for n in (
        "Account", "DiagnosticReport", "Observation", "Patient", "VisionPrescription"))


def test_long_bodies(store: Store) -> None:
    """A resource of several megabytes reads back."""
    big: dict[str, Any] = observation("big", "p1") | {"note": [{"text": "检验" * 700_000}]}
    put(store, big)
    row = store.read("Observation", "big", GATEWAY)
    assert row is not None and len(row.tail) > 4_000_000
