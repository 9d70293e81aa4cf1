"""A second version of the catalogue with 443 items, as tables: ``python -m bench.catalogue FOLDER [EFFECTIVE]``.

Sixteen items more than the shipped version has, with codes that continue its serials. They are test data: real enough
to be ordered and matched, and no clinician has seen them.
"""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path

from stdnum.iso7064 import mod_37_36

from gateway.recognition.versions import shipped, shipped_tables

VERSION = "443-items"
#: category, Chinese name, English name, cells that differ from those of an empty row
_NEW: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("CT", "肘关节CT平扫", "CT elbow, plain", {"body_site": "elbow", "laterality": "Y"}),
    ("CT", "腕关节CT平扫", "CT wrist, plain", {"body_site": "wrist", "laterality": "Y"}),
    ("CT", "足部CT平扫", "CT foot, plain", {"body_site": "foot", "laterality": "Y"}),
    ("MR", "足部MR平扫", "MR foot, plain", {"body_site": "foot", "laterality": "Y"}),
    ("MR", "臂丛神经MR平扫", "MR brachial plexus, plain", {"body_site": "brachial-plexus"}),
    ("DX", "胫腓骨正侧位X线摄影", "Radiograph tibia and fibula, two views", {"body_site": "tibia", "laterality": "Y"}),
    ("DX", "尺桡骨正侧位X线摄影", "Radiograph forearm, two views", {"body_site": "forearm", "laterality": "Y"}),
    ("US", "泌尿系超声", "Ultrasound urinary tract", {"body_site": "urinary-tract"}),
    ("BC", "血清铜蓝蛋白氧化酶活性", "Ceruloplasmin oxidase activity", {"specimen": "血清", "result_type": "Q"}),
    ("BC", "血清胆碱酯酶抑制率", "Cholinesterase inhibition", {"specimen": "血清", "result_type": "Q"}),
    ("HM", "血小板聚集功能", "Platelet aggregation", {"specimen": "血浆", "result_type": "Q"}),
    ("CG", "蛋白C活性", "Protein C activity", {"specimen": "血浆", "result_type": "Q"}),
    ("HR", "抗利尿激素", "Vasopressin", {"specimen": "血浆", "result_type": "Q"}),
    ("IM", "抗核小体抗体", "Nucleosome antibody", {"specimen": "血清", "result_type": "Q"}),
    ("ID", "戊型肝炎病毒IgM抗体", "Hepatitis E virus IgM", {"specimen": "血清", "result_type": "O"}),
    ("UR", "尿轻链κ", "Urine kappa light chain", {"specimen": "尿液", "result_type": "Q"}),
)


def tables(effective: date, version: str = VERSION) -> dict[str, bytes]:
    """The version's tables: its items; everything else is the shipped version's."""
    header, *lines = shipped_tables()["items.tsv"].decode().splitlines()
    columns = header.split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines]
    for category, name_zh, name_en, cells in _NEW:
        alike = [row for row in rows if row["category"] == category]
        serial = 1 + max(int(row["unified_code"][3:6]) for row in alike)
        code = f"{alike[0]['unified_code'][:3]}{serial:03d}"
        row = dict.fromkeys(columns, "") | {name: alike[0][name] for name in (
            "domain", "category", "category_zh", "modality", "contrast", "default_validity_days")}
        rows.append(row | {"unified_code": code + mod_37_36.calc_check_digit(code), "name_zh": name_zh,
                           "name_en": name_en, "laterality": "N", "rapid_change": "N",
                           "result_type": "report" if row["domain"] == "exam" else ""} | cells)
    head = (f'version = "{version}"\neffective = {effective}\nbase = "{shipped().version}"\n'
            f'title = "{len(rows)} items"\n')
    text = "".join("\t".join(cells) + "\n" for cells in (columns, *(row.values() for row in rows)))
    return {"catalogue.toml": head.encode(), "items.tsv": text.encode()}


def main(arguments: list[str]) -> int:
    """0: written; 2: wrong usage."""
    if len(arguments) not in (1, 2):
        print("usage: python -m bench.catalogue FOLDER [EFFECTIVE]", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    effective = date.fromisoformat(arguments[1]) if arguments[1:] else date.today() + timedelta(days=1)
    for name, raw in tables(effective).items():
        (folder / name).write_bytes(raw)
    print(f"huren catalogue load {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
