"""Laboratory messages of a bench hospital: the n-th message is always the same bytes."""

from __future__ import annotations

import csv
import random
from datetime import datetime
from pathlib import Path

from stdnum.iso7064 import mod_11_2

HOSPITAL = Path(__file__).with_name("hospital")
#: local code, unit, low, high, decimals: a blood count of 22 results
_RANGES = {"WBC": (3.5, 9.5, 2), "RBC": (3.8, 5.8, 2), "HGB": (115, 175, 0), "HCT": (35, 50, 1), "MCV": (82, 100, 1),
           "MCH": (27, 34, 1), "MCHC": (316, 354, 0), "RDWCV": (11, 15, 1), "RDWSD": (37, 50, 1), "PLT": (125, 350, 0),
           "MPV": (7.5, 12.5, 1), "PDW": (9, 17, 1), "NEUTP": (40, 75, 1), "NEUT": (1.8, 6.3, 2), "LYMPHP": (20, 50, 1),
           "LYMPH": (1.1, 3.2, 2), "MONOP": (3, 10, 1), "MONO": (0.1, 0.6, 2), "EOP": (0.4, 8, 1),
           "EO": (0.02, 0.52, 2), "BASOP": (0, 1, 1), "BASO": (0, 0.06, 2)}
_CHEMISTRY = {"K": (3.5, 5.3, 2), "NA": (137, 147, 0), "CL": (99, 110, 0), "UREA": (3.1, 8, 1), "CREA": (57, 97, 0),
              "GLU": (3.9, 6.1, 2)}
#: order code, name, discipline, results
PANELS = {"CBC": ("CBC^血常规^L", "HM", _RANGES), "CHEM": ("CHEM^生化六项^L", "CH", _CHEMISTRY)}
with (HOSPITAL / "codes.csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = {row["local"]: row for row in csv.DictReader(_file)}
_FAMILIES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗"
_GIVENS = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂英华建国"


def national_id(person: int) -> str:
    """A number of the right form (GB 11643) for the n-th invented person."""
    day = 1 + person % 28
    body = f"110101{1940 + person // 9000 % 70}{1 + person // 28 % 12:02d}{day:02d}{person // 336 % 999 + 1:03d}"
    return body + mod_11_2.calc_check_digit(body)


def oru(n: int, persons: int, run: str = "") -> bytes:
    """The n-th ORU^R01: one report with 22 OBX of one of ``persons`` patients."""
    rng = random.Random(n)
    person = rng.randrange(persons)
    day, second = n // 86400 % 600, n % 86400
    when = (f"{2025 + day // 360}{1 + day // 30 % 12:02d}{1 + day % 28:02d}"
            f"{second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}+0800")
    return _message(f"{run}{n}", person, "CBC", when, rng)


def report(number: str, person: int, panel: str, at: datetime) -> bytes:
    """One report of a person, of one of ``PANELS``, taken at a time with its zone."""
    return _message(number, person, panel, at.strftime("%Y%m%d%H%M%S%z"), random.Random(number))


def _message(number: str, person: int, panel: str, when: str, rng: random.Random) -> bytes:
    who = random.Random(person)
    name = who.choice(_FAMILIES) + who.choice(_GIVENS) + who.choice(_GIVENS)
    identity = national_id(person)
    sex = "M" if int(identity[16]) % 2 else "F"
    order, discipline, ranges = PANELS[panel]
    lines = [
        f"MSH|^~\\&|LIS|BENCH|HUREN|HRP|{when}||ORU^R01^ORU_R01|{number}|P|2.5.1|||AL|NE||UNICODE UTF-8",
        f"PID|1||{person:08d}^^^BENCH^MR~{identity}^^^CN^NNCHN||{name}||{identity[6:14]}|{sex}",
        f"ORC|RE|P{number}|F{number}||CM",
        f"OBR|1|P{number}|F{number}|{order}|||{when}|||||||||||||||{when}||{discipline}|F"]
    for i, (local, (low, high, places)) in enumerate(ranges.items(), 1):
        value = max(low / 3, rng.gauss((low + high) / 2, (high - low) / 4))
        flag = "H" if value > high else "L" if value < low else "N"
        lines.append(f"OBX|{i}|NM|{local}^{_ROWS[local]['display']}^L||{value:.{places}f}|{_ROWS[local]['unit']}|"
                     f"{low:g}-{high:g}|{flag}|||F|||{when}")
    lines.append(f"SPM|1|||BLD^全血^HL70487|||||||||||||{when}")
    return ("\r".join(lines) + "\r").encode()
