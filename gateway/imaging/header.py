"""Read a DICOM object's header: bytes or a binary file → `Facts`. Pure: it reads the given object only.

Our own walk over the elements instead of pydicom's `dcmread`: with all values decoded it takes 0.06 to 0.2 ms, where
`dcmread` takes 0.25 to 0.6 before any value is, on the path of every C-STORE; and its limits hold on hostile files
(depth of sequences, length of values, size of what a deflated object becomes). pydicom is the judge in the tests.
"""

from __future__ import annotations

import re
import zlib
from io import BytesIO
from struct import Struct
from typing import BinaryIO

from gateway.errors import Category, GatewayError
from gateway.imaging.charset import Charset, clean, name_groups
from gateway.imaging.facts import FACTS, LAST, Facts, Row

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"

#: Sequences nested deeper than this are an attack, not a study.
MAX_DEPTH = 64
#: A fact longer than this is not read: LT, the longest kind, holds 10,240 characters (PS3.5 6.2).
MAX_VALUE = 32 * 1024
#: Items of one sequence that are read; the rest is stepped over.
MAX_ITEMS = 100
#: What a deflated data set may become while its header is read.
MAX_INFLATED = 16 * 1024 * 1024
_WINDOW = 128 * 1024

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}
# PS3.5 7.1.2: VRs with two reserved bytes and a length of 32 bits
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset((b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN",
                    b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"))
_VRS = _LONG | _SHORT
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")  # PS3.5 9.1; leading zeros are common enough to be let through
_REQUIRED = {"StudyInstanceUID": "(0020,000D)", "SeriesInstanceUID": "(0020,000E)",
             "SOPInstanceUID": "(0008,0018)", "SOPClassUID": "(0008,0016)"}


def read_header(source: bytes | BinaryIO, charset: str | None = None, transfer_syntax: str = "") -> Facts:
    """The facts of one DICOM object.

    ``source``: a Part 10 object, or a bare data set; ``transfer_syntax`` is that of a bare one where it is known.
    ``charset``: what the hospital is known to use. MALFORMED: it cannot be read, or ends too early; INVALID names the
    missing or wrong UID.
    """
    reader = _Reader(source)
    meta, start = reader.meta(bare=bool(transfer_syntax))
    declared = str(meta.get("TransferSyntaxUID") or transfer_syntax)
    reader.begin(start, declared)
    facts = reader.data_set(charset)
    facts["TransferSyntaxUID"] = declared or reader.transfer_syntax()
    for keyword, place in _REQUIRED.items():
        value = facts.get(keyword) or ""
        if not value:
            raise GatewayError(Category.INVALID, f"the header has no {keyword}", place, detail="required")
        if len(value) > 64 or not _UID.fullmatch(value):
            raise GatewayError(Category.INVALID, f"{keyword} is no UID: digits and dots, at most 64", place,
                               detail="data-type")
    return facts


def header_length(source: bytes | BinaryIO, transfer_syntax: str = "") -> int:
    """How many bytes stand before the pixel data; all where there is none, or where it is deflated with the rest.

    MALFORMED as in ``read_header``.
    """
    reader = _Reader(source)
    meta, start = reader.meta(bare=bool(transfer_syntax))
    declared = str(meta.get("TransferSyntaxUID") or transfer_syntax)
    whole = reader.size
    reader.begin(start, declared)
    reader.data_set(None)
    return whole if declared == DEFLATED_LE or reader.pixels_at is None else reader.pixels_at


class _Reader:
    """A window over the object, and the walk over its elements."""

    def __init__(self, source: bytes | BinaryIO) -> None:
        if isinstance(source, bytes):
            self._file: BinaryIO | None = None
            self._data, self._base, self.size = source, 0, len(source)
        else:
            self._use(source)
        self._explicit, self._big = True, False
        self._orders()

    def _use(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        file.seek(0)
        self._data, self._base = file.read(_WINDOW), 0

    def _orders(self) -> None:
        order = ">" if self._big else "<"
        self._head = Struct(order + "HH2sH")
        self._long = Struct(order + "L")
        self._implicit = Struct(order + "HHL")
        self._short = Struct(order + "H")

    def _at(self, pos: int, length: int, tag: int = 0) -> int:
        """The offset of ``pos`` in the window, with ``length`` bytes behind it; MALFORMED past the end."""
        offset = pos - self._base
        if offset >= 0 and offset + length <= len(self._data):
            return offset
        if pos + length > self.size or self._file is None:
            raise _malformed("the object ends in the middle of an element; send it whole", tag)
        self._file.seek(pos)
        self._data, self._base = self._file.read(max(length, _WINDOW)), pos
        if len(self._data) < length:
            raise _malformed("the object ends in the middle of an element; send it whole", tag)
        return 0

    def meta(self, bare: bool) -> tuple[Facts, int]:
        """The File Meta Information (PS3.10 7.1) and where the data set starts; ``bare``: there need be none."""
        if self.size < 8:
            raise _malformed("this is no DICOM object: it has less than one element")
        prefixed = self.size >= 140 and self._data[128:132] == b"DICM"
        pos = 132 if prefixed else 0
        facts: Facts = {}
        while pos + 8 <= self.size:
            offset = self._at(pos, 8)
            if self._data[offset:offset + 2] != b"\x02\x00":
                break
            tag, _, length, value_at = self._element(pos, True)
            if tag == 0x00020010:
                offset = self._at(value_at, min(length, 128), tag)
                facts["TransferSyntaxUID"] = _ascii(self._data[offset:offset + min(length, 128)])
            pos = value_at + length
        if not prefixed and pos == 0 and not bare and self._data[:2] not in (b"\x08\x00", b"\x00\x08"):
            raise _malformed("this is no DICOM object: neither the DICM prefix nor a data set is there")
        return facts, pos

    def begin(self, pos: int, transfer_syntax: str) -> None:
        """Settle byte order and VR at the start of the data set; the bytes win over the label."""
        if transfer_syntax == DEFLATED_LE:
            self._inflate(pos)
            pos = 0
        self._start = pos
        if pos + 8 > self.size:
            raise _malformed("the object has no data set")
        offset = self._at(pos, 8)
        head = self._data[offset:offset + 8]
        self._big = transfer_syntax == EXPLICIT_BE or (not transfer_syntax and head[0] == 0 and head[1] != 0)
        self._explicit = head[4:6] in _VRS
        self._orders()

    def transfer_syntax(self) -> str:
        """What the bytes look like, for an object that does not say."""
        return EXPLICIT_BE if self._big else EXPLICIT_LE if self._explicit else IMPLICIT_LE

    def _inflate(self, pos: int) -> None:
        """PS3.5 A.5: a deflated data set is opened as far as a header may reach."""
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        out = BytesIO()
        while pos < self.size and out.tell() < MAX_INFLATED and not inflater.eof:
            length = min(_WINDOW, self.size - pos)
            offset = self._at(pos, length)
            pos += length
            try:
                out.write(inflater.decompress(self._data[offset:offset + length], MAX_INFLATED - out.tell()))
            except zlib.error:
                raise _malformed("the deflated data set cannot be opened") from None
        self._whole = inflater.eof
        self._file, self._data, self._base, self.size = None, out.getvalue(), 0, out.tell()
        if not self._whole and self.size < MAX_INFLATED:
            raise _malformed("the deflated data set ends too early; send it whole")

    _whole = True  # False: what follows the inflated part is not known
    _start = 0
    pixels_at: int | None = None

    def _element(self, pos: int, explicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty when implicit), length and place of the value (PS3.5 7.1)."""
        offset = pos - self._base
        if offset < 0 or offset + 8 > len(self._data):
            offset = self._at(pos, 8)
        group, element, vr, length = self._head.unpack_from(self._data, offset)
        tag = group << 16 | element
        if explicit and vr in _SHORT:
            return tag, vr, length, pos + 8
        # a private creator's bug in explicit objects: single elements written without VR
        if not explicit or group == 0xFFFE or not vr.isalpha() or not vr.isupper():
            return tag, b"", self._implicit.unpack_from(self._data, offset)[2], pos + 8
        if vr in _LONG:
            offset = self._at(pos, 12, tag)
            return tag, vr, self._long.unpack_from(self._data, offset + 8)[0], pos + 12
        return tag, vr, length, pos + 8

    def data_set(self, known: str | None) -> Facts:
        """Facts of the top level; ends at the pixel data, or past the last fact where the rest is not countable."""
        facts: Facts = {}
        charset = Charset((), known)
        pos = self._start
        while pos + 8 <= self.size:
            tag, vr, length, value_at = self._element(pos, self._explicit)
            if tag in _PIXEL_DATA or (tag > LAST and length == _UNDEFINED) or tag == 0xFFFCFFFC:
                if length != _UNDEFINED and value_at + length > self.size and self._whole and tag != 0xFFFCFFFC:
                    raise _malformed("the object ends inside its pixel data; send it whole", tag)
                self.pixels_at = pos if tag in _PIXEL_DATA else None
                break
            if row := FACTS.get(tag):
                pos = self._take(row, tag, vr, length, value_at, facts, charset, known, 0)
            elif length != _UNDEFINED:
                pos = value_at + length
            else:
                pos = self._skip(tag, vr, length, value_at, self._explicit, 0)
            if tag == 0x00080005:
                charset = Charset(facts.get("SpecificCharacterSet", ()), known)
            if pos > self.size:
                if tag > LAST and not self._whole:
                    break
                raise _malformed("the object ends in the middle of an element; send it whole", tag)
        return facts

    def _take(self, row: Row, tag: int, vr: bytes, length: int, value_at: int, facts: Facts, charset: Charset,
              known: str | None, depth: int, explicit: bool | None = None) -> int:
        """Read one fact into ``facts``; returns where the next element starts."""
        explicit = self._explicit if explicit is None else explicit
        if row.vr == "SQ":
            # PS3.5 6.2.2 note 2: the content of a UN sequence is implicit VR little endian
            items, pos = self._items(row.items, value_at, length, explicit and vr != b"UN", charset, known, depth)
            if items:
                facts[row.keyword] = items
            return pos
        if length == _UNDEFINED:
            return self._skip(tag, vr, length, value_at, explicit, depth)
        if length and length <= MAX_VALUE:
            offset = self._at(value_at, length, tag)
            value = self._value(row, self._data[offset:offset + length], charset)
            if value not in ("", None, [], {}):
                facts[row.keyword] = value
        return value_at + length

    def _items(self, table: dict[int, Row], pos: int, length: int, explicit: bool, charset: Charset,
               known: str | None, depth: int) -> tuple[list[Facts], int]:
        """The items of a sequence (PS3.5 7.5) and where it ends."""
        items: list[Facts] = []
        end = None if length == _UNDEFINED else pos + length
        while end is None or pos + 8 <= end:
            offset = self._at(pos, 8)
            group, element, item_length = self._implicit.unpack_from(self._data, offset)
            tag = group << 16 | element
            pos += 8
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise _malformed("a sequence holds something that is no item", tag)
            wanted = table if len(items) < MAX_ITEMS else {}
            facts, pos = self._item(wanted, pos, item_length, explicit, charset, known, depth + 1)
            if facts:
                items.append(facts)
        return items, pos if end is None else max(pos, end)

    def _item(self, table: dict[int, Row], pos: int, length: int, explicit: bool, charset: Charset,
              known: str | None, depth: int) -> tuple[Facts, int]:
        """One item's facts and where it ends."""
        if depth > MAX_DEPTH:
            raise _malformed(f"sequences are nested deeper than {MAX_DEPTH}")
        facts: Facts = {}
        if length != _UNDEFINED and not table:
            return facts, pos + length
        end = None if length == _UNDEFINED else pos + length
        while end is None or pos + 8 <= end:
            tag, vr, element_length, value_at = self._element(pos, explicit)
            if tag == _ITEM_END:
                return facts, value_at
            row = table.get(tag) or (_CHARSET if tag == 0x00080005 else None)
            pos = self._take(row, tag, vr, element_length, value_at, facts, charset, known, depth, explicit) if row \
                else self._skip(tag, vr, element_length, value_at, explicit, depth)
            if tag == 0x00080005:
                # PS3.3 C.12.1.1.2: an item may have a character set of its own
                charset = Charset(facts.pop("SpecificCharacterSet", ()), known)
        return facts, pos if end is None else max(pos, end)

    def _skip(self, tag: int, vr: bytes, length: int, value_at: int, explicit: bool, depth: int) -> int:
        """Where the element after this one starts."""
        if length != _UNDEFINED:
            return value_at + length
        if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            raise _malformed("an item stands outside of a sequence", tag)
        return self._items({}, value_at, length, explicit and vr != b"UN", _NO_CHARSET, None, depth)[1]

    def _value(self, row: Row, raw: bytes, charset: Charset) -> object:
        """One fact's value, by the VR that PS3.6 gives its keyword."""
        vr = row.vr
        if vr == "US":
            return self._short.unpack_from(raw)[0] if len(raw) >= 2 else None
        if vr == "UI":
            return _ascii(raw)
        text = charset.decode(raw)
        if vr == "PN":
            names = [groups for name in text.split("\\") if (groups := name_groups(name))]
            return names if row.many else (names[0] if names else None)
        if row.keyword == "SpecificCharacterSet":
            return [clean(value) for value in text.split("\\")] if clean(text) else []
        if row.many:
            return [value for part in text.split("\\") if (value := clean(part))]
        text = clean(text)
        if vr == "IS":
            return _integer(text)
        return text


_CHARSET = FACTS[0x00080005]
_NO_CHARSET = Charset()


def _ascii(raw: bytes) -> str:
    return raw.split(b"\x00", 1)[0].decode("ascii", errors="replace").strip()


def _integer(text: str) -> int | None:
    """IS as senders write it: ``1``, `` +3``, ``2.0``; anything else is as good as absent."""
    match = re.fullmatch(r"([+-]?\d{1,12})(?:\.0*)?", text.split("\\", 1)[0].strip())
    return int(match[1]) if match else None


def _malformed(message: str, tag: int = 0) -> GatewayError:
    where = f"({tag >> 16:04X},{tag & 0xFFFF:04X})" if tag else ""
    return GatewayError(Category.MALFORMED, message, where)
