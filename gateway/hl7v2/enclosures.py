"""OBX-5 of type ED and RP: a document in the message, or a pointer to one (datatypes ED[Attachment], RP[Attachment]).

The bytes become a `Document` for the object store and a Binary (`documents.document`); the Attachment that names it
stands in the report's presentedForm and beside the Observation. The type is what the bytes show where they show it:
senders declare everything as PDF.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import clinical_document, tables
from gateway.hl7v2.datatypes import is_url
from gateway.hl7v2.message import Part, Segment
from gateway.source import Remark

if TYPE_CHECKING:
    from gateway.hl7v2.builder import Builder

_UNKNOWN = "application/octet-stream"
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"), (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"), (b"{\\rtf", "application/rtf"),
)
#: Other names of what the bytes show; a ZIP or a compound file may be an office document of any type.
_ALIKE = {
    "image/jpeg": ("image/jpg", "image/pjpeg"), "application/rtf": ("text/rtf", "application/x-rtf"),
    "text/xml": ("application/xml",), "application/hl7-cda+xml": ("application/xml", "text/xml"),
    "text/html": ("application/xhtml+xml",), "application/pdf": ("application/x-pdf",),
}
#: Schemes of a pointer that nobody's browser runs.
_SCHEMES = ("http:", "https:", "ftp:", "ftps:", "sftp:", "file:", "urn:", "dicom:")


class Enclosure(NamedTuple):
    """A document or a pointer, before it is taken over; ``doubtful``: declared as another type than the bytes show."""

    content_type: str
    data: bytes | None = None
    url: str = ""
    title: str = ""
    sections: tuple[tuple[str, str], ...] = ()
    doubtful: bool = False


def pointed_at(part: Part) -> Enclosure | None:
    """RP with a URL; None for a path, a UID and anything that a browser would run."""
    pointer = part.get(1)
    if not is_url(pointer) or not pointer.lower().startswith(_SCHEMES):
        return None
    return Enclosure(_media(part.get(3), part.get(4)), url=pointer)


def encapsulated(part: Part, obx: Segment) -> Enclosure | None:
    """ED: Base64 (also broken into lines), Hex or plain text; INVALID where the data is not what ED.4 says.

    Where ED.4 says nothing that is known, or the field has no components at all, data that is Base64 and begins as a
    known kind of document is one.
    """
    encoding, whole = part.get(4).upper(), len(part) == 1
    data = part.text if whole else part.part(5).text
    if not data.strip():
        return None
    declared = _media(part.get(2), part.get(3)) if not whole else _UNKNOWN
    if encoding in ("BASE64", "HEX"):
        return _typed(_decoded(data, encoding, obx), declared)
    if encoding != "A" and (content := _base64(data)) is not None and shown_by(content):
        return _typed(content, declared)
    if whole:
        return None
    text = part.delimiter.join(part.part(at).text for at in range(5, len(part) + 1))
    if declared == _UNKNOWN:
        declared = "text/plain"
    content = clinical_document.encoded(text)
    found = _typed(content, declared)
    if found.content_type.startswith("text/") and "charset" not in found.content_type and \
            found.content_type != "text/xml":
        found = found._replace(content_type=f"{found.content_type}; charset=utf-8")
    return found


def _decoded(data: str, encoding: str, obx: Segment) -> bytes:
    try:
        return bytes.fromhex(data) if encoding == "HEX" else \
            binascii.a2b_base64("".join(data.split()).encode("ascii"), strict_mode=True)
    except (binascii.Error, ValueError) as broken:
        raise GatewayError(Category.INVALID, f"OBX-5.5 is not what OBX-5.4 says{obx.which()}; send whole "
                           "Base64 or Hex", "OBX-5", detail="data-type") from broken


def _base64(data: str) -> bytes | None:
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _typed(data: bytes, declared: str) -> Enclosure:
    """The document under the type that its bytes show, else under the declared one."""
    shown, found = shown_by(data), Enclosure(declared, data)
    if not shown and clinical_document.looks_like_xml(data) and (xml := clinical_document.read(data)):
        shown = declared if xml.content_type == "text/xml" and declared.endswith(("/xml", "+xml")) else xml.content_type
        found = found._replace(title=xml.title, sections=xml.sections)
    if not shown or shown == declared:
        return found
    alike = declared in (_UNKNOWN, *_ALIKE.get(shown, ()))
    return found._replace(content_type=shown, doubtful=not alike)


def shown_by(data: bytes) -> str:
    """The media type that the first bytes show; "" where they show none."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if b"%PDF-" in data[:1024]:
        return "application/pdf"
    if data[128:132] == b"DICM":
        return "application/dicom"
    if data[:2] == b"BM" and int.from_bytes(data[2:6], "little") == len(data):
        return "image/bmp"
    start = data[:100].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "text/html" if start.startswith((b"<!doctype html", b"<html>", b"<html ")) and b"xmlns" not in start else ""


def attachment(found: Enclosure, obx: Segment, title: str, whole_id: str, patient: str,
               builder: Builder) -> dict[str, Any]:
    """The Attachment of an enclosure; its bytes are taken over as a Binary. ``title``: what OBX-3 calls it."""
    from gateway.hl7v2.documents import document

    if found.data is None:
        made: dict[str, Any] = {"contentType": found.content_type, "url": found.url}
    else:
        made = document(builder, whole_id, found.content_type, found.data, patient)
        if found.doubtful:
            builder.conversion.remarks.append(Remark(
                f"OBX[{obx.sequence}]-5", "the document is of another type than OBX-5 declares; kept under the type "
                "that its bytes show"))
    builder.readings += found.sections
    if title := found.title or title:
        made["title"] = title
    if created := builder.date_time(obx, 14):
        made["creation"] = created
    return made


def _media(kind: str, subtype: str) -> str:
    """The media type by ED.2 and ED.3, or RP.3 and RP.4; FHIR wants one wherever there is data."""
    for name in (kind, subtype):
        if "/" in name and name.isascii() and " " not in name:
            return name.lower()
    if known := tables.MEDIA_TYPES.get(subtype.upper()) or tables.MEDIA_TYPES.get(kind.upper()):
        return known
    main = kind.lower()
    if main in ("application", "image", "audio", "text", "video") and subtype and subtype.isascii():
        return f"{main}/{subtype.lower()}"
    return "text/plain" if kind.upper() in ("TX", "FT", "TEXT") else _UNKNOWN
