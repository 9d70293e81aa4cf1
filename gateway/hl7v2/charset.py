"""Which character set a message is in: the manifest's, else MSH-18's, and always a check that the bytes decode.

The order of `decode`:

1. The manifest's charset, then MSH-18 (table 0211 and everyday spellings). It must decode strictly.
2. MSH-18 names a single-byte set (ASCII, ISO 8859-x) but the bytes are well-formed multi-byte UTF-8: UTF-8. Such bytes
   are practically never meant as Latin text, and interface engines often leave ``8859/1`` or ``ASCII`` in the header.
   The manifest is never overruled in this way.
3. Nothing is declared, or what is declared does not decode: strict UTF-8; else GB18030 when at least nine in ten of the
   non-ASCII characters lie in GB 2312 (Latin text read as GB gives rare characters outside it).
4. Otherwise MALFORMED at MSH-18. Nothing is ever replaced by U+FFFD.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from functools import lru_cache

from gateway.errors import Category, GatewayError

_SINGLE_BYTE = re.compile(r"ascii|iso8859|cp125")
_NAMES = {  # HL7 table 0211 and everyday spellings, upper case without blanks and punctuation
    "ASCII": "ascii", "USASCII": "ascii", "ANSIX341986": "ascii", "ISO646": "ascii", "ISOIR6": "ascii",
    "UNICODE": "utf-8", "UNICODEUTF8": "utf-8", "UTF8": "utf-8",  # UTF-16 is known by its byte order mark alone
    "GB18030": "gb18030", "GB180302000": "gb18030", "GB180302005": "gb18030", "GB180302022": "gb18030",
    "GBK": "gb18030", "CP936": "gb18030", "WINDOWS936": "gb18030", "MS936": "gb18030", "GB2312": "gb18030",
    "GB231280": "gb18030", "EUCCN": "gb18030",  # GB18030 holds all of GBK, GBK all of GB 2312
    "BIG5": "big5hkscs", "CP950": "cp950",
    "ISOIR14": "iso2022_jp", "ISOIR87": "iso2022_jp", "ISOIR159": "iso2022_jp_1", "SHIFTJIS": "cp932", "SJIS": "cp932",
    "EUCJP": "euc_jp", "KSX1001": "euc_kr", "EUCKR": "euc_kr",
    "LATIN1": "iso8859-1", "WINDOWS1252": "cp1252", "CP1252": "cp1252", "WINDOWS1251": "cp1251", "TIS620": "tis-620",
}
_ISO_8859 = re.compile(r"(?:ISO)?(?:IEC)?8859(1[0-6]|[1-9])")


def codec_for(name: str) -> str | None:
    """The Python codec for a character set as HL7 table 0211 or a manifest names it; None when it is unknown."""
    return (_codec_for if len(name) <= 64 else _codec_for.__wrapped__)(name)


@lru_cache(maxsize=64)
def _codec_for(name: str) -> str | None:
    key = re.sub(r"[\s/_.:-]+", "", name).upper()
    if key in _NAMES:
        return _NAMES[key]
    if match := _ISO_8859.fullmatch(key):
        return f"iso8859-{match[1]}"
    return None


def decode(raw: bytes, *, manifest: str | None = None, declared: str = "") -> tuple[str, str]:
    """The text of a message and the codec that gave it; MALFORMED at MSH-18 when no rule settles one."""
    if raw.startswith(codecs.BOM_UTF8):
        raw = raw[3:]
    elif raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _strict(raw, "utf-16"), "utf-16"
    name = manifest or declared
    codec = codec_for(name) if name else None
    if raw.isascii() and codec not in ("iso2022_jp", "iso2022_jp_1"):
        return raw.decode("ascii"), codec or "utf-8"
    if codec and not (not manifest and _SINGLE_BYTE.match(codec) and _is_utf8(raw)):
        try:
            return raw.decode(codec), codec
        except UnicodeDecodeError:
            pass
    if (text := _settle(raw)) is not None:
        return text
    if name and codec is None:
        raise GatewayError(Category.MALFORMED, "the character set is not one that we read; send UNICODE UTF-8 or "
                                               "GB 18030-2000", "MSH-18", detail="table-value")
    raise GatewayError(Category.MALFORMED, "the bytes do not fit the character set; name the right one in MSH-18 or "
                                           "in the hospital's manifest", "MSH-18")


def _settle(raw: bytes) -> tuple[str, str] | None:
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return None
    wide = {character: count for character, count in Counter(text).items() if character > "\x7f"}
    common = sum(count for character, count in wide.items() if _in_gb2312(character))
    return (text, "gb18030") if common * 10 >= sum(wide.values()) * 9 else None


def _in_gb2312(character: str) -> bool:
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _strict(raw: bytes, codec: str) -> str:
    try:
        return raw.decode(codec)
    except UnicodeDecodeError as bad:
        raise GatewayError(Category.MALFORMED, "the bytes after the byte order mark are not UTF-16", "MSH-18") from bad


def lenient(raw: bytes) -> tuple[str, str]:
    """Some text for bytes whose character set is not known yet, and the codec that gives the same bytes back."""
    for codec in ("ascii", "utf-8", "gb18030"):
        try:
            return raw.decode(codec), codec
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1"), "latin-1"
