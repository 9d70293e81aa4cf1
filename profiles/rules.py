"""Makes what FHIR clients read of the shipped rules: ``python -m profiles.rules [--check]``.

The tables in ``recognition/`` are what people edit; regions, marks and reasons made from them stand beside the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.recognition.published import definitions
from gateway.recognition.tables import TABLES, Faults, read_tables
from gateway.recognition.versions import shipped
from profiles.build import DATE, text

HERE = Path(__file__).parent


def made() -> dict[str, str]:
    """File name → text."""
    files = {path.name: path.read_bytes() for path in (HERE / "recognition").glob("*.tsv") if path.name in TABLES}
    found = {}
    for resource in definitions(shipped(), read_tables(files, Faults())):
        assert resource["date"] == DATE
        found[f"{resource['resourceType']}-{resource['id']}.json"] = text(resource)
    return found


def main(arguments: list[str]) -> int:
    """0: written, or with ``--check`` nothing differs; 1: something does."""
    differing = [(name, new) for name, new in made().items()
                 if not (HERE / name).is_file() or (HERE / name).read_text("utf-8") != new]
    for name, new in differing:
        if "--check" not in arguments:
            (HERE / name).write_text(new, "utf-8")
        print(f"{'differs' if '--check' in arguments else 'written'}: {name}")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
