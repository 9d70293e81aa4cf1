"""What the project defines, in ``profiles/``: valid, closed in itself, true to the catalogue's tables."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import adapter, conformance
from gateway.fhir.check import check
from gateway.fhir.invariants import PROFILE
from gateway.terminology import DCM
from profiles import build

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "profiles"
CATALOGUE = ROOT.parent / "shared" / "catalogue"
BASE = "http://huren.example/fhir"
FILES = sorted(FOLDER.glob("*.json"))
DEFINED = {path.stem: json.loads(path.read_text("utf-8")) for path in FILES}
PROFILES = {r["type"]: r for r in DEFINED.values() if r["resourceType"] == "StructureDefinition"
            and r["type"] != "Extension"}

needs_catalogue = pytest.mark.skipif(not CATALOGUE.is_dir(), reason="no tables of the catalogue beside the repository")


def strings(value: Any) -> Iterator[str]:
    """Every text in a resource."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize("name", DEFINED)
def test_every_definition_is_valid_fhir(name: str) -> None:
    """The models of `fhir.resources` (R4B) accept it."""
    kind = DEFINED[name]["resourceType"]
    model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
    assert model.model_validate(DEFINED[name]).id == DEFINED[name]["id"]
    with pytest.raises(ValueError):
        model.model_validate({**DEFINED[name], "unheardOf": True})


@pytest.mark.parametrize("name", DEFINED)
def test_every_definition_says_who_what_and_when(name: str) -> None:
    """File name, id and canonical URL agree; version, status, date and publisher are there."""
    resource = DEFINED[name]
    kind, id_ = resource["resourceType"], resource["id"]
    assert name == f"{kind}-{id_}"
    assert resource["url"] == f"{BASE}/{kind}/{id_}"
    assert (resource["version"], resource["date"]) == (build.VERSION, build.DATE)
    assert resource["status"] in ("active", "draft")
    assert resource["publisher"] and resource["description"].endswith(".")


def test_every_canonical_of_ours_resolves_in_the_folder() -> None:
    """No definition points at something that we do not publish."""
    known = {resource["url"] for resource in DEFINED.values()}
    used = {text.partition("#")[0].partition("|")[0] for resource in DEFINED.values()
            for text in strings(resource) if text.startswith(f"{BASE}/")}
    assert used - known == set()
    assert len(known) == len(DEFINED)


def test_codes_in_maps_and_properties_exist() -> None:
    """Every code that a ConceptMap or a Coding property names in one of our systems is defined there."""
    codes = {r["url"]: {c["code"] for c in r["concept"]} for r in DEFINED.values() if r["resourceType"] == "CodeSystem"}
    for resource in DEFINED.values():
        for concept in resource.get("concept", ()):
            for value in (p["valueCoding"] for p in concept.get("property", ()) if "valueCoding" in p):
                assert value["code"] in codes.get(value["system"], {value["code"]}), concept["code"]
        if resource["resourceType"] == "ConceptMap":
            for group in resource["group"]:
                for element in group["element"]:
                    # a hospital's own codes are defined by the hospital, in its codes.csv
                    assert element["code"] in codes.get(group["source"], {element["code"]}) \
                        and (group["source"] in codes or group["source"].startswith("urn:huren:"))
                    for target in element["target"]:
                        if target["equivalence"] != "unmatched":
                            assert target["code"] in codes.get(group["target"], {target["code"]})


def test_properties_are_declared() -> None:
    """A concept has only properties that its CodeSystem declares, with values of the declared type."""
    for system in (r for r in DEFINED.values() if r["resourceType"] == "CodeSystem"):
        types = {p["code"]: "value" + p["type"][0].upper() + p["type"][1:] for p in system.get("property", ())}
        assert {f["code"] for f in system.get("filter", ())} <= types.keys()
        assert system["count"] == len(system["concept"]) == len({c["code"] for c in system["concept"]})
        for concept in system["concept"]:
            for prop in concept.get("property", ()):
                assert set(prop) == {"code", types[prop["code"]]}


# ------------------------------------------------------------------------------------------------------ LOINC


def test_loinc_is_published_only_as_sure_as_it_is() -> None:
    """Equivalent needs checked or read; loose is inexact; unchecked is in no map; and what differs says how (cmd-1)."""
    confidence: dict[str, str] = {}
    for concept in DEFINED["CodeSystem-recognition-item"]["concept"]:
        confidence[concept["code"]] = next((p["valueString"] for p in concept["property"]
                                            if p["code"] == "loinc-confidence"), "")
    [group] = DEFINED["ConceptMap-recognition-item-loinc"]["group"]
    mapped = {e["code"]: e["target"] for e in group["element"]}
    assert {code for code, how in confidence.items() if how in ("checked", "read", "loose")} == mapped.keys()
    for code, targets in mapped.items():
        [target] = targets
        if confidence[code] == "loose":
            assert target["equivalence"] == "inexact"
        assert target["equivalence"] in ("equivalent", "wider", "inexact")
        assert (target["equivalence"] == "equivalent") != bool(target.get("comment"))
    equivalents = [t[0]["code"] for t in mapped.values() if t[0]["equivalence"] == "equivalent"]
    assert len(equivalents) == len(set(equivalents)) == 314  # two of our items never are one and the same LOINC code


def test_loinc_s_notice_stands_wherever_its_codes_stand() -> None:
    """LOINC's licence asks for its attribution in everything that shows its codes, and in the manual."""
    showing = [r for r in DEFINED.values() if "http://loinc.org" in {*strings({k: v for k, v in r.items()
                                                                              if k != "copyright"})}
               or any(p["code"] == "loinc-unchecked" for p in r.get("property", ()))]
    assert len(showing) == 3
    assert all(r["copyright"] == build.LOINC_NOTICE for r in showing)
    assert build.LOINC_NOTICE in " ".join((FOLDER / "README.md").read_text("utf-8").replace("> ", "").split())


# ---------------------------------------------------------------------------------------------------- the build


@needs_catalogue
def test_checked_in_json_is_what_the_build_makes() -> None:
    """Nobody edits the catalogue's JSON by hand, and the same tables give the same bytes."""
    said: list[str] = []
    assert build.main(["--check", str(CATALOGUE)], said.append) == 0, said
    made = build.resources(CATALOGUE)
    assert {name: build.text(r) for name, r in made.items()} == {
        name: (FOLDER / name).read_text("utf-8") for name in made}


@needs_catalogue
def test_nothing_of_the_tables_is_lost() -> None:
    """Every cell of the items' table can be read back from the JSON, so that the JSON alone can be the catalogue."""
    loinc = {e["code"]: e["target"][0]["code"]
             for e in DEFINED["ConceptMap-recognition-item-loinc"]["group"][0]["element"]}
    categories = {c["code"]: c["display"] for c in DEFINED["CodeSystem-recognition-category"]["concept"]}
    with (CATALOGUE / "items.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    concepts = DEFINED["CodeSystem-recognition-item"]["concept"]
    assert len(rows) == len(concepts)
    for row, concept in zip(rows, concepts, strict=True):
        values: dict[str, list[str]] = {}
        for prop in concept["property"]:
            value = next(v for k, v in prop.items() if k != "code")
            value = value["code"] if isinstance(value, dict) else "Y" if value is True else str(value)
            values.setdefault(prop["code"], []).append(value)
        back = {c.column: ";".join(values.get(c.code, ["N"] if c.type == "boolean" else [])) for c in build.COLUMNS}
        back |= {"unified_code": concept["code"], "name_zh": concept["display"],
                 "name_en": concept["designation"][1]["value"], "category_zh": categories[back["category"]],
                 "loinc": values.get("loinc-unchecked", [loinc.get(concept["code"], "")])[0]}
        assert back == row


def tables(folder: Path, **changes: str) -> Path:
    """Small tables of a catalogue; a change replaces a text in a file: ``items="old=>new"``."""
    head = ["unified_code", "domain", "category", "category_zh", "name_zh", "name_en", "specimen", "modality",
            "body_site", "laterality", "contrast", "result_type", "unit_ucum", "loinc", "loinc_confidence",
            "parent_panel", "default_validity_days", "published_days_wuhan", "published_min_retest_uk",
            "rapid_change", "note"]
    rows = [["THM025A", "test", "HM", "血液学", "甲", "A", "血", "", "", "N", "", "Q", "%", "17849-1", "read",
             "P-RET", "7", "", "", "N", ""],
            ["THM0268", "test", "HM", "血液学", "乙", "B", "血", "", "", "N", "", "Q", "10*9/L", "60474-4", "loose",
             "P-RET", "7", "", "", "Y", "LOINC generic"]]
    texts = {"items": "\n".join("\t".join(r) for r in [head, *rows]) + "\n",
             "panels": "panel_code\tname_zh\tname_en\tloinc_panel\tmember_count\tmembers\n"
                       "P-RET\t网织\tRet\t\t2\tTHM025A;THM0268\n",
             "coverage-edges": "prior_code\tprior_name\torder_code\torder_name\tcoverage\treason\n"
                               "THM025A\t甲\tTHM0268\t乙\tadvisory\tbecause\n"}
    for name, text in texts.items():
        old, _, new = changes.get(name.replace("-", "_"), "").partition("=>")
        assert old in text
        (folder / f"{name}.tsv").write_text(text.replace(old, new) if old else text, "utf-8")
    return folder


def test_the_build_makes_what_small_tables_say(tmp_path: Path) -> None:
    """Concepts, members, map and edges of a two-row catalogue."""
    made = build.resources(tables(tmp_path))
    assert [c["code"] for c in made["CodeSystem-recognition-item.json"]["concept"]] == ["THM025A", "THM0268"]
    [panel] = made["CodeSystem-recognition-panel.json"]["concept"]
    assert [p["valueCoding"]["code"] for p in panel["property"]] == ["THM025A", "THM0268"]
    elements = made["ConceptMap-recognition-item-loinc.json"]["group"][0]["element"]
    assert [e["target"][0]["equivalence"] for e in elements] == ["equivalent", "inexact"]
    [edge] = made["ConceptMap-recognition-coverage.json"]["group"][0]["element"]
    assert edge["target"] == [{"code": "THM0268", "display": "乙", "equivalence": "inexact", "comment": "because"}]
    assert json.loads(build.text(made["CodeSystem-recognition-item.json"])) == made["CodeSystem-recognition-item.json"]


@pytest.mark.parametrize(("changes", "place"), [
    ({"items": "THM0268=>THM0269"}, "items.tsv:3"),
    ({"items": "THM0268=>THM025A"}, "items.tsv:3"),
    ({"items": "THM025A\ttest=>THM025A\texam"}, "items.tsv:2"),
    ({"items": "60474-4\tloose=>60474-4\tsure"}, "items.tsv:3"),
    ({"items": "60474-4\tloose=>\tloose"}, "items.tsv:3"),
    ({"items": "LOINC generic=>LOINC maybe"}, "items.tsv:3"),
    ({"items": "P-RET\t7\t\t\tY=>\t7\t\t\tY"}, "panels.tsv:2"),
    ({"panels": "\t2\t=>\t3\t"}, "panels.tsv:2"),
    ({"panels": "2\tTHM025A;=>1\t"}, "items.tsv:2"),
    ({"coverage_edges": "乙=>丙"}, "coverage-edges.tsv:2"),
    ({"coverage_edges": "advisory=>partial"}, "coverage-edges.tsv:2"),
    ({"coverage_edges": "because=>"}, "coverage-edges.tsv:2")])
def test_tables_that_contradict_themselves_are_refused(tmp_path: Path, changes: dict[str, str], place: str) -> None:
    """The build names file and line, exits with 1 and writes nothing."""
    before = {path: path.read_bytes() for path in FILES}
    said: list[str] = []
    assert build.main([str(tables(tmp_path, **changes))], said.append) == 1
    assert said[0].startswith(place)
    assert {path: path.read_bytes() for path in FILES} == before


def test_check_says_what_differs_and_writes_nothing(tmp_path: Path) -> None:
    """``--check`` against other tables: 1 and the names of the files; without a folder: 2."""
    before = {path: path.read_bytes() for path in FILES}
    said: list[str] = []
    assert build.main(["--check", str(tables(tmp_path))], said.append) == 1
    assert "differs: CodeSystem-recognition-item.json" in said
    assert {path: path.read_bytes() for path in FILES} == before
    assert build.main([], said.append) == 2


# ------------------------------------------------------------------------------------------------------ profiles

#: The profiles' FHIRPath constraints in Python, by key.
RULES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "huren-code": lambda r: any({"system", "code"} <= c.keys() for c in r["code"]["coding"]),
    "huren-identifier": lambda r: any({"system", "value"} <= i.keys() for i in r["identifier"]),
    "huren-value": lambda r: any(name.startswith("value") or name in ("dataAbsentReason", "component", "hasMember")
                                 for name in r),
    "huren-study-uid": lambda r: any(i.get("system") == "urn:dicom:uid" and i["value"].startswith("urn:oid:")
                                     for i in r["identifier"]),
    "huren-series": lambda r: r["status"] in ("entered-in-error", "cancelled") or bool(r.get("series")),
}


def at(value: Any, path: list[str]) -> list[Any]:
    """What stands at a path, through lists; None where the last step is missing under an existing parent."""
    if isinstance(value, list):
        return [found for item in value for found in at(item, path)]
    if not path:
        return [value]
    if path[0] not in value:
        return [None] if len(path) == 1 else []
    return at(value[path[0]], path[1:])


def breaches(resource: dict[str, Any]) -> list[str]:
    """Where a resource does not keep its profile."""
    elements = PROFILES[resource["resourceType"]]["differential"]["element"]
    missing = [e["path"] for e in elements if e.get("min") and None in at(resource, e["path"].split(".")[1:])]
    return missing or [c["key"] for e in elements for c in e.get("constraint", ()) if not RULES[c["key"]](resource)]


@pytest.mark.parametrize("kind", PROFILES)
def test_profiles_are_well_formed_differentials(kind: str) -> None:
    """Paths begin with the type and are their own ids, parents first; every constraint is known to the tests."""
    profile = PROFILES[kind]
    elements = profile["differential"]["element"]
    paths = [e["path"] for e in elements]
    assert (profile["derivation"], profile["fhirVersion"]) == ("constraint", "4.0.1")
    assert profile["baseDefinition"] == f"http://hl7.org/fhir/StructureDefinition/{kind}"
    assert paths[0] == kind and all(path.startswith(f"{kind}.") for path in paths[1:])
    assert [e["id"] for e in elements] == paths and len(set(paths)) == len(paths)
    assert {c["key"] for e in elements for c in e.get("constraint", ())} <= RULES.keys()


META = {"id": "1", "meta": {"source": "urn:huren:h"}}
CODE = {"coding": [{"system": "urn:huren:h:item", "code": "1"}]}
IDENTIFIERS = [{"system": "urn:huren:h:filler", "value": "1"}]
GOOD: dict[str, dict[str, Any]] = {
    "Patient": {"resourceType": "Patient", **META, "identifier": IDENTIFIERS},
    "Observation": {"resourceType": "Observation", **META, "status": "final", "code": CODE,
                    "subject": {"reference": "Patient/1"}, "valueString": "x"},
    "DiagnosticReport": {"resourceType": "DiagnosticReport", **META, "identifier": IDENTIFIERS, "status": "final",
                         "code": CODE, "subject": {"reference": "Patient/1"}},
    "ImagingStudy": {"resourceType": "ImagingStudy", **META, "status": "available",
                     "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
                     "subject": {"reference": "Patient/1"}, "numberOfSeries": 1, "numberOfInstances": 2,
                     "series": [{"uid": "1.2.3.4", "numberOfInstances": 2, "modality": {"system": DCM, "code": "CT"}}]},
}
#: What breaks each constraint, and no more.
BROKEN: dict[str, dict[str, Any]] = {
    "huren-code": {"code": {"coding": [{"code": "1"}]}}, "huren-identifier": {"identifier": [{"value": "1"}]},
    "huren-value": {"valueString": None}, "huren-study-uid": {"identifier": IDENTIFIERS},
    "huren-series": {"series": None},
}


def without(value: Any, path: list[str]) -> Any:
    """A copy in which nothing stands at a path."""
    if isinstance(value, list):
        return [without(item, path) for item in value]
    if len(path) == 1:
        return {name: item for name, item in value.items() if name != path[0]}
    return {name: without(item, path[1:]) if name == path[0] else item for name, item in value.items()}


@pytest.mark.parametrize("kind", PROFILES)
def test_the_pipeline_refuses_what_breaks_the_published_profile(kind: str) -> None:
    """The gateway's own check and the profile ask for the same: each missing element, each broken constraint."""
    elements = PROFILES[kind]["differential"]["element"]
    assert check(GOOD[kind], profile=True) == [] == breaches(GOOD[kind])
    for path in (e["path"].split(".")[1:] for e in elements if e.get("min")):
        bad = without(GOOD[kind], path)
        assert check(bad, profile=True) and breaches(bad), path
    for key in (c["key"] for e in elements for c in e.get("constraint", ())):
        bad = {name: value for name, value in {**GOOD[kind], **BROKEN[key]}.items() if value is not None}
        assert check(bad, profile=True) and breaches(bad) == [key]


@pytest.mark.parametrize("kind", PROFILES)
def test_the_profile_publishes_what_the_pipeline_refuses(kind: str) -> None:
    """No hidden rule: what the gateway's own check demands beyond base R4 stands in the profile."""
    required = {e["path"].removeprefix(f"{kind}.") for e in PROFILES[kind]["differential"]["element"] if e.get("min")}
    constraints = {c["key"] for e in PROFILES[kind]["differential"]["element"] for c in e.get("constraint", ())}
    assert {rule.key for rule in PROFILE[kind] if rule.element not in required
            and rule.key not in constraints} <= {"huren-counts"}


HOSPITALS = sorted(path.parent for path in (ROOT / "adapters").glob("*/manifest.toml"))


def test_what_adapters_make_keeps_the_profiles() -> None:
    """Every Patient, Observation, DiagnosticReport and ImagingStudy of the shipped examples keeps its profile."""
    seen: set[str] = set()
    for folder in HOSPITALS:
        hospital = adapter.load(folder)
        for example in conformance.examples(folder):
            if not example.accepted:
                continue
            for change in conformance.convert_example(hospital, example.path).changes:
                if change.resource["resourceType"] in PROFILES:
                    seen.add(change.resource["resourceType"])
                    assert breaches(change.resource) == [], f"{folder.name}/{example.path.name}"
    assert seen == PROFILES.keys()


def test_a_breach_of_a_profile_is_seen() -> None:
    """The test's own reading of the profiles finds what is missing."""
    good = GOOD["Observation"]
    assert breaches(good) == []
    assert breaches({**good, "meta": {}}) == ["Observation.meta.source"]
    assert breaches({**good, "subject": {"display": "x"}}) == ["Observation.subject.reference"]
    assert breaches({**good, "code": {"coding": [{"code": "1"}]}}) == ["huren-code"]
    assert breaches({k: v for k, v in good.items() if k != "valueString"}) == ["huren-value"]


# ------------------------------------------------------------------------------------------------------ search


def test_search_parameters_have_what_a_client_needs() -> None:
    """Code, base, type and expression; a reference says its targets."""
    found = {r["code"]: r for r in DEFINED.values() if r["resourceType"] == "SearchParameter"}
    assert found.keys() == {"institution", "imaging-study"}
    assert (found["institution"]["base"], found["institution"]["type"]) == (["Resource"], "token")
    imaging = found["imaging-study"]
    assert (imaging["base"], imaging["target"]) == (["DiagnosticReport"], ["ImagingStudy"])
    assert all(r["expression"] for r in found.values())


def test_each_hospitals_map_is_what_its_codes_make() -> None:
    """Every shipped hospital with codes has its ConceptMap here, made from its codes.csv as it stands."""
    from profiles.hospitals import maps

    made = maps()
    assert {"ConceptMap-hz-demo-1-recognition-item.json", "ConceptMap-hz-demo-2-recognition-item.json",
            "ConceptMap-hz-demo-3-recognition-item.json"} <= set(made)
    for name, text in made.items():
        assert (FOLDER / name).read_text("utf-8") == text, f"{name}: run python -m profiles.hospitals"


def test_what_is_published_of_the_rules_is_what_the_tables_make() -> None:
    """Regions, marks and reasons of the shipped tables stand as FHIR beside them, made from the tables as they are."""
    from profiles.rules import made

    texts = made()
    assert {"CodeSystem-recognition-region.json", "CodeSystem-recognition-mark.json",
            "CodeSystem-recognition-reason.json", "ValueSet-recognition-reason-CN.json"} == set(texts)
    for name, text in texts.items():
        assert (FOLDER / name).read_text("utf-8") == text, f"{name}: run python -m profiles.rules"


def test_the_mark_s_extension_allows_what_the_gateway_sets() -> None:
    """Every part that the gateway writes is a slice of the published extension, with its type; required ones are."""
    from datetime import date

    from gateway.recognition.marks import Marks
    from gateway.recognition.rules import Institution, Period, Qualification
    from gateway.recognition.versions import shipped

    slices = {e["sliceName"]: e for e in DEFINED["StructureDefinition-recognition-mark"]["differential"]["element"]
              if "sliceName" in e}
    types = {e["id"].split(":")[1].split(".")[0]: "value" + e["type"][0]["code"]
             for e in DEFINED["StructureDefinition-recognition-mark"]["differential"]["element"]
             if e["id"].endswith(".value[x]") and "type" in e}
    rules = shipped().changed(
        institutions={"h": Institution("h", "h", region="330100")},
        qualifications=(Qualification("h", "*", "330100", Period(date(2026, 1, 1), date(2026, 12, 31))),))
    resource = {**GOOD["Observation"], "effectiveDateTime": "2026-02-03",
                "code": {"coding": [{"system": f"{BASE}/CodeSystem/recognition-item", "code": "THM001Q"}]}}
    Marks("Asia/Shanghai").set([resource], "h", rules)
    [extension] = resource["extension"]
    assert extension["url"] == DEFINED["StructureDefinition-recognition-mark"]["url"]
    parts = {part["url"]: set(part) - {"url"} for part in extension["extension"]}
    assert parts == {name: {types[name]} for name in slices}
    assert {name for name, e in slices.items() if e["min"]} <= parts.keys()
    [tag] = resource["meta"]["tag"]
    marks = DEFINED["CodeSystem-recognition-mark"]
    assert (tag["system"], tag["code"], tag["display"]) == (marks["url"], "330100HR", "杭州市HR")
    assert tag["code"] in {concept["code"] for concept in marks["concept"]}
    assert check(resource, profile=True) == []


def test_the_published_flags_and_sides_are_those_that_are_read() -> None:
    """Each flag of CodeSystem recognition-flag is indexed, and no other; both extensions are read by their URL."""
    from gateway.indexing import results

    flags = DEFINED["CodeSystem-recognition-flag"]
    assert results.FLAG_SYSTEM == flags["url"]
    assert list(results.FLAGS) == [concept["code"] for concept in flags["concept"]]
    assert results.FLAG_EXTENSION == DEFINED["StructureDefinition-recognition-flag"]["url"]
    assert results.LATERALITY_EXTENSION == DEFINED["StructureDefinition-laterality"]["url"]
