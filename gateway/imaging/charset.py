"""Text of a DICOM header: bytes, what (0008,0005) declares, and what the hospital is known to use → str. Pure.

The declaration is wrong or missing so often (`README.md` has the rule) that it is one witness among three.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from functools import lru_cache

# PS3.3 C.12.1.1.2, tables C.12-2 to C.12-5: the number in the defined term → Python codec
_BY_NUMBER = {
    "6": "ascii", "13": "shift_jis", "14": "ascii", "58": "gb18030", "87": "euc_jp", "100": "latin_1",
    "101": "iso8859_2", "109": "iso8859_3", "110": "iso8859_4", "126": "iso8859_7", "127": "iso8859_6",
    "138": "iso8859_8", "144": "iso8859_5", "148": "iso8859_9", "149": "cp949", "159": "euc_jp",
    "166": "iso8859_11", "192": "utf_8", "203": "iso8859_15",
}
_MULTI_BYTE = {"gb18030", "euc_jp", "cp949", "utf_8", "big5", "shift_jis"}
#: reachable only through escape sequences (PS3.3 table C.12-4): without one, such a label is a hint and no more
_EXTENSIONS = {"58", "87", "149", "159"}

# PS3.3 tables C.12-3, C.12-4: escape sequence → (code element, what it designates)
_ESCAPES: dict[bytes, tuple[str, str]] = {
    b"(B": ("g0", "ascii"), b"(J": ("g0", "ascii"), b"(I": ("g0", "katakana"),
    b"$B": ("g0", "jis_x_0208"), b"$@": ("g0", "jis_x_0208"), b"$(D": ("g0", "jis_x_0212"),
    b")I": ("g1", "shift_jis"), b"$)A": ("g1", "gb18030"), b"$)C": ("g1", "cp949"),
    b"-A": ("g1", "latin_1"), b"-B": ("g1", "iso8859_2"), b"-C": ("g1", "iso8859_3"), b"-D": ("g1", "iso8859_4"),
    b"-L": ("g1", "iso8859_5"), b"-G": ("g1", "iso8859_6"), b"-F": ("g1", "iso8859_7"), b"-H": ("g1", "iso8859_8"),
    b"-M": ("g1", "iso8859_9"), b"-T": ("g1", "iso8859_11"), b"-b": ("g1", "iso8859_15"),
}
_ESCAPE = re.compile(rb"\x1b(" + b"|".join(re.escape(e) for e in sorted(_ESCAPES, key=len, reverse=True)) + rb")")
_RUN = re.compile(rb"[\x80-\xff]+|[\x00-\x7f]+")
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_DELIMITER = re.compile(rb"([\\^=\r\n\f\t])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_HAN_PAIRS = re.compile(rb"(?:[\xa1-\xa9\xb0-\xf7][\xa1-\xfe])+\Z")  # GB 2312: rows 1-9 signs, 16-87 ideographs
_WESTERN = re.compile(rb"[A-Za-z][\xc0-\xff](?![\x80-\xff])|(?<![\x80-\xff])[\xc0-\xff][A-Za-z]")


@lru_cache(maxsize=256)
def codec_of(term: str) -> str | None:
    """The Python codec for a defined term of (0008,0005) or a charset's common name; None when it is unknown.

    Tolerant of what senders write: ``ISO_IR192``, ``ISO 2022 58``, ``UTF-8``, ``GB2312``, ``ISO 2022 GBK``.
    """
    plain = re.sub(r"[\s_\-]+", "", term.upper())
    if not plain:
        return "ascii"
    if match := re.fullmatch(r"ISO(?:2022)?(?:IR)?(\d+)", plain):
        return _BY_NUMBER.get(match[1])
    if re.fullmatch(r"(?:ISO2022|ISOIR)?(?:GBK|GB18030|GB2312|CP936)", plain):
        return "gb18030"  # contains GBK, which contains GB 2312
    try:
        name = codecs.lookup(term.strip()).name
    except (LookupError, ValueError):
        return None
    return {"utf-8": "utf_8", "iso8859-1": "latin_1", "gbk": "gb18030", "gb2312": "gb18030"}.get(name, name)


class Charset:
    """How one data set's text is decoded.

    ``declared``: the values of (0008,0005), empty when it is absent. ``known``: what the hospital is known to use
    (``[dicom] charset`` of its manifest), or None. Three witnesses are heard for every value: its bytes, ``known``,
    ``declared``; `README.md`, "Character sets", gives the rule.
    """

    def __init__(self, declared: Sequence[str] = (), known: str | None = None) -> None:
        self.declared = tuple(declared)
        self._known = codec_of(known) if known else None
        first = declared[0] if declared else ""
        self._first = None if not declared else codec_of(first)
        if first and re.sub(r"\D*(?:2022)?\D*", "", first, count=1) in _EXTENSIONS:
            self._first = None
        if self._first == "ascii":
            self._first = None
        hints = [self._known, *(codec_of(term) for term in declared)]
        self._hints = list(dict.fromkeys(hint for hint in hints if hint and hint in _MULTI_BYTE - {"utf_8"}))

    def decode(self, raw: bytes) -> str:
        """The text of one element's value, all its values and name groups together, unsplit.

        Delimiters must be looked for afterwards: the second byte of a GBK character may be ``\\`` or ``^``.
        """
        if b"\x1b" in raw:
            return self._escaped(raw)
        if raw.isascii():
            return raw.decode("ascii")
        return self._plain(raw)

    def _plain(self, raw: bytes) -> str:
        """Bytes beyond ASCII without escape sequences."""
        text = _strict(raw, "utf_8")
        if text is not None and (self._first not in _MULTI_BYTE or self._first == "utf_8" or _is_cjk(text)):
            return text
        if self._first in _MULTI_BYTE and self._first != "utf_8":
            text = _strict(raw, self._first)
            if text is not None:
                return text
        single = self._first if self._first not in _MULTI_BYTE else None
        believed = [single] if single and self._looks_like(single, raw) else []
        for codec in believed + (self._hints or self._guesses(raw)):
            text = _strict(raw, codec)
            if text is not None:
                return text
        return self._last_resort(raw, single)

    def _looks_like(self, single: str, raw: bytes) -> bool:
        """Whether the declared one-byte charset is to be believed where another is known or declared beside it.

        Software that does not care writes ISO_IR 100; nobody writes ISO_IR 144 without meaning Cyrillic.
        """
        return not self._hints or single != "latin_1" or _is_western(raw)

    def _guesses(self, raw: bytes) -> list[str]:
        """What to try when neither the header nor the manifest helps: GB 2312, where every high run is its pairs."""
        if self._first is None and not all(_HAN_PAIRS.match(run) for run in _HIGH_RUN.findall(raw)):
            return []
        return ["gb18030"] if self._first in (None, "utf_8") else []

    def _last_resort(self, raw: bytes, single: str | None) -> str:
        """Nothing fitted: a value cut off in the middle of a character, or a wrong label."""
        for codec in (self._first, *self._hints):
            if codec in _MULTI_BYTE:
                try:  # senders cut LO at 64 bytes wherever that falls: drop the torn character only
                    return codecs.getincrementaldecoder(codec)("strict").decode(raw, final=False)
                except UnicodeDecodeError:
                    continue
        return raw.decode(single or ("utf_8" if self._first == "utf_8" else "latin_1"), errors="replace")

    def _escaped(self, raw: bytes) -> str:
        """ISO 2022 code extensions (PS3.5 6.1.2.5); the escape sequences themselves leave no trace."""
        single = self._first if self._first not in _MULTI_BYTE or self._first == "shift_jis" else None
        start: dict[str, str | None] = {"g0": "ascii", "g1": single}
        state = dict(start)
        out: list[str] = []
        for index, piece in enumerate(_ESCAPE.split(raw)):
            if index % 2:
                element, charset = _ESCAPES[piece]
                state[element] = charset
            elif state["g0"] not in ("ascii", "katakana"):
                out.append(self._fragment(piece, state))  # bytes of a pair may look like delimiters
            else:
                for part in _DELIMITER.split(piece):
                    if part and part in b"\\^=\r\n\f\t":
                        state["g0"] = "ascii"
                        # senders do not always designate again after a delimiter: undo only what would be misread
                        state["g1"] = start["g1"] or state["g1"]
                        out.append(part.decode("ascii"))
                    else:
                        out.append(self._fragment(part, state))
        return "".join(out).replace("\x1b", "")

    def _fragment(self, piece: bytes, state: dict[str, str | None]) -> str:
        """Bytes under one pair of designations."""
        out = []
        for run in _RUN.findall(piece):
            if run[0] >= 0x80:
                text = _strict(run, state["g1"]) if state["g1"] else None
                out.append(text if text is not None else self._plain(run))
            else:
                out.append(_G0[state["g0"] or "ascii"](run))
        return "".join(out)


def _strict(raw: bytes, codec: str | None) -> str | None:
    """Decoded, or None where the bytes are not of that charset."""
    if codec is None:
        return None
    try:
        return raw.decode(codec)
    except (UnicodeDecodeError, LookupError):
        return None


def _is_cjk(text: str) -> bool:
    """Whether everything beyond ASCII takes three bytes or more in UTF-8: two-byte forms are often chance in GBK."""
    return all(char < "\x80" or char >= "\u0800" for char in text)


def _is_western(raw: bytes) -> bool:
    """Whether every high byte stands alone beside a letter, as in ``Müller``; ideographs come as pairs of bytes."""
    return all(len(run) == 1 and run[0] >= 0xC0 for run in _HIGH_RUN.findall(raw)) and bool(_WESTERN.search(raw))


def _ascii(run: bytes) -> str:
    return run.decode("ascii")


def _katakana(run: bytes) -> str:
    return bytes(b | 0x80 if 0x21 <= b <= 0x5F else b for b in run).decode("shift_jis", errors="replace")


def _jis_x_0208(run: bytes) -> str:
    return bytes(b | 0x80 if b > 0x20 else b for b in run).decode("euc_jp", errors="replace")


def _jis_x_0212(run: bytes) -> str:
    high = bytes(b | 0x80 for b in run if b > 0x20)
    pairs = b"".join(b"\x8f" + high[i:i + 2] for i in range(0, len(high), 2))
    return pairs.decode("euc_jp", errors="replace")


_G0 = {"ascii": _ascii, "katakana": _katakana, "jis_x_0208": _jis_x_0208, "jis_x_0212": _jis_x_0212}


def clean(text: str) -> str:
    """Without padding and control characters, which FHIR strings and log lines must not carry."""
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    return text.strip()


def name_groups(text: str) -> dict[str, str]:
    """A person name's component groups under the DICOM JSON model's names; empty groups are left out.

    PS3.5 6.2.1.2: ``Wang^XiaoDong=王^小东`` → ``{"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}``.
    """
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
    return {name: group for name, raw in groups if (group := clean(raw).rstrip("^ "))}
