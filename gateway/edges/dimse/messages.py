"""DIMSE command sets (PS3.7 6.3, E.1): the five elements that matter of a request, and responses packed by hand.

Encoding a response of 150 bytes through a data set costs more than all the rest of a C-STORE.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from gateway.errors import Category, GatewayError

C_STORE_RQ, C_ECHO_RQ = 0x0001, 0x0030
NO_DATA_SET = 0x0101
SUCCESS = 0x0000
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.6
UNRECOGNIZED_OPERATION = 0x0211  # PS3.7 C.5.10
#: Command sets hold UIDs and numbers: more than this is none.
COMMAND_LIMIT = 16 * 1024

_HEAD = struct.Struct("<HHL")
_UID = re.compile(r"[0-9.]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Command:
    """A request's command set."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class: str
    sop_instance: str

    def response(self, status: int, comment: str = "", offending: int = 0) -> bytes:
        """The response's command set, implicit VR little endian: elements in the order of their tags."""
        sop_class = _element(0x0002, _uid(self.sop_class)) if self.sop_class else b""
        body = sop_class + _element(0x0100, _short(self.field | 0x8000)) + _element(0x0120, _short(self.message_id)) \
            + _element(0x0800, _short(NO_DATA_SET)) + _element(0x0900, _short(status))
        if offending:
            body += _element(0x0901, struct.pack("<HH", offending >> 16, offending & 0xFFFF))
        if comment:
            body += _element(0x0902, _even(comment.encode("ascii", "replace")[:64], b" "))
        if self.sop_instance:
            body += _element(0x1000, _uid(self.sop_instance))
        return _element(0x0000, struct.pack("<L", len(body))) + body


def read_command(data: bytes) -> Command:
    """A request's command set; MALFORMED where it is none."""
    values: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(data):
        group, element, length = _HEAD.unpack_from(data, at)
        at += 8
        if group != 0 or at + length > len(data):
            raise GatewayError(Category.MALFORMED, "the command set cannot be read", "(0000,0100)")
        values[element] = data[at:at + length]
        at += length
    field, message_id, data_set = (_number(values, element) for element in (0x0100, 0x0110, 0x0800))
    return Command(field, message_id, data_set != NO_DATA_SET, _text(values, 0x0002), _text(values, 0x1000))


def p_data(context_id: int, command_set: bytes, maximum_length: int) -> bytes:
    """A command set as P-DATA-TF PDUs within the peer's maximum length; 0: no limit (PS3.8 D.1)."""
    step = max(maximum_length - 6, 64) if maximum_length else len(command_set)
    out = []
    for at in range(0, len(command_set), step):
        part = command_set[at:at + step]
        control = 3 if at + step >= len(command_set) else 1
        out.append(struct.pack(">BxLLBB", 4, len(part) + 6, len(part) + 2, context_id, control) + part)
    return b"".join(out)


def _number(values: dict[int, bytes], element: int) -> int:
    raw = values.get(element, b"")
    if len(raw) < 2:
        raise GatewayError(Category.MALFORMED, "the command set lacks a number", f"(0000,{element:04X})")
    return int.from_bytes(raw[:2], "little")


def _text(values: dict[int, bytes], element: int) -> str:
    text = values.get(element, b"").split(b"\x00", 1)[0].decode("ascii", "replace").strip()
    if text and not _UID.match(text):
        raise GatewayError(Category.MALFORMED, "the command set holds a UID that is none", f"(0000,{element:04X})")
    return text


def _element(element: int, value: bytes) -> bytes:
    return _HEAD.pack(0, element, len(value)) + value


def _short(number: int) -> bytes:
    return struct.pack("<H", number)


def _uid(text: str) -> bytes:
    return _even(text.encode("ascii"), b"\x00")


def _even(raw: bytes, pad: bytes) -> bytes:
    return raw + pad if len(raw) % 2 else raw
