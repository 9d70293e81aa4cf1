"""XML inside a message: what kind it is, and the title and text of a clinical document (CDA R2). Pure.

The bytes are looked at, never rewritten: whatever lxml does not like stays a document of bytes. A document type
declaration is never read, so that no entity of it can grow, and nothing outside the bytes is ever opened.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_CDA = "urn:hl7-org:v3"
_KINDS = {f"{{{_CDA}}}ClinicalDocument": "application/hl7-cda+xml", "{http://www.w3.org/1999/xhtml}html":
          "application/xhtml+xml", "{http://www.w3.org/2000/svg}svg": "image/svg+xml"}
#: Elements of a section's narrative block that begin a line.
_LINES = frozenset(("br", "paragraph", "item", "tr", "caption", "table", "list"))
_CELLS = frozenset(("td", "th"))
_MOST_TEXT = 64 * 1024
_DECLARED = re.compile(r"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]{0,40})[\"']")


class Xml(NamedTuple):
    """What an XML document is; ``sections``: title and text of each section of a CDA."""

    content_type: str
    title: str = ""
    sections: tuple[tuple[str, str], ...] = ()


def looks_like_xml(data: bytes) -> bool:
    """Whether the bytes begin as XML does, in UTF-8 or UTF-16."""
    start = data[:200].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    return start[:1] == b"<" and (start[1:2].isalpha() or start[1:2] in (b"?", b"!"))


def read(data: bytes) -> Xml | None:
    """The document's kind; None where it is not well-formed or declares a document type."""
    if b"<!DOCTYPE" in data[:4096].replace(b"\0", b"").upper():
        return None
    from lxml import etree  # not before it is needed: 5 MB that many processes never use

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False,
                             huge_tree=False, remove_comments=True, remove_pis=True, recover=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError, LookupError):
        return None
    document: Any = root.getroottree()
    if document.docinfo.doctype:
        return None
    kind = _KINDS.get(root.tag, "text/xml")
    if root.tag != f"{{{_CDA}}}ClinicalDocument":
        return Xml(kind)
    return Xml(kind, _words("".join(_texts(root.find(f"{{{_CDA}}}title")))), _sections(root))


def encoded(text: str) -> bytes:
    """A document that came as text, in the encoding that it declares, so that the two agree; else in UTF-8."""
    declared = _DECLARED.match(text.lstrip("\ufeff \r\n"))
    if declared is not None:
        try:
            return text.encode(declared[1])
        except (LookupError, UnicodeEncodeError):
            pass
    return text.encode()


def _sections(root: Any) -> tuple[tuple[str, str], ...]:
    found, length = [], 0
    for section in root.iter(f"{{{_CDA}}}section"):
        title = _words("".join(_texts(section.find(f"{{{_CDA}}}title"))))
        lines = "".join(_texts(section.find(f"{{{_CDA}}}text"))).split("\n")
        text = "\n".join(line for line in map(_words, lines) if line)
        length += len(title) + len(text)
        if length > _MOST_TEXT:
            break
        if title or text:
            found.append((title, text))
    return tuple(found)


def _texts(node: Any) -> list[str]:
    """The text of a narrative block in document order: its paragraphs, items and rows are lines."""
    if node is None:
        return []
    found = [(node.text or "").replace("\n", " ")]
    for child in node:  # lxml reads 256 levels at most
        name = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else ""
        found.append("\n" if name in _LINES else " " if name in _CELLS else "")
        if name:
            found += _texts(child)
        found.append("\n" if name in _LINES - {"br"} else "")
        found.append((child.tail or "").replace("\n", " "))
    return found


def _words(text: str) -> str:
    return " ".join(text.split())
