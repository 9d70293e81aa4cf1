"""Bodies in and out: zstd with dictionaries trained from the data itself, a chain of them for each kind of content.

A *kind* is a resource type's name, ``raw:<protocol>`` of the inbox or ``facts`` of DICOM instances. Each stored body
carries the number of its dictionary, 0: none. Dictionaries are never changed or removed, only added.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import zstandard

from gateway.errors import Category, GatewayError

log = logging.getLogger("huren.store")

#: After how many samples a kind's next dictionary is trained, how many samples it sees, and its size in bytes.
STAGES: tuple[tuple[int, int, int], ...] = ((200, 200, 16 * 1024), (10_000, 3_000, 32 * 1024))
LEVEL = 3  # 1.8 µs and 86 bytes an Observation; level 6: 6.5 µs and 78 bytes
#: zstd's own search tables have 768 kB for each dictionary, which are out of the processor's caches at a kind's next
#: content. What is little but references, all different, finds no less in 48 kB, in half the time.
_TABLES: dict[str, dict[str, int]] = {"Provenance": {"hash_log": 13, "chain_log": 12, "min_match": 6}}
_SAMPLE_BYTES = 64 * 1024  # longer contents are cut: a dictionary gains nothing from their ends
_KEEP_BYTES = 8 * 1024 * 1024  # of samples of one kind
#: What is no person's and comes unchanged with every message: once compressed, its body is remembered if it is short.
_SHARED = frozenset(("Device", "HealthcareService", "Location", "Organization", "Practitioner", "PractitionerRole"))
_SHARED_BYTES = 2048


class _Coder:
    """Contexts for one dictionary. zstd's are not thread-safe: a thread takes one and gives it back."""

    def __init__(self, dictionary: bytes | None) -> None:
        self._data = data = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
        self._parameters: zstandard.ZstdCompressionParameters | None = None
        self._lock = threading.Lock()
        self._new_out = lambda: zstandard.ZstdDecompressor(dict_data=data, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
        self._in: deque[zstandard.ZstdCompressor] = deque()
        self._out: deque[zstandard.ZstdDecompressor] = deque()
        self.again = lru_cache(maxsize=256)(self.compress)

    def _new_in(self, kind: str) -> zstandard.ZstdCompressor:
        with self._lock:
            if self._parameters is None:
                self._parameters = zstandard.ZstdCompressionParameters.from_level(
                    LEVEL, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=True, write_dict_id=False,
                    write_checksum=False, **(_TABLES.get(kind, {}) if self._data is not None else {}))
                if self._data is not None:
                    self._data.precompute_compress(compression_params=self._parameters)
        return zstandard.ZstdCompressor(dict_data=self._data, compression_params=self._parameters)

    def compress(self, content: bytes, kind: str) -> bytes:
        """A dictionary is of one kind; without one, the kind makes no difference."""
        try:
            context = self._in.pop()
        except IndexError:
            context = self._new_in(kind)
        body = context.compress(content)
        self._in.append(context)
        return body

    def decompress(self, body: bytes) -> bytes:
        try:
            context = self._out.pop()
        except IndexError:
            context = self._new_out()
        content = context.decompress(body)
        self._out.append(context)
        return content


@dataclass(slots=True)
class _Kind:
    """What a kind's next dictionary will be made of."""

    stage: int = 0  # how many dictionaries of the chain exist
    current: int = 0  # number of the newest
    seen: int = 0
    samples: list[bytes] = field(default_factory=list)
    size: int = 0
    training: bool = False
    random: random.Random = field(default_factory=lambda: random.Random(0))


class Codec:
    """Compress and decompress; trains dictionaries in the background.

    ``load(number)`` reads one dictionary, ``newest(kind)`` gives (stage, number) of a kind's newest, ``add(kind,
    stage, data)`` stores a dictionary unless that stage exists and returns the number that holds now.
    """

    def __init__(self, load: Callable[[int], bytes | None], newest: Callable[[str], tuple[int, int]],
                 add: Callable[[str, int, bytes], int]) -> None:
        self._load, self._newest, self._add = load, newest, add
        self._coders: dict[int, _Coder] = {0: _Coder(None)}
        self._kinds: dict[str, _Kind] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.closed = False

    def compress(self, kind: str, content: bytes) -> tuple[int, bytes]:
        """The dictionary's number and the body."""
        state = self._kinds.get(kind) or self._first(kind)
        if state.stage < len(STAGES) and not state.training:
            self._sample(kind, state, content)
        number = state.current
        coder = self._coders.get(number) or self._coder(number)
        if kind in _SHARED and len(content) <= _SHARED_BYTES:
            return number, coder.again(content, kind)
        return number, coder.compress(content, kind)

    def decompress(self, number: int, body: bytes) -> bytes:
        """The content of a body; FAULT when it or its dictionary is damaged."""
        try:
            return (self._coders.get(number) or self._coder(number)).decompress(body)
        except (zstandard.ZstdError, MemoryError):  # the size in a damaged head may be anything
            raise GatewayError(Category.FAULT, "a stored body cannot be decompressed: restore it from a backup",
                               f"dictionary {number}") from None

    def close(self) -> None:
        """Let running trainings end; they add nothing any more."""
        self.closed = True
        for thread in self._threads:
            thread.join(timeout=10)

    def wait(self) -> None:
        """Until running trainings have ended (tests, benchmarks)."""
        for thread in list(self._threads):
            thread.join()

    def _coder(self, number: int) -> _Coder:
        coder = self._coders.get(number)
        if coder is None:
            data = self._load(number)
            if data is None:
                raise GatewayError(Category.FAULT, "a compression dictionary is missing: restore it from a backup",
                                   f"dictionary {number}")
            coder = self._coders.setdefault(number, _Coder(data))
        return coder

    def _first(self, kind: str) -> _Kind:
        stage, number = self._newest(kind)
        if number:
            self._coder(number)
        with self._lock:
            return self._kinds.setdefault(kind, _Kind(stage=stage, current=number))

    def _sample(self, kind: str, state: _Kind, content: bytes) -> None:
        """Reservoir sampling, so that the samples stand for all that was seen."""
        after, count, _ = STAGES[state.stage]
        with self._lock:
            state.seen += 1
            content = content[:_SAMPLE_BYTES]
            if len(state.samples) < count and state.size < _KEEP_BYTES:
                state.samples.append(content)
                state.size += len(content)
            elif (place := state.random.randrange(state.seen)) < len(state.samples):
                state.size += len(content) - len(state.samples[place])
                state.samples[place] = content
            if state.seen < after or state.training or self.closed:
                return
            state.training = True
        thread = threading.Thread(target=self._train, args=(kind, state), name=f"dictionary-{kind}", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def _train(self, kind: str, state: _Kind) -> None:
        _, _, size = STAGES[state.stage]
        try:
            stage, number = self._newest(kind)
            if stage <= state.stage:  # no other process was faster
                data = _trained(size, state.samples)
                if self.closed or not data:
                    return
                stage, number = state.stage + 1, self._add(kind, state.stage + 1, data)
            self._coder(number)
            state.current, state.stage = number, stage
        except GatewayError as error:  # the database is away: the next thousand contents are samples again
            log.warning("dictionary of %s not stored: %s", kind, error.category.value)
        finally:
            with self._lock:
                state.samples, state.size, state.seen = [], 0, 0
                state.training = False


def _trained(size: int, samples: list[bytes]) -> bytes:
    """A dictionary of at most ``size`` bytes, or nothing where the samples are too few or too alike for one."""
    total = sum(map(len, samples))
    try:
        return zstandard.train_dictionary(min(size, max(total // 4, 256)), list(samples), k=1000, d=8).as_bytes()
    except zstandard.ZstdError:
        return b""
