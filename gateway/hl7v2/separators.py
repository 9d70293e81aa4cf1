"""The delimiters of MSH-1 and MSH-2, and the escape sequences made of them (HL7 v2.5.1 2.5.4, 2.7)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from gateway.errors import Category, GatewayError

#: Characters that neither FHIR strings nor XML 1.0 may hold: removed after decoding, the raw bytes are kept elsewhere.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_CONTROL_BYTES = bytes((*range(9), 0x0b, 0x0c, *range(0x0e, 0x20), 0x7f))

_FORMATTING = {"br": "\n", "sp": "\n", "sk": " ", "ce": "\n", "in": "", "ti": "", "fi": "", "nf": ""}


def has_controls(raw: bytes, text: str) -> bool:
    """Whether ``CONTROLS`` may occur in ``text``, which was decoded from ``raw``; sure when it says no.

    In every character set that we read but UTF-16, which has zeros, such a byte is such a character: a sixth of the
    time of looking through the text.
    """
    return len(raw.translate(None, _CONTROL_BYTES)) < len(raw) or "\ufffe" in text or "\uffff" in text


class Separators(NamedTuple):
    """Field, component, repetition, escape, subcomponent and truncation character; "" where MSH-2 leaves one out."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""

    @property
    def encoding(self) -> str:
        """MSH-2 as it is written."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


def read_separators(line: str) -> Separators:
    """The separators that an MSH line (``line[:3]`` is the segment id) declares; MALFORMED when it declares none.

    A shortened MSH-2 means that the missing delimiters are not in use; an empty one means the recommended ``^~\\&``.
    """
    field = line[3:4]
    if not field or field.isalnum() or field.isspace():
        raise GatewayError(Category.MALFORMED, "no field separator follows MSH; start the message "
                           "with MSH|^~\\&|", "MSH-1")
    return _separators(field, line[4:].split(field, 1)[0].strip())


@lru_cache(maxsize=64)
def _separators(field: str, encoding: str) -> Separators:
    if not encoding:
        return Separators(field)
    if encoding[2:3] == encoding[3:4] and len(encoding) > 4:
        encoding = encoding[:3] + encoding[4:]  # ^~\\&: the backslash doubled by a programming language
    used = encoding[:5]
    if len(set(used)) < len(used) or any(c.isalnum() or c.isspace() for c in used):
        raise GatewayError(Category.MALFORMED, "the encoding characters are letters, digits or repeat; send "
                           "^~\\&", "MSH-2")
    padded = [*used, "", "", "", "", ""]
    return Separators(field, *padded[:5])


@lru_cache(maxsize=64)
def _pattern(escape: str) -> re.Pattern[str]:
    e = re.escape(escape)
    return re.compile(f"{e}([FSTREPHN]){e}|((?:{e}X(?:[0-9A-Fa-f][0-9A-Fa-f])+{e})+)"
                      f"|{e}\\.([a-z]{{2}})([+-]?[0-9]*){e}")


def unescape(text: str, separators: Separators, codec: str = "utf-8") -> str:
    """Text with its escape sequences resolved; an unknown or unpaired one stays as it was sent.

    ``\\Xdd..\\`` holds bytes of the message's character set; adjacent ones are one run of bytes, so that a character
    may be spread over several. Bytes that do not decode stay visible. Highlighting (``\\H\\``, ``\\N\\``) is dropped.
    """
    escape = separators.escape
    if not escape or escape not in text:
        return text
    letters = {"F": separators.field, "S": separators.component, "T": separators.subcomponent,
               "R": separators.repetition, "E": escape, "P": separators.truncation or "#", "H": "", "N": ""}

    def resolve(match: re.Match[str]) -> str:
        letter, run, command, count = match.groups()
        if letter:
            return letters[letter]
        if run:
            data = bytes.fromhex(run.replace(escape + "X", "").replace(escape, ""))
            try:
                return CONTROLS.sub("", data.decode(codec))
            except UnicodeDecodeError:
                return match[0]
        if command not in _FORMATTING:
            return match[0]
        times = min(int(count), 40) if count.isdigit() and command in ("sp", "sk") else 1
        return _FORMATTING[command] * times

    return _pattern(escape).sub(resolve, text)


def escape(text: str, separators: Separators) -> str:
    """Text made safe to stand in a component; ``unescape`` gives it back."""
    if not separators.escape:
        return "".join(" " if c in separators[:5] or c in "\r\n" else c for c in text)
    wrap = separators.escape
    codes = {wrap: "E", separators.field: "F", separators.component: "S", separators.repetition: "R",
             separators.subcomponent: "T", "\r": "X0D", "\n": ".br"}
    return "".join(f"{wrap}{codes[c]}{wrap}" if c in codes else c for c in text)
