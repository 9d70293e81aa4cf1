"""The value rules of the primitive types (datatypes.html#primitive): each says what is wrong, never with the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

from gateway.fhir import narrative

Rule = Callable[[Any], str | None]

#: What no FHIR string may hold (datatypes.html#string), what is no Unicode text at all, and what XML cannot carry.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]").search
_SOLID = re.compile(r"[^ \t\r\n]").search
_LONGEST = 1024 * 1024

_DATE = r"(?!0000)[0-9]{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01]){tail})?)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_FULL = r"(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"


# The rules for text ask the string's own methods first, in a third of the time of the patterns: what these accept, the
# patterns accept too. What is printable (Python's word) holds none of _FORBIDDEN and no white space but U+0020.


def _string(value: Any) -> str | None:
    if type(value) is not str:
        return "must be a JSON string"
    if value.isprintable() and value.strip(" ") and len(value) <= _LONGEST:
        return None
    if not _SOLID(value):
        return "must not be empty"
    if _FORBIDDEN(value):
        return "holds a control character"
    if len(value) > _LONGEST:
        return f"is longer than {_LONGEST} characters"
    return None


def _matching(pattern: str, says: str) -> Rule:
    matches = re.compile(pattern, re.ASCII).fullmatch

    def rule(value: Any) -> str | None:
        if type(value) is not str:
            return "must be a JSON string"
        return None if matches(value) else says
    return rule


def _calendar(pattern: str, says: str) -> Rule:
    """A pattern, and a day that the month has ("Dates SHALL be valid dates")."""
    matches = re.compile(pattern, re.ASCII).fullmatch

    def rule(value: Any) -> str | None:
        if type(value) is not str:
            return "must be a JSON string"
        if not matches(value):
            return says
        if value[8:10] > "28":
            try:
                date(int(value[:4]), int(value[5:7]), int(value[8:10]))
            except ValueError:
                return "is a day that the month does not have"
        return None
    return rule


def _solid(value: str) -> bool:
    """Whether it is of ASCII's letters, digits and signs alone, as codes and URIs nearly always are."""
    return value.isascii() and value.isprintable() and " " not in value and value != ""


_CODE_SPACES = re.compile(r"[^\s]+(?: [^\s]+)*").fullmatch
_URI = re.compile(r"[^\s\x00-\x1f\ud800-\udfff\ufffe\uffff]+").fullmatch


def _code(value: Any) -> str | None:
    if type(value) is not str:
        return "must be a JSON string"
    if not _solid(value) and (not _CODE_SPACES(value) or _FORBIDDEN(value)):
        return "must be a code: no space at either end, single spaces within"
    return None


def _uri(value: Any) -> str | None:
    if type(value) is not str:
        return "must be a JSON string"
    return None if _solid(value) or _URI(value) else "must be a URI: not empty, no white space"


#: A URL has a scheme, or is relative as a reference is.
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:[^\s]+|/?[A-Za-z0-9\-.#]+(?:/[^\s?/]+)*(?:\?[^\s]*)?)").fullmatch


def _url(value: Any) -> str | None:
    return _uri(value) or (None if _URL(value) else "must be a URL with a scheme, or relative to the server")


def _boolean(value: Any) -> str | None:
    return None if type(value) is bool else "must be true or false"


def _decimal(value: Any) -> str | None:
    kind = type(value)
    if kind is int:
        return None
    if isinstance(value, Decimal):
        return None if value.is_finite() else "must be finite"
    if kind is float:
        return None if value - value == 0 else "must be finite"
    return "must be a JSON number"


def _integer(least: int) -> Rule:
    def rule(value: Any) -> str | None:
        if type(value) is not int:
            return "must be a whole JSON number"
        return None if least <= value <= 2147483647 else f"must be from {least} to 2147483647"
    return rule


_BASE64 = re.compile(r"(?:[0-9A-Za-z+/]{4})*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?", re.ASCII).fullmatch
_SPACES = re.compile(r"[ \t\r\n]+")


def _base64(value: Any) -> str | None:
    if type(value) is not str:
        return "must be a JSON string"
    if not value or not _BASE64(value) and not _BASE64(_SPACES.sub("", value)):
        return "must be base64 (RFC 4648 4)"
    return None


def _xhtml(value: Any) -> str | None:
    return _string(value) or narrative.problem(value)


_DATETIME = _DATE.replace("{tail}", f"(?:T{_CLOCK}{_ZONE})?")

#: The message of a broken rule per primitive type, or None.
RULES: dict[str, Rule] = {
    "base64Binary": _base64,
    "boolean": _boolean,
    "canonical": _uri,
    "code": _code,
    "date": _calendar(_DATE.replace("{tail}", ""), "must be a date YYYY, YYYY-MM or YYYY-MM-DD"),
    "dateTime": _calendar(_DATETIME, "must be a dateTime: YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss+zz:zz"),
    "decimal": _decimal,
    "id": _matching(r"[A-Za-z0-9\-.]{1,64}", "must be an id: 1 to 64 of A-Z a-z 0-9 - ."),
    "instant": _calendar(f"{_FULL}T{_CLOCK}{_ZONE}", "must be an instant YYYY-MM-DDThh:mm:ss.sss+zz:zz"),
    "integer": _integer(-2147483648),
    "markdown": _string,
    "oid": _matching(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+", "must be urn:oid: and an OID"),
    "positiveInt": _integer(1),
    "string": _string,
    "time": _matching(_CLOCK, "must be a time hh:mm:ss"),
    "unsignedInt": _integer(0),
    "uri": _uri,
    "url": _url,
    "uuid": _matching(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
                      "must be urn:uuid: and a UUID in lower case"),
    "xhtml": _xhtml,
}
