"""Binary (binary.html): the bytes by their own type, or the resource with its data. Nothing of Flask.

The bytes lie in one of three places: in the stored resource (what a client wrote), in the object store (what a message
brought), or in the inbox (the message itself, ``Binary/hl7v2-…``, of which no resource is stored).
"""

from __future__ import annotations

import base64
import logging
import mimetypes
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway import search
from gateway.caller import GATEWAY, Caller
from gateway.edges.http.interactions import Result, Who, absent, result_of, text_of_row, version_number
from gateway.errors import Category, GatewayError
from gateway.fhir import json, resource, xml
from gateway.pipeline import document_key
from gateway.source import original_digest

if TYPE_CHECKING:
    from gateway.store import Store
    from gateway.store.model import InboxRow, Row

log = logging.getLogger("huren.http")

ER7 = "x-application/hl7-v2+er7"
_NAME, _VALUE = r"[\w!#$&^.+-]{1,127}", r"(?:[\w.:+-]{1,80}|\"[ -!#-\[\]-~]{0,80}\")"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}(?: ?; ?[\w-]{{1,40}}={_VALUE})*", re.ASCII).fullmatch
#: `gateway.source.Source.id_within`: clients' ids of ours are of version 4.
_FROM_MESSAGE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch
#: Types that a browser shows without running anything of them in our name; all others are for saving only.
_SHOWN = frozenset(("application/pdf", "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff",
                    "text/plain"))
_SUFFIXES = mimetypes.MimeTypes(())  # those of Python alone, the same on every machine
_BLOCK = 4 << 20
#: Bytes of a document that still becomes one piece of memory: in a Bundle, or where the answer is written anew.
WHOLE = 16 << 20
_MARK = "AAAA"


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that need not be in memory: ``open(start, end)`` gives them in parts."""

    media_type: str
    size: int
    open: Callable[[int, int], Iterator[bytes]]
    security: str = ""  # the reference of securityContext

    def headers(self, name: str) -> dict[str, str]:
        """For the bytes alone, as a file of this name. What a browser might run never runs as a page of this server."""
        main = self.media_type.partition(";")[0].strip().lower()
        suffix = ".hl7" if main == ER7 else _SUFFIXES.guess_extension(main) or ""
        found = {"Content-Disposition": f'{"inline" if main in _SHOWN else "attachment"}; filename="{name}{suffix}"',
                 "Accept-Ranges": "bytes", "Vary": "Accept, Authorization", "Cache-Control": "no-store"}
        if main != "application/pdf":  # browsers' own viewers refuse a sandboxed PDF; its scripts are not the page's
            found["Content-Security-Policy"] = "default-src 'none'; sandbox"
        if self.security:
            found["X-Security-Context"] = self.security
        return found


@dataclass(frozen=True, slots=True)
class Binary:
    """``result.body`` is the resource's text, without the data that ``content`` holds where ``apart``."""

    result: Result
    content: Content | None
    apart: bool


class Binaries:
    """Read and vread of Binary over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, who: Who, binary_id: str, version: str = "") -> Binary:
        """The current or one version. FORBIDDEN without the scopes, NOT_FOUND also where the bytes are lost."""
        if digest := original_digest(binary_id):
            return self._original(who.caller, binary_id, digest, version)
        number = version_number(version) if version else 0
        row = self._store.vread("Binary", binary_id, number, who.caller) if version \
            else self._store.read("Binary", binary_id, who.caller)
        result = result_of(row)
        assert row is not None  # or result_of had refused
        given: dict[str, Any] = json.loads(result.body)
        security = _reference_of(given)
        kind, slash, _ = security.partition("/")
        if slash and ":" not in kind:  # whoever may not read the Patient may not read his documents (binary.html)
            who.caller.require("r", kind)
        return self._stored(row, result, given, security)

    def whole(self, who: Who, binary_id: str, version: str = "") -> Result:
        """The resource with its data in one piece, as an entry of a Bundle has it."""
        return completed(self.find(who, binary_id, version))

    # ---------------------------------------------------------------- where the bytes lie

    def _stored(self, row: Row, result: Result, given: dict[str, Any], security: str) -> Binary:
        media_type = _media_type(given.get("contentType", ""))
        if isinstance(data := given.get("data"), str):
            held = base64.b64decode(data)
            return Binary(result, _held(media_type, held, security), apart=False)
        if not row.institution or not _FROM_MESSAGE(row.id):
            return Binary(result, None, apart=False)  # a client may write a Binary without any data
        key = document_key(row.institution, row.id)
        try:
            size = self._store.objects.size(key)
        except GatewayError as error:
            if error.category is not Category.NOT_FOUND:
                raise
            log.error("the object store lacks the bytes of a Binary that a message brought")
            raise GatewayError(Category.NOT_FOUND, "the object store has lost the bytes of this document; its operator "
                               "can restore them, or replay the message that brought it", "Binary.data") from None
        content = Content(media_type, size, lambda start, end: self._parts(key, size, start, end), security)
        return Binary(result, _named_charset(content), apart=True)

    def _parts(self, key: str, size: int, start: int, end: int) -> Iterator[bytes]:
        if (start, end) == (0, size):
            return self._store.objects.open(key)
        return (self._store.objects.range(key, at, min(at + _BLOCK, end)) for at in range(start, end, _BLOCK))

    def _original(self, caller: Caller, binary_id: str, digest: bytes, version: str) -> Binary:
        """The message as it came. It may hold anything of a patient: only for those who may read all types."""
        caller.require("r", "*")
        only, row = caller.sees("*"), self._store.inbox_raw(digest)
        if row is None or only is not None and row.institution != only or version not in ("", "1"):
            raise absent()
        body = resource.text("Binary", binary_id, 1, row.received, resource.tail(
            {"meta": {"source": f"urn:huren:{row.institution}"}, "contentType": ER7}))
        result = Result(200, body, 1, row.received, persons=self._persons(binary_id))
        return Binary(result, _held(ER7, _raw(row)), apart=True)

    def _persons(self, binary_id: str) -> tuple[int, ...]:
        """Whose data the message holds: the Patients among its Provenance's targets."""
        page = search.search(self._store, GATEWAY, "Provenance", [("entity", f"Binary/{binary_id}")])
        targets = [target["reference"] for row in page.rows for target in json.loads(text_of_row(row))["target"]]
        patients = [name.removeprefix("Patient/") for name in targets if name.startswith("Patient/")]
        return tuple(sorted(set(self._store.persons_of(patients).values())))


def _raw(row: InboxRow) -> bytes:
    return bytes(row.raw or b"")


def _held(media_type: str, data: bytes, security: str = "") -> Content:
    """Bytes that are in memory already."""
    return _named_charset(Content(media_type, len(data), lambda start, end: iter((data[start:end],)), security))


def _reference_of(given: dict[str, Any]) -> str:
    context = given.get("securityContext")
    text = context.get("reference") if isinstance(context, dict) else None
    return text if isinstance(text, str) and text.isascii() and text.isprintable() else ""


def _media_type(text: object) -> str:
    """A type that may stand in a header; anything else is bytes and no more."""
    return text if isinstance(text, str) and _MEDIA_TYPE(text) else "application/octet-stream"


def _named_charset(content: Content) -> Content:
    """Text without a declared character set is declared where it is UTF-8: browsers would guess."""
    if not content.media_type.startswith("text/") or "charset" in content.media_type or content.size > _BLOCK:
        return content
    try:
        b"".join(content.open(0, content.size)).decode()
    except UnicodeDecodeError:
        return content
    return Content(f"{content.media_type}; charset=utf-8", content.size, content.open, content.security)


# ---------------------------------------------------------------- the resource with its data, in parts

def completed(found: Binary) -> Result:
    """The result with ``data`` in its text; INVALID where that is too much for one piece."""
    if found.apart and found.content is not None:
        if found.content.size > WHOLE:
            raise GatewayError(Category.INVALID, f"this document is larger than {WHOLE >> 20} MiB; read it by itself, "
                               "without _pretty, _summary and _elements", "Binary", detail="request")
        found.result.body = b"".join(as_json(found.result.body, found.content)[0])
    return found.result


def as_json(text: bytes, content: Content) -> tuple[Iterator[bytes], int]:
    """JSON with ``data``, and its length."""
    return _spliced(text[:-1] + b',"data":"', b'"}', content)


def as_xml(text: bytes, content: Content) -> tuple[Iterator[bytes], int]:
    """XML with ``data``, and its length."""
    before, _, after = xml.to_xml({**json.loads(text), "data": _MARK}).rpartition(f'"{_MARK}"'.encode())
    return _spliced(before + b'"', b'"' + after, content)


def _spliced(before: bytes, after: bytes, content: Content) -> tuple[Iterator[bytes], int]:
    opened = content.open(0, content.size)  # what cannot be opened is refused before anything is answered

    def parts() -> Iterator[bytes]:
        yield before
        rest = b""
        for part in opened:
            part = rest + part
            whole = len(part) - len(part) % 3
            rest = part[whole:]
            yield base64.b64encode(part[:whole])
        yield base64.b64encode(rest) + after
    return parts(), len(before) + (content.size + 2) // 3 * 4 + len(after)


# ---------------------------------------------------------------- RFC 9110 14: a range of bytes

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})").fullmatch


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """Start and end (not included) of the one range that is asked for; None: all of it.

    Several ranges, other units and what is no range are answered with the whole (RFC 9110 14.2). INVALID with detail
    ``range`` where nothing of it exists.
    """
    match = _RANGE(header.strip().replace(" ", ""))
    if not match or match[1] == match[2] == "" or match[1] and match[2] and int(match[2]) < int(match[1]):
        return None
    first, last = match[1], match[2]
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= size or not first and int(last) == 0:
        raise GatewayError(Category.INVALID, "the range lies outside of the document", "Range", detail="range")
    return start, end
