"""The demo's story: a few persons whose results of the last days lie in several hospitals, so that a reminder comes.

Each telling takes a shipped example and lets it happen to another person, some days ago: other identity, other numbers
and UIDs, the same hospital's way of speaking. A CT gets pictures of a phantom in place of the example's few pixels.
Told twice on one day, it is the same to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import orjson

from gateway.adapter import Adapter

_STAMP = re.compile(r"(?<![0-9])(20[0-9]{6})([0-9]{4}(?:[0-9]{2})?)(?![0-9])")
#: Slices of a phantom, and pixels of its edge.
SLICES, EDGE = 16, 256


@dataclass(frozen=True, slots=True)
class Person:
    """An invented person."""

    number: int
    family: str
    given: str
    national_id: str

    @property
    def birth_date(self) -> str:
        return self.national_id[6:14]

    @property
    def sex(self) -> str:
        return "M" if int(self.national_id[16]) % 2 else "F"


CHEN = Person(1, "陈", "晓明", "33010619750618011X")
LIN = Person(2, "林", "雅琴", "33010619620423048X")
WU = Person(3, "吴", "小龙", "330106199011020738")


@dataclass(frozen=True, slots=True)
class Telling:
    """An example of a hospital folder that happens to a person, so many days ago."""

    hospital: str
    example: str
    person: Person
    days_ago: int


TELLINGS = (
    Telling("qiantang", "01-chest-ct.dcm.json", CHEN, 3), Telling("qiantang", "02-chest-ct-report.hl7", CHEN, 3),
    Telling("renmin", "01-cbc-final.hl7", CHEN, 1), Telling("renmin", "02-liver-final.hl7", CHEN, 1),
    Telling("xihu", "05-electrolytes-final.hl7", CHEN, 12), Telling("xihu", "01-cbc-final.hl7", CHEN, 17),
    Telling("qiantang", "03-abdomen-ct.dcm.json", LIN, 9), Telling("qiantang", "04-abdomen-ct-report.hl7", LIN, 9),
    Telling("renmin", "03-kidney-final.hl7", LIN, 5), Telling("renmin", "05-lipids-final.hl7", LIN, 5),
    Telling("xihu", "02-liver-final.hl7", LIN, 2),
    Telling("qiantang", "05-brain-mr.dcm.json", WU, 6), Telling("qiantang", "07-brain-mr-final.hl7", WU, 6),
    Telling("xihu", "01-cbc-final.hl7", WU, 2), Telling("renmin", "04-electrolytes-final.hl7", WU, 15),
)


def tell(hospital: Adapter, today: date, into: Path) -> Iterator[Path]:
    """Files to send as this hospital, written into a folder; none where the story knows no such hospital."""
    for telling in TELLINGS:
        source = hospital.folder / "examples" / telling.example
        if telling.hospital != hospital.name or not source.exists():
            continue
        if source.suffix == ".hl7":
            target = into / f"{telling.person.number}-{telling.example}"
            target.write_bytes(_message(source.read_bytes(), hospital, telling, today))
            yield target
        else:
            for n, part10 in enumerate(_images(source.read_text("utf-8"), telling, today)):
                target = into / f"{telling.person.number}-{telling.example}-{n:02d}.dcm"
                target.write_bytes(part10)
                yield target


# ------------------------------------------------------------------ HL7v2


def _message(raw: bytes, hospital: Adapter, telling: Telling, today: date) -> bytes:
    charset = hospital.source.charset or ("gb18030" if b"GB 18030" in raw[:300] else "utf-8")
    text, person = raw.decode(charset), telling.person
    newest = max(stamp[1] for stamp in _STAMP.finditer(text))
    shift = today - timedelta(days=telling.days_ago) - datetime.strptime(newest, "%Y%m%d").date()
    text = _STAMP.sub(lambda m: _moved(m[1], shift) + m[2], text)
    ending = next(end for end in ("\r\n", "\r", "\n") if end in text)
    segments = [_retold(segment.split("|"), person, telling.hospital, today) for segment in text.split(ending)]
    return ending.join(segments).encode(charset)


def _moved(day: str, shift: timedelta) -> str:
    return (datetime.strptime(day, "%Y%m%d") + shift).strftime("%Y%m%d")


def _retold(fields: list[str], person: Person, hospital: str, today: date) -> str:
    mark = f"{today:%y%m%d}{person.number}"
    if fields[0] == "MSH":
        fields[9] = f"S{mark}{fields[9]}"
    elif fields[0] == "PID":
        return _pid(person, hospital)
    elif fields[0] in ("ORC", "OBR"):
        for n in (2, 3):
            if len(fields) > n and fields[n]:
                fields[n] = f"S{mark}{fields[n]}"
        if fields[0] == "OBR" and len(fields) > 18 and fields[18]:
            fields[18] = f"S{mark}{fields[18]}"  # accession number
    elif fields[0] == "OBX" and len(fields) > 5 and fields[2] == "HD":
        fields[5] = _uid(fields[5], mark)
    return "|".join(fields)


def _pid(person: Person, hospital: str) -> str:
    name, tail = person.family + person.given, f"{person.birth_date}|{person.sex}"
    number = _number(person, hospital)
    if hospital == "renmin":
        return f"PID|1||{number}^^^^PI||{name}||{tail}|||浙江省杭州市^^^^||||||||{person.national_id}"
    if hospital == "xihu":
        name = f"{person.family}^{person.given}^^^^^L^I"
        return f"PID|1||{number}^^^XHH^MR~{person.national_id}^^^MPS^NNCHN||{name}||{tail}"
    return f"PID|1||{number}^^^QTH^MR~{person.national_id}^^^&2.16.156.10011.1.3&ISO^NI||{name}||{tail}"


def _number(person: Person, hospital: str) -> str:
    return {"renmin": "0090", "xihu": "XH9", "qiantang": "Q9"}[hospital] + f"{person.number:03d}"


def _uid(uid: str, mark: str) -> str:
    return f"{uid}.{mark}"


# ------------------------------------------------------------------ DICOM


def _images(text: str, telling: Telling, today: date) -> Iterator[bytes]:
    from gateway.imaging.part10 import part10_from_json

    model = orjson.loads(text)
    first = model[0] if isinstance(model, list) else model
    person, mark = telling.person, f"{today:%y%m%d}{telling.person.number}"
    day = f"{today - timedelta(days=telling.days_ago):%Y%m%d}"

    def put(tag: str, vr: str, value: object) -> None:
        first[tag] = {"vr": vr, "Value": [value]}
    put("00100020", "LO", _number(person, telling.hospital))
    put("00100010", "PN", {"Alphabetic": f"{person.family}^{person.given}"})
    put("00100030", "DA", person.birth_date)
    put("00100040", "CS", person.sex)
    for tag in ("00080012", "00080020", "00080021", "00080022", "00080023", "00080012"):
        if tag in first:
            put(tag, "DA", day)
    for tag in ("0020000D", "0020000E"):
        put(tag, "UI", _uid(first[tag]["Value"][0], mark))
    put("00080050", "SH", f"S{mark}{first['00080050']['Value'][0]}")
    first.pop("00101002", None)  # other patient ids of the example's person
    base = first["00080018"]["Value"][0]
    for n in range(SLICES):
        put("00080018", "UI", f"{_uid(base, mark)}.{n + 1}")
        put("00200013", "IS", n + 1)
        _picture(first, telling.example, n)
        yield from part10_from_json(orjson.dumps(first).decode())


def _picture(model: dict[str, dict[str, object]], example: str, n: int) -> None:
    """Pixels, and what says how to read them (PS3.3 C.7.6.3)."""
    import base64

    for tag, value in (("00280010", EDGE), ("00280011", EDGE), ("00280100", 16), ("00280101", 16), ("00280102", 15),
                       ("00280103", 1), ("00280002", 1)):
        model[tag] = {"vr": "US", "Value": [value]}
    model["00280004"] = {"vr": "CS", "Value": ["MONOCHROME2"]}
    ct = "-ct" in example
    window = (-400, 1500) if "chest" in example else (40, 400) if ct else (300, 700)
    for tag, value, vr in (("00281050", window[0], "DS"), ("00281051", window[1], "DS"), ("00281052", 0, "DS"),
                           ("00281053", 1, "DS")):
        model[tag] = {"vr": vr, "Value": [value]}
    model["7FE00010"] = {"vr": "OW", "InlineBinary": base64.b64encode(
        phantom("chest" if "chest" in example else "abdomen" if ct else "head", n / (SLICES - 1))).decode()}


def phantom(body: str, height: float) -> bytes:
    """One slice as signed 16-bit little-endian: ellipses of the values that tissue has; ``height`` from 0 to 1."""
    import numpy as np

    y, x = np.mgrid[-1:1:EDGE * 1j, -1:1:EDGE * 1j]

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
    swell = 1 - (2 * height - 1) ** 2  # organs are largest in the middle
    if body == "head":
        shapes = [(0, 0, .72, .88, 900), (0, 0, .67, .83, 320), (0, 0, .60, .75, 420),
                  (-.14, -.05, .08, .10 + .15 * swell, 120), (.14, -.05, .08, .10 + .15 * swell, 120),
                  (.30, .30, .05 * swell, .05 * swell, 700)]
        ground = 0
    else:
        shapes = [(0, 0, .92, .68, -90), (0, 0, .86, .62, 45), (0, .42, .11, .13, 520), (0, .55, .04, .09, 420)]
        if body == "chest":
            shapes += [(-.42, -.02, .34, .34 + .16 * swell, -830), (.42, -.02, .32, .34 + .16 * swell, -830),
                       (.10, -.12, .22, .12 + .18 * swell, 50), (-.50, .10, .035 * swell, .035 * swell, -350),
                       (0, -.52, .10, .04, 400)]
        else:
            shapes += [(-.38, -.08, .40, .22 + .20 * swell, 62), (.48, .02, .18, .10 + .14 * swell, 52),
                       (-.45, -.05, .07 * swell, .07 * swell, 6), (.30, .30, .11, .13, 34), (-.30, .30, .11, .13, 34)]
        ground = -1000
    slice_ = np.full((EDGE, EDGE), ground, dtype=np.int16)
    for cx, cy, rx, ry, value in shapes:
        if rx > 0 and ry > 0:
            slice_[ellipse(cx, cy, rx, ry)] = value
    noise = np.random.default_rng(int(height * 1000)).normal(0, 12, slice_.shape)
    return (slice_ + noise).astype("<i2").tobytes()
