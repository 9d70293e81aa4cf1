"""Three dialects, situation by situation: the table names what there is, one situation means the same in each, and a
store holds what the expected files say. That each file is what its message becomes, `test_adapters.py` holds."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.adapter import hospital_folders, load_all
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.conformance import Example, examples
from gateway.fhir.resource import text
from gateway.hl7v2 import peek
from gateway.pipeline import Pipeline
from gateway.source import Resource
from gateway.store import Store

DIALECTS = Path(__file__).parent / "dialects"
FOLDERS = hospital_folders(DIALECTS)
_ROW = re.compile(r"\| `(\d\d-[a-z0-9-]+)` \| ([^|]+) \| (.*) \|")


def _table() -> dict[str, set[str]]:
    """The table of the manual: situation → dialects."""
    lines = (DIALECTS / "README.md").read_text(encoding="utf-8").splitlines()
    [head] = [line for line in lines if line.startswith("| example |")]
    dialects = [name.strip() for name in head.strip("|").split("|")[2:]]
    assert dialects == ["lis-gb", "his-utf8", "intl"]
    return {match[1]: {name for name, mark in zip(dialects, match[3].split("|"), strict=True) if mark.strip() == "●"}
            for line in lines if (match := _ROW.match(line))}


def _files() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for folder in FOLDERS:
        for example in examples(folder):
            found.setdefault(example.path.stem, set()).add(folder.name)
    return found


def _entries(folder: Path, situation: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = _loaded((folder / "examples" / f"{situation}.json").read_text(encoding="utf-8"))
    return entries


def _loaded(raw: str) -> Any:
    return json.loads(raw, parse_float=Decimal)


def test_the_table_names_exactly_the_examples() -> None:
    """Every example stands in the manual's table, and nothing else does; forty situations, most in all dialects."""
    table = _table()
    assert table == _files()
    assert len(table) >= 40
    assert sum(len(dialects) == 3 for dialects in table.values()) >= 40
    assert len({situation[:2] for situation in table}) == len(table)


def test_the_dialects_are_three() -> None:
    """They differ in bytes, line ends, versions and fields, not in names alone."""
    raw = {folder.name: [example.path.read_bytes() for example in examples(folder) if example.accepted]
           for folder in FOLDERS}
    for message in raw["lis-gb"]:
        assert message.endswith(b"\r\n") and re.search("[\u4e00-\u9fff]", message.decode("gb18030"))
        with pytest.raises(UnicodeDecodeError):
            message.decode("utf-8")
    assert all(re.search("[\u4e00-\u9fff]", message.decode("utf-8")) and b"\n" not in message
               for message in raw["his-utf8"])
    versions = {name: {peek(message).version_id for message in messages} for name, messages in raw.items()}
    assert versions["lis-gb"] == {"2.3.1", "2.4", "2.5"}
    assert versions["his-utf8"] == {"2.5.1", "2.6"}
    assert versions["intl"] >= {"2.2", "2.3", "2.3.1", "2.4", "2.5.1", "2.7", "2.8.2"}


#: Situation → what is said of the first resource of a type in each dialect that has it.
_MEANING: dict[str, tuple[str, str, Any]] = {
    "01-preliminary": ("DiagnosticReport", "status", "preliminary"),
    "02-final": ("DiagnosticReport", "status", "final"),
    "03-corrected": ("DiagnosticReport", "status", "corrected"),
    "05-cancelled": ("DiagnosticReport", "status", "cancelled"),
    "07-wrong-patient": ("DiagnosticReport", "status", "entered-in-error"),
    "31-refused-specimen": ("Specimen", "status", "unsatisfactory"),
    "45-order-new": ("ServiceRequest", "status", "active"),
    "48-admission": ("Encounter", "status", "in-progress"),
    "50-discharge": ("Encounter", "status", "finished"),
    "51-outpatient-registered": ("Encounter", "status", "arrived"),
    "53-admission-cancelled": ("Encounter", "status", "cancelled"),
    "54-discharge-cancelled": ("Encounter", "status", "in-progress"),
    "63-appointment-booked": ("Appointment", "status", "booked"),
    "66-appointment-cancelled": ("Appointment", "status", "cancelled"),
    "80-operation": ("Procedure", "status", "completed"),
}


@pytest.mark.parametrize(("folder", "situation"), [
    (folder, situation) for situation in _MEANING for folder in FOLDERS if folder.name in _files()[situation]],
    ids=lambda value: value if isinstance(value, str) else value.name)
def test_a_situation_means_the_same_in_every_dialect(folder: Path, situation: str) -> None:
    """The states of reports, specimens, orders, visits and appointments, whatever the dialect calls them."""
    kind, name, value = _MEANING[situation]
    found = [one for entry in _entries(folder, situation)
             if (one := entry.get("amended", entry)).get("resourceType") == kind]
    assert found and {one[name] for one in found} == {value}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_store_holds_what_the_expected_files_say(folder: Path, store: Store, tmp_path: Path) -> None:
    """The examples of a dialect, sent one after the other: accepted or refused as told, and then the store holds each
    report, result, document and appointment, and each resource that was amended, exactly as it stands in the file."""
    pipeline = Pipeline(Settings(data=tmp_path), store, load_all([DIALECTS]))
    checked = 0
    for example in examples(folder):
        receipt = pipeline.receive_hl7(example.path.read_bytes(), "127.0.0.1:1")
        assert (receipt.category is None) == example.accepted, (example.path.name, receipt.message)
        if not example.accepted:
            assert f"{receipt.category} {receipt.where}" == example.expected.read_text(encoding="utf-8").strip()
            continue
        for expected in _held(example):
            assert _stored(store, expected) == expected, (example.path.name, expected["resourceType"])
            checked += 1
    assert checked > 100


def _held(example: Example) -> list[Resource]:
    """What the store must hold after an example: what it amended, as it is then, and what a copy never is."""
    entries = _loaded(example.expected.read_text(encoding="utf-8"))
    amended = [entry["amended"] for entry in entries if "amended" in entry]
    ids = {(one["resourceType"], one["id"]) for one in amended}
    return amended + [one for one in entries if one.get("resourceType") in
                      ("DiagnosticReport", "Observation", "DocumentReference", "Appointment", "Provenance")
                      and (one["resourceType"], one["id"]) not in ids]


def _stored(store: Store, expected: Resource) -> Resource:
    kind = expected["resourceType"]
    row = store.read(kind, expected["id"], GATEWAY)
    assert row is not None, f"no {kind}"
    resource: Resource = _loaded(text(kind, row.id, row.version, row.updated, row.tail).decode())
    for name in ("versionId", "lastUpdated"):
        del resource["meta"][name]
    return resource
