"""Makes each shipped hospital's map to the unified codes: ``python -m profiles.hospitals [--check]``.

A hospital's ``codes.csv`` is what people edit; the ConceptMap made from it is what FHIR clients read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway import terminology
from gateway.adapter import hospital_folders, read_codes, read_manifest
from gateway.config import SHIPPED_ADAPTERS
from profiles.build import DATE, text

HERE = Path(__file__).parent


def maps() -> dict[str, str]:
    """File name → text, of every shipped hospital that has codes."""
    made = {}
    for folder in hospital_folders(SHIPPED_ADAPTERS):
        institution = read_manifest(folder / "manifest.toml")["institution"]
        if rows := read_codes(folder / "codes.csv"):
            resource = terminology.concept_map(institution["id"], institution["code_system"], rows, date=DATE,
                                               where=f"{folder.name}/codes.csv")
            resource["publisher"] = "Huren"
            made[f"ConceptMap-{resource['id']}.json"] = text(resource)
    return made


def main(arguments: list[str]) -> int:
    """0: written, or with ``--check`` nothing differs; 1: something does."""
    differing = [(name, made) for name, made in maps().items()
                 if not (HERE / name).is_file() or (HERE / name).read_text("utf-8") != made]
    for name, made in differing:
        if "--check" not in arguments:
            (HERE / name).write_text(made, "utf-8")
        print(f"{'differs' if '--check' in arguments else 'written'}: {name}")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
