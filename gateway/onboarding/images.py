"""What sample DICOM objects say of how a hospital's images come: character set, titles, exam codes; never of whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import imaging
from gateway.errors import GatewayError
from gateway.imaging.part10 import part10_from_json
from gateway.onboarding.codes import LocalCode

_PROCEDURES = ("ProcedureCodeSequence", "RequestedProcedureCodeSequence")


@dataclass(slots=True)
class ImageHabits:
    """What the objects show, with counts of objects."""

    objects: int = 0
    studies: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    institutions: Counter[str] = field(default_factory=Counter)  # (0008,0080)
    titles: Counter[str] = field(default_factory=Counter)  # (0002,0016): who wrote the file, often the calling AE
    modalities: Counter[str] = field(default_factory=Counter)
    charsets: Counter[str] = field(default_factory=Counter)  # (0008,0005)
    undeclared: int = 0  # without (0008,0005), but with names beyond ASCII
    accessions: set[str] = field(default_factory=set)  # to be held against orders, never told
    codes: dict[str, LocalCode] = field(default_factory=dict)
    descriptions: Counter[str] = field(default_factory=Counter)  # of studies without a procedure code


def read_images(paths: Iterable[Path]) -> ImageHabits:
    """The habits that image files show; each study's code counts once."""
    habits, studies = ImageHabits(), set()
    for path in paths:
        for facts in _facts(path, habits):
            habits.objects += 1
            for counter, keyword in ((habits.institutions, "InstitutionName"), (habits.modalities, "Modality")):
                if text := facts.get(keyword):
                    counter[str(text)] += 1
            declared = "\\".join(facts.get("SpecificCharacterSet") or ())
            habits.charsets[declared or "(none)"] += 1
            named = "".join(str(v) for v in (facts.get("PatientName") or {}).values()) + str(
                facts.get("InstitutionName", ""))
            if accession := facts.get("AccessionNumber"):
                habits.accessions.add(str(accession))
            habits.undeclared += not declared and not named.isascii()
            if facts["StudyInstanceUID"] not in studies:
                studies.add(facts["StudyInstanceUID"])
                _exam(facts, habits)
    habits.studies = len(studies)
    return habits


def _facts(path: Path, habits: ImageHabits) -> list[dict[str, Any]]:
    try:
        if path.name.endswith(".dcm.json"):
            return [imaging.read_header(part10) for part10 in part10_from_json(path.read_text(encoding="utf-8"))]
        if title := _source_title(path):
            habits.titles[title] += 1
        with path.open("rb") as file:
            return [imaging.read_header(file)]
    except GatewayError as error:
        habits.unreadable[f"{error.where}: {error.message}" if error.where else error.message] += 1
    except (OSError, ValueError):
        habits.unreadable["the file cannot be read"] += 1
    return []


def _source_title(path: Path) -> str:
    """Source Application Entity Title, PS3.10 7.1."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        return str(read_file_meta_info(path).get("SourceApplicationEntityTitle", "")).strip()
    except (InvalidDicomError, OSError, ValueError, KeyError, EOFError):
        return ""


def _exam(facts: dict[str, Any], habits: ImageHabits) -> None:
    items = [item for keyword in _PROCEDURES for item in facts.get(keyword) or ()]
    for item in items:
        if local := imaging.codes.code_value(item):
            code = habits.codes.setdefault(local, LocalCode(local))
            code.kinds["exam"] += 1
            if name := item.get("CodeMeaning"):
                code.names[str(name)] += 1
    if not items and (description := facts.get("StudyDescription") or facts.get("RequestedProcedureDescription")):
        habits.descriptions[str(description)] += 1
