"""FHIR JSON in and out with exact decimals: ``1.50`` stays ``1.50`` (json.html#decimal). Pure.

In: the standard library's C scanner with a hook for decimals; `orjson` reads three times faster but makes ``1.50`` the
float 1.5. Out: `orjson`, decimals spliced in as `orjson.Fragment`. Figures in README.md.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import orjson

from gateway.errors import Category, GatewayError

#: Objects and arrays inside each other. FHIR's own types need about 15; a Bundle of Bundles 25.
DEPTH = 64
#: Bytes of one JSON text; edges may set a lower limit.
SIZE = 64 * 1024 * 1024

_NOT_BRACKETS = bytes(b for b in range(256) if b not in b"[]{}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BIG = 1 << 63
_Fragment = orjson.Fragment


class Literal(Decimal):
    """A decimal whose text has an exponent (``1e3``) and so is not the plain one."""

    __slots__ = ("text",)
    text: str

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return number, (self.text,)

    def __copy__(self) -> Literal:
        return self

    def __deepcopy__(self, memo: Any) -> Literal:
        return self


def number(text: str) -> Decimal:
    """A decimal that ``dumps`` and ``literal`` write exactly as ``text``, which must be a JSON number."""
    value = Decimal(text)
    if _plain(value) == text:
        return value
    exact = Literal(text)
    exact.text = text
    return exact


def literal(value: Decimal | int | float) -> str:
    """The JSON number as it was read; for a computed Decimal without exponent (``1E+3`` → ``1000``)."""
    if isinstance(value, Literal):
        return value.text
    if isinstance(value, Decimal):
        return _plain(value)
    return repr(value)


def _plain(value: Decimal) -> str:
    """Without exponent; ``str`` writes one only where it needs it, in a fifth of the time that ``format`` takes."""
    text = str(value)
    return format(value, "f") if "E" in text else text


def loads(raw: bytes) -> dict[str, Any]:
    """One JSON object, with `Decimal` for each number that has a point or an exponent; MALFORMED with its place.

    Refused: other than UTF-8, other than an object, two equal names in one object (each reader would take another of
    the two), NaN and Infinity, lone surrogates, more than ``DEPTH`` levels or ``SIZE`` bytes. ``-0`` is read as ``0``.
    Equal decimals compare equal whatever their text: compare ``dumps`` where precision counts.
    """
    if len(raw) > SIZE:
        raise GatewayError(Category.MALFORMED, f"JSON text is larger than {SIZE} bytes; send it in parts")
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise GatewayError(Category.MALFORMED, "JSON text is not UTF-8; encode it as UTF-8 (RFC 8259 8.1)",
                           f"byte {error.start}") from None
    _limit_depth(raw, text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise GatewayError(Category.MALFORMED, f"JSON cannot be read: {_reason(error.msg)}",
                           f"line {error.lineno} column {error.colno}") from None
    except _DuplicateName as error:
        raise GatewayError(Category.MALFORMED, "an object has two members of the same name; send each name once",
                           error.name) from None
    except (ValueError, RecursionError):  # Python's own limit of integer digits
        raise GatewayError(Category.MALFORMED, "JSON holds a number that cannot be read; shorten it") from None
    if type(value) is not dict:
        raise GatewayError(Category.MALFORMED, "JSON text is not an object; send one resource")
    if _SURROGATE.search(raw):
        dumps(value)  # refuses what is no Unicode text
    return value


def dumps(value: Any, indent: bool = False) -> bytes:
    """UTF-8 JSON in the order of the dict, compact or indented; decimals as they were read (see ``literal``)."""
    option = orjson.OPT_INDENT_2 if indent else 0
    try:
        return orjson.dumps(value, _default, option)
    except TypeError:
        pass
    try:
        return orjson.dumps(_big_integers(value), _default, option)
    except orjson.JSONEncodeError as error:
        if "surrogates" in str(error):
            raise GatewayError(Category.MALFORMED, "a string holds half of a surrogate pair; send whole characters"
                               ) from None
        raise


class _DuplicateName(Exception):
    def __init__(self, name: str) -> None:
        self.name = name if re.fullmatch(r"_?[A-Za-z0-9]{1,64}", name) else ""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateName(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return members


def _constant(name: str) -> Any:
    raise json.JSONDecodeError("NaN and Infinity are no JSON numbers", "", 0)


_DECODER = json.JSONDecoder(parse_float=number, parse_constant=_constant, object_pairs_hook=_members)


def _reason(message: str) -> str:
    """The parser's message, which names the kind of fault and never the text around it."""
    return message[:1].lower() + message[1:]


def _limit_depth(raw: bytes, text: str) -> None:
    """Take innermost pairs of brackets off until none is left: each round is one level and costs 0.1 µs."""
    brackets = raw.translate(None, _NOT_BRACKETS)
    for _ in range(DEPTH):
        inner = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if not inner:
            return
        if len(inner) == len(brackets):
            break  # brackets within strings (or a fault, which the scanner will name): count exactly
        brackets = inner
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        mark = token.group()
        depth += (mark in "{[") - (mark in "}]") if len(mark) == 1 else 0
        if depth > DEPTH:
            raise GatewayError(Category.MALFORMED, f"JSON is nested deeper than {DEPTH} levels; flatten it")


_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def _default(value: Any) -> Any:
    if type(value) is Decimal and value.is_finite() and "E" not in (text := str(value)):
        return _Fragment(text)  # as nearly always; what follows takes twice as long
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise TypeError("a decimal must be finite")
        return orjson.Fragment(literal(value))
    raise TypeError(type(value).__name__)


def _big_integers(value: Any) -> Any:
    """The same with integers beyond 64 bits as fragments, which `orjson` refuses to write itself."""
    if isinstance(value, dict):
        return {name: _big_integers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_big_integers(item) for item in value]
    if type(value) is int and not -_BIG <= value < _BIG:
        return orjson.Fragment(str(value))
    return value
