"""The XHTML of a narrative: basic formatting only, nothing that runs (narrative.html, txt-1 and txt-2)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any


def _words(text: str) -> list[str]:
    return text.split()


XHTML = "http://www.w3.org/1999/xhtml"
_ELEMENTS = frozenset(_words("""
    a abbr acronym b big blockquote br caption cite code col colgroup dd dfn div dl dt em h1 h2 h3 h4 h5 h6 hr i img li
    ol p pre q samp small span strong sub sup table tbody td tfoot th thead tr tt ul var"""))
_ATTRIBUTES = frozenset(_words("""
    abbr accesskey align alt axis bgcolor border cellpadding cellspacing char charoff charset cite class colspan compact
    coords dir frame headers height href hreflang hspace id lang longdesc name nowrap rel rev rowspan rules scope shape
    span src start style summary tabindex title type valign value vspace width
    {http://www.w3.org/XML/1998/namespace}lang {http://www.w3.org/XML/1998/namespace}space"""))
_RUNS = re.compile(r"\s*(?:javascript|vbscript)\s*:|\s*data:(?!image/)", re.IGNORECASE).match


def parser() -> Any:
    """An lxml parser without entities, DTD, network and huge trees; a DTD that is there must still be refused."""
    from lxml import etree  # not before it is needed: 5 MB that many processes never use

    return etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False,
                           huge_tree=False, remove_comments=True, recover=False)


def div(text: str) -> Any:
    """The parsed div element; ValueError with a sentence when it is not one of a narrative."""
    from lxml import etree

    try:
        root = etree.fromstring(text.encode("utf-8"), parser())
    except (etree.XMLSyntaxError, UnicodeEncodeError, ValueError):
        raise ValueError("must be well-formed XHTML without named entities") from None
    if root.getroottree().docinfo.doctype or root.tag != f"{{{XHTML}}}div":
        raise ValueError(f'must be one div element with xmlns="{XHTML}"')
    filled = False
    for node in root.iter():
        if type(node.tag) is not str or not node.tag.startswith(f"{{{XHTML}}}") \
                or node.tag[len(XHTML) + 2:] not in _ELEMENTS:
            raise ValueError("holds an element that a narrative must not have (txt-1)")
        for name, value in node.attrib.items():
            if name not in _ATTRIBUTES or (name in ("href", "src") and _RUNS(value)):
                raise ValueError("holds an attribute that a narrative must not have (txt-1)")
        filled = filled or node.tag.endswith("}img") or any(t and t.strip() for t in (node.text, node.tail))
    if not filled:
        raise ValueError("must have some content (txt-2)")
    return root


@lru_cache(maxsize=256)
def problem(text: str) -> str | None:
    """What is wrong with a narrative's div, or None; conversions write the same few again and again."""
    try:
        div(text)
    except ValueError as error:
        return str(error)
    return None
