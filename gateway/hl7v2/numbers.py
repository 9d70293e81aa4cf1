"""Numbers as hospitals write them: full-width, with a comparator before or behind, with an exponent, with commas. Pure.

Whatever may be read in two ways is not read: ``1,000`` is a thousand or one, until the manifest says which
(``number_comma``).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

#: Full-width forms of what numbers and ranges are made of, and the other ways to write minus, ≤ and ≥.
_WIDE = str.maketrans("０１２３４５６７８９．＋－＜＞＝，：；～（）％／　−≦≧⩽⩾∼〜", "0123456789.+-<>=,:;~()%/ -≤≥≤≥~~")
NUMBER = r"(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})"
_PLAIN = re.compile(rf"[+-]?{NUMBER}", re.ASCII)
_EXPONENT = re.compile(rf"([+-]?{NUMBER})[eE]([+-]?\d{{1,2}})", re.ASCII)
_POWER = re.compile(rf"(?:([+-]?{NUMBER})\s*[x×*·]\s*)?10\^([+-]?\d{{1,2}})", re.ASCII)
_THOUSANDS = re.compile(r"([+-]?\d{1,3}(?:,\d{3})+)(\.\d{1,20})?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d{1,20},\d{1,20}", re.ASCII)
#: 以上 and 以下 include the number (Civil Code of the PRC, article 1259).
_BEFORE = {
    "<": "<", "<=": "<=", "=<": "<=", "≤": "<=", ">": ">", ">=": ">=", "=>": ">=", "≥": ">=",
    "小于等于": "<=", "大于等于": ">=", "不大于": "<=", "不高于": "<=", "不超过": "<=", "不小于": ">=", "不低于": ">=",
    "小于": "<", "低于": "<", "大于": ">", "高于": ">", "超过": ">",
    "less than": "<", "below": "<", "up to": "<=", "greater than": ">", "more than": ">", "above": ">",
    "at least": ">=",
}
_BEHIND = {"及以上": ">=", "以上": ">=", "及以下": "<=", "以下": "<="}
_SIGNS = "|".join(sorted(map(re.escape, _BEFORE), key=len, reverse=True))
_COMPARED = re.compile(rf"({_SIGNS})\s*(.+)|(.+?)\s*({'|'.join(_BEHIND)})", re.IGNORECASE)


class Number(NamedTuple):
    """An exact number with its comparator; ``spelled``: by other means than digits, point and sign."""

    value: Decimal
    comparator: str = ""
    spelled: bool = False


def narrow(text: str) -> str:
    """Full-width digits and signs as ASCII's: the same characters in another width."""
    return text if text.isascii() else text.translate(_WIDE)


def compared(text: str, commas: str = "") -> Number | None:
    """``7.48``, ``<0.01``, ``＜０.５``, ``5以上``, ``1.2E3``, ``>10^5``; None for anything else.

    ``commas``: the manifest's ``number_comma``, "decimal" or "thousands".
    """
    text = narrow(text).strip()
    if (found := exact(text, commas)) is not None:
        return found
    match = _COMPARED.fullmatch(text)
    if match is None:
        return None
    sign, rest, front, behind = match.groups()
    if (found := exact((rest or front).strip(), commas)) is None:
        return None
    comparator = _BEFORE[sign.lower()] if sign else _BEHIND[behind]
    return Number(found.value, comparator, found.spelled or not sign or sign[0] not in "<>=≤≥")


def exact(text: str, commas: str = "") -> Number | None:
    """A number without comparator, its precision kept; of narrow text."""
    if _PLAIN.fullmatch(text):
        return Number(Decimal(text))
    if match := _EXPONENT.fullmatch(text):
        return Number(_scaled(match[1], match[2]), spelled=True)
    if match := _POWER.fullmatch(text):
        return Number(_scaled(match[1] or "1", match[2]), spelled=True)
    if "," not in text:
        return None
    if commas == "decimal" and _DECIMAL_COMMA.fullmatch(text):
        return Number(Decimal(text.replace(",", ".")), spelled=True)
    if (match := _THOUSANDS.fullmatch(text)) and (commas == "thousands" or commas != "decimal" and _surely(match)):
        return Number(Decimal(text.replace(",", "")), spelled=True)
    return None


def _scaled(mantissa: str, exponent: str) -> Decimal:
    """Exact, and written without exponent: the text beside it says how precise it is."""
    return Decimal(format(Decimal(f"{mantissa}E{exponent}"), "f"))


def _surely(match: re.Match[str]) -> bool:
    """Whether the commas cannot be a decimal one: there are two, or a point follows (``1,234.5``)."""
    return match[1].count(",") > 1 or match[2] is not None
