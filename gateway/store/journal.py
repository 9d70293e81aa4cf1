"""Messages that are being worked on, in memory that outlives this process: recorded before they are read.

An inbox row before the conversion and its end behind it are two transactions a message. The raw bytes of one that is
short go into a slot of a file instead, mapped into memory: when the process is killed, the kernel still has it. The
row is written with the resources, and the slot is free again. What the slots of a dead process hold goes into the
inbox at the next start (`Store.inbox_received`).

A slot need not outlive a power failure: nothing was said to the sender of such a message, who has it still. One that
is acknowledged before it is read is recorded in the inbox at once (`Store.record`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import struct
import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import orjson

from gateway.store.inbox import Arrival

log = logging.getLogger("huren.store")

SLOT = 16 * 1024
SLOTS = 256
_HEAD = struct.Struct("<III")  # bytes in all (0: free), CRC-32 begun with what follows, bytes of the JSON
_REMEMBERED = 1024


class Journal:
    """The file of one process, made when it is first written to; safe from many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._free: deque[int] = deque()
        self._map: mmap.mmap | None = None
        self._file = -1
        self._path = folder
        self._ended = False

    def put(self, arrival: Arrival) -> int | None:
        """Keep an arrival; its slot, or None where it is too long, or all slots are taken, or there is no room."""
        head = orjson.dumps([arrival.protocol, arrival.peer, arrival.control_id, arrival.facility, arrival.dict,
                             arrival.received, arrival.digest.hex()])
        content = head + arrival.raw
        if len(content) > SLOT - _HEAD.size or not self._opened():
            return None
        try:
            slot = self._free.popleft()
        except IndexError:
            return None
        assert self._map is not None
        at = slot * SLOT
        self._map[at + _HEAD.size:at + _HEAD.size + len(content)] = content
        checksum = zlib.crc32(content, len(head))
        self._map[at:at + _HEAD.size] = _HEAD.pack(len(content), checksum, len(head))  # last: now it counts
        return slot

    def free(self, slot: int) -> None:
        """This arrival is in the inbox now."""
        assert self._map is not None
        self._map[slot * SLOT:slot * SLOT + 4] = b"\0\0\0\0"
        self._free.append(slot)

    def close(self) -> None:
        """Leave what is still kept to the next start."""
        with self._lock:
            self._ended = True
            if self._file < 0:
                return
            if len(self._free) == SLOTS:
                self._path.unlink(missing_ok=True)
            self._free.clear()
            fcntl.flock(self._file, fcntl.LOCK_UN)  # the mapping holds the file open, and the lock with it
            os.close(self._file)
            self._file = -1

    @contextlib.contextmanager
    def left(self) -> Iterator[list[Arrival]]:
        """What dead processes were at; their files are removed when the block ends well."""
        arrivals: list[Arrival] = []
        with contextlib.ExitStack() as stack:
            taken = []
            for path in sorted(self._folder.glob("*-*")):
                try:
                    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                stack.callback(os.close, file)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # its process lives
                arrivals += _read(os.pread(file, SLOT * SLOTS, 0))
                taken.append(path)
            yield arrivals
            for path in taken:
                path.unlink(missing_ok=True)

    def _opened(self) -> bool:
        if self._map is not None or self._ended:
            return not self._ended
        with self._lock:
            if self._map is None and not self._ended:
                try:
                    self._open()
                except OSError as error:
                    log.warning("no journal of arrivals (%s): each message is recorded in a transaction of its own",
                                error.strerror)
                    self._ended = True
        return not self._ended

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # held as long as this process lives
            if not os.fstat(file).st_nlink:  # a process that has just started was faster, and took it for a dead one's
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            os.posix_fallocate(file, 0, SLOT * SLOTS)  # a full disk is found now, not by a signal in the midst
            mapped = mmap.mmap(file, SLOT * SLOTS)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._path, self._file = path, file
        self._free.extend(range(SLOTS))
        self._map = mapped


def _read(content: bytes) -> Iterator[Arrival]:
    for at in range(0, len(content) - SLOT + 1, SLOT):
        size, checksum, head = _HEAD.unpack_from(content, at)
        kept = content[at + _HEAD.size:at + _HEAD.size + size]
        if 0 < size <= SLOT - _HEAD.size and zlib.crc32(kept, head) == checksum:
            protocol, peer, control_id, facility, number, received, digest = orjson.loads(kept[:head])
            yield Arrival(bytes.fromhex(digest), protocol, peer, control_id, facility, number, kept[head:], received)


class Noted:
    """The messages of this process that are in its journal and not in the inbox yet, by ids below 0.

    The row of a message gives it its id: so ids are in the order in which messages ended, over all processes.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._next = 0
        self._slots: dict[bytes, tuple[int, int]] = {}  # digest → id, slot
        self.arrivals: dict[int, Arrival] = {}
        self.rows: OrderedDict[int, int] = OrderedDict()  # the last that got a row: two threads may be at one message

    def note(self, arrival: Arrival) -> int | None:
        """The id of an arrival that is safe now; None: record it in the inbox."""
        with self._lock:
            if known := self._slots.get(arrival.digest):
                return known[0]  # the same bytes on another connection, or again after BUSY
            if (slot := self._journal.put(arrival)) is None:
                return None
            self._next -= 1
            self._slots[arrival.digest] = self._next, slot
            self.arrivals[self._next] = arrival
            return self._next

    def by_digest(self, digest: bytes) -> int:
        """The id of what is noted of these bytes, 0 for nothing."""
        known = self._slots.get(digest)
        return known[0] if known else 0

    def written(self, rows: Mapping[int, int]) -> None:
        """These have rows of the inbox now."""
        with self._lock:
            for number, inbox_id in rows.items():
                if arrival := self.arrivals.pop(number, None):
                    self._journal.free(self._slots.pop(arrival.digest)[1])
                    self.rows[number] = inbox_id
            while len(self.rows) > _REMEMBERED:
                self.rows.popitem(last=False)

    def left(self) -> AbstractContextManager[list[Arrival]]:
        """What dead processes had noted; their journals are removed when the block ends well."""
        return self._journal.left()

    def close(self) -> None:
        """No more is noted."""
        self._journal.close()
