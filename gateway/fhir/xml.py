"""FHIR XML in and out, by the element tables (xml.html). Pure; `lxml` with entities, DTDs and network off.

The JSON form is the one in hand: ``to_xml`` orders the elements as the base definition does, ``from_xml`` gives lists,
numbers and booleans back by the tables. Both keep decimals as written, and refuse what no table knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from gateway.errors import Category, GatewayError
from gateway.fhir import json, narrative
from gateway.fhir.elements import Element, elements_of, is_resource_type

FHIR = "http://hl7.org/fhir"
_DIV = f"{{{narrative.XHTML}}}div"
#: Elements inside each other, as in `json`.
DEPTH = 2 * json.DEPTH

_INTEGERS = frozenset(("integer", "positiveInt", "unsignedInt"))
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII).fullmatch
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII).fullmatch
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]").search

Node = Any
_NAMESPACES: Any = {None: FHIR}
_XHTML: Any = {None: narrative.XHTML}


def _is_attribute(kind: str, element: Element) -> bool:
    """``id`` of elements (not of resources) and ``Extension.url`` are XML attributes (xml.html)."""
    return (element.name == "id" and element.type != "id") or (element.name == "url" and kind == "Extension")


# ---------------------------------------------------------------- out

def to_xml(resource: dict[str, Any]) -> bytes:
    """The resource as FHIR XML in UTF-8; INVALID where it holds what R4 does not know (``check`` finds all of it)."""
    kind = resource.get("resourceType")
    if not is_resource_type(kind):
        raise _invalid("resourceType must name a resource type of R4", "resourceType")
    root = etree.Element(f"{{{FHIR}}}{kind}", nsmap=_NAMESPACES)
    _write_object(root, resource, kind, kind)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + etree.tostring(root, encoding="UTF-8")


def _invalid(message: str, where: str) -> GatewayError:
    return GatewayError(Category.INVALID, message, where, detail="data-type")


def _write_object(node: Node, obj: Any, kind: str, path: str) -> None:
    if type(obj) is not dict:
        raise _invalid("must be a JSON object", path)
    table = elements_of(kind)
    known = 0
    for name, element in table.items():
        value, siblings = obj.get(name), obj.get(f"_{name}")
        if value is None and siblings is None:
            continue
        known += (name in obj) + (f"_{name}" in obj)
        if _is_attribute(kind, element):
            node.set(name, _attribute(value, f"{path}.{name}"))
        elif element.many:
            _write_list(node, element, value, siblings, f"{path}.{name}")
        else:
            _write_value(node, element, value, siblings, f"{path}.{name}")
    if known != len(obj) - ("resourceType" in obj and "resourceType" not in table):
        unknown = sorted(n for n in obj if n != "resourceType" and n.removeprefix("_") not in table)
        raise _invalid(f"holds what is no element of {kind}" if unknown else "holds null", path)


def _write_list(node: Node, element: Element, values: Any, siblings: Any, path: str) -> None:
    values, siblings = values or [], siblings or []
    if type(values) is not list or type(siblings) is not list:
        raise _invalid("must be a JSON array", path)
    for index in range(max(len(values), len(siblings))):
        value = values[index] if index < len(values) else None
        _write_value(node, element, value, siblings[index] if index < len(siblings) else None, f"{path}[{index}]")


def _write_value(node: Node, element: Element, value: Any, sibling: Any, path: str) -> None:
    if element.type == "xhtml":
        node.append(_parse_div(value, path))
        return
    child = etree.SubElement(node, f"{{{FHIR}}}{element.name}")
    if element.type == "Resource":
        kind = value.get("resourceType") if type(value) is dict else None
        if not is_resource_type(kind):
            raise _invalid("must be a resource of R4 with its resourceType", path)
        _write_object(etree.SubElement(child, f"{{{FHIR}}}{kind}"), value, kind, path)
    elif not element.primitive:
        _write_object(child, value, element.type, path)
    else:
        if sibling is not None:
            _write_object(child, sibling, "Element", path)
        if value is not None:
            child.set("value", _attribute(value, path))


def _attribute(value: Any, path: str) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is str:
        if _ILLEGAL(value):
            raise _invalid("holds a character that XML cannot carry", path)
        return value
    if value is None or isinstance(value, (dict, list)):
        raise _invalid("must be a string, number or boolean", path)
    return json.literal(value)


def _parse_div(value: Any, path: str) -> Node:
    try:
        return narrative.div(value)
    except (ValueError, AttributeError) as error:
        raise _invalid(str(error) if isinstance(error, ValueError) else "must be a JSON string", path) from None


# ---------------------------------------------------------------- in

def from_xml(raw: bytes) -> dict[str, Any]:
    """The resource as JSON's dict; MALFORMED for what is no XML, INVALID for what R4 does not know.

    Refused: DTDs (and with them entities of every kind), processing instructions, elements of other namespaces, text
    between elements, more than ``DEPTH`` levels. Comments are skipped. The order of elements is not judged.
    """
    root = _parse(raw)
    kind = _local(root, "")
    if not is_resource_type(kind):
        raise _invalid("the root must be a resource type of R4", "")
    return _read_resource(root, kind, kind)


def _parse(raw: bytes) -> Node:
    if len(raw) > json.SIZE:
        raise GatewayError(Category.MALFORMED, f"XML text is larger than {json.SIZE} bytes; send it in parts")
    try:
        root = etree.fromstring(raw, narrative.parser())
    except etree.XMLSyntaxError as error:
        raise GatewayError(Category.MALFORMED, "XML cannot be read; send well-formed XML in UTF-8",
                           f"line {error.lineno} column {error.offset}") from None
    except ValueError:
        raise GatewayError(Category.MALFORMED, "XML cannot be read; send well-formed XML in UTF-8") from None
    if root.getroottree().docinfo.doctype:
        raise GatewayError(Category.MALFORMED, "XML must not have a document type; remove the DOCTYPE (xml.html)")
    return root


def _local(node: Node, path: str) -> str:
    """The local name of an element in FHIR's namespace."""
    if type(node.tag) is not str:
        raise _invalid("holds a processing instruction or an entity; remove it", path)
    namespace, _, name = node.tag.rpartition("}")
    if namespace != f"{{{FHIR}":
        raise _invalid(f"holds an element outside the namespace {FHIR}", path)
    return name


def _read_resource(node: Node, kind: str, path: str) -> dict[str, Any]:
    return {"resourceType": kind} | _read_object(node, kind, path)


def _read_object(node: Node, kind: str, path: str) -> dict[str, Any]:
    table = elements_of(kind)
    found: dict[str, Any] = {}
    for name, value in node.attrib.items():
        if name in table and _is_attribute(kind, table[name]):
            found[name] = value
        elif not name.startswith("{http://www.w3.org/2001/XMLSchema-instance}"):  # xsi:schemaLocation
            raise _invalid(f"holds an attribute that {kind} does not have", path)
    for child, name in _children(node, path):
        element = table.get(name)
        if element is None or _is_attribute(kind, element):
            raise _invalid(f"is no element of {kind}", path)
        _read_element(found, child, element, f"{path}.{name}")
    for name in [n for n, value in found.items() if type(value) is list and all(item is None for item in value)]:
        del found[name]  # a list of values without extensions, or of extensions without values
    return found


def _children(node: Node, path: str) -> Iterator[tuple[Node, str]]:
    if path.count(".") > DEPTH:
        raise GatewayError(Category.MALFORMED, f"XML is nested deeper than {DEPTH} levels; flatten it")
    if node.text and node.text.strip():
        raise _invalid("holds text; FHIR's values are attributes", path)
    for child in node:
        if child.tail and child.tail.strip():
            raise _invalid("holds text; FHIR's values are attributes", path)
        if child.tag == _DIV:
            yield child, "div"
        else:
            yield child, _local(child, path)


def _read_element(found: dict[str, Any], node: Node, element: Element, path: str) -> None:
    name = element.name
    if element.primitive and element.type != "xhtml":
        value, sibling = _read_primitive(node, element, path)
        if element.many:
            values, siblings = found.setdefault(name, []), found.setdefault(f"_{name}", [])
            values.append(value)
            siblings.append(sibling)
            return
        if name in found or f"_{name}" in found:
            raise _invalid("must not repeat", path)
        if value is not None:
            found[name] = value
        if sibling is not None:
            found[f"_{name}"] = sibling
        return
    value = _read_complex(node, element, path)
    if element.many:
        found.setdefault(name, []).append(value)
    elif name in found:
        raise _invalid("must not repeat", path)
    else:
        found[name] = value


def _read_complex(node: Node, element: Element, path: str) -> Any:
    if element.type == "xhtml":
        if node.tag != _DIV:
            raise _invalid("must be a div element of the XHTML namespace", path)
        return _div_text(node, path)
    if element.type != "Resource":
        return _read_object(node, element.type, path)
    children = list(_children(node, path))
    if len(children) != 1 or not is_resource_type(children[0][1]):
        raise _invalid("must hold one resource", path)
    return _read_resource(children[0][0], children[0][1], path)


def _div_text(node: Node, path: str) -> str:
    """The div as text, without the prefixes and declarations of the document around it."""
    fresh = etree.Element(_DIV, nsmap=_XHTML)
    _copy(node, fresh, path)
    return etree.tostring(fresh, encoding="unicode")


def _copy(old: Node, new: Node, path: str) -> None:
    new.text = old.text
    new.attrib.update(old.attrib)
    for child in old:
        if type(child.tag) is not str:
            raise _invalid("holds a processing instruction or an entity; remove it", path)
        twin = etree.SubElement(new, child.tag)
        _copy(child, twin, path)
        twin.tail = child.tail


def _read_primitive(node: Node, element: Element, path: str) -> tuple[Any, dict[str, Any] | None]:
    """The JSON value, and the ``_`` sibling with id and extensions."""
    raw = node.attrib.pop("value", None)
    sibling = _read_object(node, "Element", path) or None
    if raw is None:
        if sibling is None:
            raise _invalid("needs a value", path)
        return None, sibling
    return _json_value(raw, element.type, path), sibling


def _json_value(raw: str, kind: str, path: str) -> Any:
    if kind == "boolean":
        if raw not in ("true", "false"):
            raise _invalid("must be true or false", path)
        return raw == "true"
    if kind in _INTEGERS:
        if not _INTEGER(raw):
            raise _invalid("must be a whole number", path)
        return int(raw)
    if kind == "decimal":
        if not _NUMBER(raw):
            raise _invalid("must be a decimal number", path)
        return json.number(raw) if any(mark in raw for mark in ".eE") else int(raw)
    return raw
