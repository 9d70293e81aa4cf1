"""Messages with invented patients: names, numbers, addresses and telephones replaced, equal ones by equal ones. Pure.

Replaced are the fields that hold people, by the standard: PID, NK1, MRG, GT1, IN1, and whoever is named as doctor,
nurse or technician; numbers of visits, orders and messages; and wherever one of these stands again (OBX-5, NTE-3, a
Z-segment …). In texts, what has the form of an identity card number or a mobile telephone is replaced too. Enclosed
documents are emptied. A message in which an original would still stand is not given back.

What this does not catch: a person whom a text alone names; the dates of visits and results; a rare disease; the names
of places. So somebody who knows the hospital reads what is kept.
"""

from __future__ import annotations

import hmac
import re

from stdnum.cn import ric

from gateway.hl7v2 import Message, Segment, escape
from gateway.identity import normalised

_SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨"
_GIVEN = "明华建国秀英丽文志强海燕春平晓玲"
_LATIN = ("Alder", "Birch", "Cedar", "Elder", "Hazel", "Hawthorn", "Juniper", "Laurel", "Linden", "Maple", "Myrtle",
          "Olive", "Rowan", "Spruce", "Willow", "Yarrow", "Ada", "Bea", "Cara", "Dan", "Eve", "Finn", "Gus", "Ida",
          "Jan", "Kim", "Leo", "Mia", "Nils", "Ona", "Pia", "Rolf")
_CJK = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_DATE = re.compile(r"(\d{4})([-/]?)(\d{2})([-/]?)(\d{2})", re.ASCII)
_IDENTITY_CARD = re.compile(r"(?<![0-9])[1-9]\d{5}(?:18|19|20)\d{9}[\dXx](?![0-9])", re.ASCII)
_MOBILE = re.compile(r"(?<![0-9])1[3-9]\d{9}(?![0-9])", re.ASCII)
#: Fields that are text, as they may name somebody.
_TEXTS = {"OBX": (5,), "NTE": (3,), "OBR": (13, 20, 21, 31, 46), "DG1": (4,), "MSA": (3,), "PV2": (3,), "FT1": (8,)}
#: What fields hold: XPN, XCN (or NDL), a number in the first component (CX, EI), XAD, XTN, or a day of birth.
_FIELDS: dict[str, dict[str, tuple[int, ...]]] = {
    "name": {"PID": (5, 6, 9), "NK1": (2, 30), "MRG": (7,), "GT1": (3, 4), "IN1": (16,)},
    "person": {"PV1": (7, 8, 9, 17, 52), "ORC": (10, 11, 12, 19), "OBR": (10, 16, 28, 32, 33, 34, 35), "OBX": (16, 25),
               "EVN": (5,), "TXA": (5, 9, 10, 11, 22), "PD1": (4,), "DG1": (16,), "AIP": (3,), "SCH": (12, 16, 20),
               "ROL": (4,), "FT1": (20, 21, 24), "PRT": (5,)},
    "number": {"PID": (2, 3, 4, 18, 19, 20, 21), "MRG": (1, 2, 3, 4, 5, 6), "PV1": (5, 19, 50), "NK1": (12, 33, 37),
               "GT1": (2, 12, 19), "IN1": (36, 46, 49), "IN2": (1, 2, 6, 8, 26), "OBR": (2, 3, 18, 19, 53),
               "OBX": (21,), "ORC": (2, 3, 4, 33), "SPM": (2, 3), "SAC": (1, 2, 3, 4), "FT1": (2, 23),
               "TXA": (12, 13, 14), "SCH": (1, 2, 26, 27), "MSH": (10,)},
    "address": {"PID": (11, 12, 23), "NK1": (4, 32), "GT1": (5, 17), "IN1": (5, 19, 44), "ORC": (24,)},
    "phone": {"PID": (13, 14, 40), "NK1": (5, 6, 7, 31), "GT1": (6, 7, 18), "OBR": (17,), "ORC": (14, 23), "IN1": (7,)},
    "birth": {"PID": (7, 29), "NK1": (16,), "GT1": (8,), "IN1": (18,)},
}
_KINDS = {(name, at): kind for kind, of in _FIELDS.items() for name, fields in of.items() for at in fields}


class Pseudonyms:
    """Replacements under one secret: equal originals become equal, and nobody gets back without the secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def message(self, message: Message) -> bytes | None:
        """The message with invented people, in its own character set; None where an original would still stand."""
        work = _Work(self, message)
        text = work.text()
        if work.leaks(text):
            return None
        try:
            return text.encode("utf-8" if message.codec == "ascii" else message.codec)
        except UnicodeEncodeError:
            return None

    def _hash(self, kind: str, text: str) -> int:
        return int.from_bytes(hmac.digest(self._secret, f"{kind}|{text}".encode(), "sha256"), "big")

    def number(self, text: str) -> str:
        """Another number of the same form: digits by digits, letters stay; an identity card number by a valid one."""
        if card := normalised(text):
            return self._identity_card(card)
        hashed, made = self._hash("number", text), []
        if not any(c.isdigit() for c in text):
            if _CJK.search(text):
                return self.name(text, whole=True)
            return "".join(chr(65 + (hashed >> 5 * n) % 26) if c.isalpha() else c for n, c in enumerate(text)) \
                if len(text) > 3 else text
        for c in text:
            if c.isascii() and c.isdigit():
                hashed, digit = divmod(hashed, 9)
                c = str(digit + 1)
            made.append(c)
        return "".join(made)

    def _identity_card(self, card: str) -> str:
        serial = self._hash("card", card) % 500 * 2 + int(card[16]) % 2  # odd: male
        body = f"330100{self.date(card[6:14])}{serial:03}"
        return body + str(ric.calc_check_digit(body + "0"))

    def name(self, text: str, whole: bool) -> str:
        """An invented name or, where not ``whole``, a part of one; Chinese by Chinese."""
        hashed = self._hash("name", text.casefold())
        if _CJK.search(text):
            first, second, third = hashed & 15, hashed >> 4 & 15, hashed >> 8 & 15
            given = _GIVEN[second] + (_GIVEN[third] if len(text) != 2 else "")
            return _SURNAMES[first] + given if whole else given if len(text) > 1 else _SURNAMES[first]
        return _LATIN[hashed & 31] if text.strip() else text

    def date(self, text: str) -> str:
        """Another day of the same year; what is no possible day stays."""
        match = _DATE.match(text)
        if not match or not ("1800" < match[1] < "2200" and "01" <= match[3] <= "12" and "01" <= match[5] <= "31"):
            return text
        hashed = self._hash("date", match[1] + match[3] + match[5])
        rest = re.sub(r"\d", "0", text[match.end():])
        return f"{match[1]}{match[2]}{hashed % 12 + 1:02}{match[4]}{(hashed >> 8) % 28 + 1:02}{rest}"

    def phone(self, text: str) -> str:
        """A telephone number of the same form, or an address of nobody."""
        return "nobody@example.org" if "@" in text else self.number(text) if len(text) > 3 else text

    def address(self, text: str, component: int) -> str:
        """A line of an address that is nowhere; country and kind (6, 7) stay."""
        if component in (6, 7) or not text:
            return text
        if component == 5 or text.isdigit():
            return "0" * len(text)
        number = self._hash("address", text) % 900 + 1
        if _CJK.search(text):
            return f"某路{number}号" if component in (1, 2, 8, 19) else "某地"
        return f"{number} Nowhere Road" if component in (1, 2, 8, 19) else "Nowhere"


class _Work:
    """One message being rewritten, with what was replaced in it."""

    def __init__(self, pseudonyms: Pseudonyms, message: Message) -> None:
        self._by = pseudonyms
        self._message = message
        self._originals: dict[str, str] = {}

    def text(self) -> str:
        """The whole message rewritten: first the fields that hold people, then whatever repeats these."""
        lines = [self._segment(segment) for segment in self._message.segments]
        patterns = self._patterns()
        separator = self._message.separators.field
        for fields in lines:
            for at in range(1, len(fields)):
                if fields[0] == "MSH" and at < 3 or not fields[at]:
                    continue
                for pattern, new in patterns:
                    fields[at] = pattern.sub(new.replace("\\", r"\\"), fields[at])
                if fields[0].startswith("Z") or at in _TEXTS.get(fields[0], ()):
                    fields[at] = _IDENTITY_CARD.sub(lambda m: self._by.number(m[0]), fields[at])
                    fields[at] = _MOBILE.sub(lambda m: self._by.number(m[0]), fields[at])
        joined = [separator.join(f[:1] + f[2:] if f[0] == "MSH" else f).replace("\n", " ") for f in lines]
        return "\r".join(joined) + "\r"

    def leaks(self, text: str) -> bool:
        """Whether something that was replaced still stands anywhere, but for what is part of a replacement."""
        news = " ".join(self._originals.values())
        return any(pattern.search(text) and not pattern.search(news) for pattern, _ in self._patterns())

    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """Originals that are long enough to be nobody else's, the longest first."""
        found = []
        for old in sorted(self._originals, key=len, reverse=True):
            new = self._originals[old]
            if old == new:
                continue
            if _CJK.search(old):
                if len(old) > 1:
                    found.append((re.compile(re.escape(old)), new))
            elif len(old) >= (6 if any(c.isdigit() for c in old) else 4):
                found.append((re.compile(rf"(?<![0-9A-Za-z]){re.escape(old)}(?![0-9A-Za-z])", re.IGNORECASE), new))
        return found

    def _segment(self, segment: Segment) -> list[str]:
        """The raw fields, those of people rewritten; the first is the segment's name."""
        fields = [segment.name, *(segment.raw_field(at) for at in range(1, segment.size))]
        for at, raw in enumerate(fields):
            kind = _KINDS.get((segment.name, at))
            if kind and raw and raw != '""':
                fields[at] = self._field(raw, kind)
        if segment.name == "OBX" and len(fields) > 5 and segment.get(2).upper() == "ED":
            fields[5] = self._emptied(fields[5])
        return fields

    def _field(self, raw: str, kind: str) -> str:
        separators = self._message.separators
        repetitions = raw.split(separators.repetition) if separators.repetition else [raw]
        done = []
        for repetition in repetitions:
            components = repetition.split(separators.component) if separators.component else [repetition]
            made = [self._component(components, at, kind) for at in range(1, len(components) + 1)]
            self._remember_whole(components, made, kind)
            done.append(separators.component.join(made))
        return separators.repetition.join(done)

    def _component(self, components: list[str], at: int, kind: str) -> str:
        separators = self._message.separators
        raw = components[at - 1]
        leaves = raw.split(separators.subcomponent) if separators.subcomponent else [raw]
        made = []
        for sub, leaf in enumerate(leaves, 1):
            old = self._message.unescaped(leaf).strip()
            if not old or old == '""':
                made.append(leaf)
                continue
            within = kind == "person" and at == 1 and len(leaves) > 1  # the CNN of an NDL
            new = self._leaf(old, kind, sub, leaves) if within else self._leaf(old, kind, at, components)
            if new != old:
                self._originals[old] = new
            made.append(leaf if new == old else escape(new, separators))
        return separators.subcomponent.join(made)

    def _leaf(self, text: str, kind: str, at: int, components: list[str]) -> str:
        by = self._by
        if kind == "person":  # number, family, given, further
            if at == 1 and any(c.isdigit() for c in text):
                return by.number(text)
            kind, at = "name", max(at - 1, 1)
            components = components[1:] if len(components) > 1 else components
        if kind == "name":
            alone = not any(c.strip() for c in components[1:3])
            return by.name(text, whole=at == 1 and (alone or len(text) > 2)) if at <= 3 and not text.isdigit() else text
        if kind == "number":
            return by.number(text) if at == 1 else text
        if kind == "birth":
            return by.date(text) if at == 1 else text
        return by.address(text, at) if kind == "address" else by.phone(text)

    def _remember_whole(self, components: list[str], made: list[str], kind: str) -> None:
        """A Chinese name in two components stands in texts as one word."""
        if kind in ("name", "person"):
            first = 0 if kind == "name" else 1
            old, new = "".join(components[first:first + 2]), "".join(made[first:first + 2])
            if old != new and _CJK.search(old):
                self._originals[old] = new

    def _emptied(self, raw: str) -> str:
        """An ED without its document."""
        separators = self._message.separators
        parts = raw.split(separators.component) if separators.component else [raw]
        if len(parts) > 4:
            parts[4:] = [{"BASE64": "cmVtb3ZlZA==", "HEX": "72656d6f766564"}.get(parts[3].upper(), "removed")]
        return separators.component.join(parts)
