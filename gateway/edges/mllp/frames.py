"""MLLP blocks out of a stream of bytes (MLLP Release 1): ``<VT>`` content ``<FS><CR>``."""

from __future__ import annotations

START, END = 0x0B, 0x1C  # <VT> and <FS>
_NOISE = b"\r\n"
_HEADERS = (b"MSH", b"FHS", b"BHS")
_HEAD = 65536


def block(content: bytes) -> bytes:
    """Content as it goes onto the wire."""
    return b"\x0b" + content + b"\x1c\r"


class TooLarge(Exception):
    """A block grew beyond the limit; ``head`` is its beginning."""

    def __init__(self, head: bytes) -> None:
        super().__init__("block too large")
        self.head = head


class NotMllp(Exception):
    """Bytes between blocks that are no noise: the framing is lost."""


class Frames:
    """Cuts a stream of bytes into MLLP blocks; where the stream is cut into packets changes nothing.

    CR and LF between blocks are noise, and the CR after FS may be missing. A VT before MSH, FHS or BHS inside a block
    starts it anew (the sender broke off and began again); any other VT is content: a word processor's line break.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self.broken_off = 0  # blocks that were begun and never ended

    def feed(self, data: bytes) -> None:
        """Add what has been received."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole block's content, or None when more bytes are needed."""
        buffer = self._buffer
        if not buffer:
            return None
        if self._scanned == 0:
            rest = bytes(buffer).lstrip(_NOISE) if buffer[0] in _NOISE else buffer
            if rest is not buffer:
                buffer[:] = rest
            if not buffer:
                return None
            if buffer[0] != START:
                raise NotMllp
            self._scanned = 1
        end = buffer.find(END, self._scanned)
        if (end if end >= 0 else len(buffer)) - 1 > self._max:
            raise TooLarge(bytes(buffer[1:_HEAD]))
        if end < 0:
            self._scanned = len(buffer)
            return None
        content = bytes(buffer[1:end])
        del buffer[:end + 1]
        self._scanned = 0
        return self._last_start(content)

    def _last_start(self, content: bytes) -> bytes:
        if START not in content:
            return content
        begin = max(content.rfind(bytes([START]) + header) for header in _HEADERS)
        if begin < 0:
            return content
        self.broken_off += 1
        return content[begin + 1:]

    @property
    def open(self) -> bool:
        """Whether a block has begun and not ended."""
        return self._scanned > 0

    def __len__(self) -> int:
        return len(self._buffer)
