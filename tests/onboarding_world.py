"""A hospital that nobody has met yet, as its engine exports it: sixty messages in GB 18030 with habits of its own.

Fictional throughout: Tiantai's laboratory writes v2.4 without MSH-18, types numbers as ST, puts a local number before
the unit, flags with arrows, reports with statuses of its own, and fills unknown times with zeros.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

FACILITY = "天台县第一医院"
CBC = (("0101", "白细胞计数", "10*9/L", "3.5-9.5", 6.5), ("0102", "红细胞计数", "10*12/L", "4.3-5.8", 4.9),
       ("0103", "血红蛋白", "g/L", "男:130-175 女:115-150", 140), ("0104", "血小板计数", "10*9/L", "125-350", 220))
LIVER = (("0201", "谷丙转氨酶", "U/L", "9-50", 30), ("0202", "谷草转氨酶", "U/L", "15-40", 25),
         ("0203", "总胆红素", "umol/L", "<=21.0", 12))
HEPATITIS = (("0301", "乙肝表面抗原", "", "阴性", 0), ("0302", "丙型肝炎抗体", "", "阴性", 0))
PANELS = (("9001", "血常规", "全血", CBC), ("9002", "肝功能", "血清", LIVER), ("9003", "感染四项", "血清", HEPATITIS))
SURNAMES, GIVEN = "王李张刘陈杨赵黄", ("秀英", "建军", "丽华", "国强", "海燕", "志明")


def messages(count: int = 60, seed: int = 7, *, status: str = "已审核", flag_high: str = "↑",
             start: int = 0) -> list[bytes]:
    """So many messages; equal arguments give equal bytes."""
    chance = random.Random(seed)
    return [_message(start + n, chance, status, flag_high) for n in range(count)]


def _message(n: int, chance: random.Random, status: str, flag_high: str) -> bytes:
    code, name, specimen, tests = PANELS[n % len(PANELS)]
    day, clock = f"202603{n % 28 + 1:02}", f"{chance.randrange(7, 18):02}{chance.randrange(60):02}00"
    person = chance.choice(SURNAMES) + chance.choice(GIVEN)
    born = "00000000" if n % 20 == 3 else f"{chance.randrange(1940, 2015)}{chance.randrange(1, 13):02}{n % 28 + 1:02}"
    lines = [
        f"MSH|^~\\&|天健LIS|{FACILITY}|HUREN|HRP|{day}{clock}||ORU^R01|TJ{n:06}|P|2.4",
        f"PID|1||{8800000 + n}^^^TTYY^MR||{person}||{born}|{chance.choice('12')}|||天台县赤城街道{n}号||"
        f"139{57600000 + n}",
        f"PV1|1|门诊|检验科^^^天台||||D{n % 5:03}^陈医生{'一二三四五'[n % 5]}",
        f"OBR|1|A{n // 2:06}|F{n:06}|{code}^{name}^L|||{day}{clock}|||||||{day}{clock}|{specimen}|"
        f"D{n % 5:03}^陈医生{'一二三四五'[n % 5]}||||||{day}{clock}||LAB|{status if n % 15 else '待定'}"]
    for at, (local, test, unit, limits, middle) in enumerate(tests, 1):
        value, flag = f"{middle * chance.uniform(0.7, 1.3):.1f}", chance.choice((flag_high, "↓", "", "", "", ""))
        if not unit:
            value, flag = chance.choice(("阴性", "阴性", "阳性")), ""
        lines.append(f"OBX|{at}|ST|{local}^{test}^L||{value}|{f'U{local[-2:]}^{unit}' if unit else ''}|{limits}|{flag}"
                     f"|||F|||{day}{clock}")
    if n % 10 == 0:
        lines.append("NTE|1||标本轻度溶血")
    lines.append(f"ZTJ|{n % 3}|自助打印")
    return "\r".join(lines).encode("gb18030") + b"\r"


def write(folder: Path, sent: Sequence[bytes]) -> Path:
    """The messages as an export: some one by one, the rest in a file of many, and files that are none."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, raw in enumerate(sent[:20]):
        (folder / f"m{n:03}.hl7").write_bytes(raw)
    (folder / "export.txt").write_bytes(b"\r\n".join(sent[20:]))
    (folder / "说明.docx").write_bytes(b"PK\x03\x04 not a message")
    (folder / "m000-copy.hl7").write_bytes(sent[0])
    return folder
