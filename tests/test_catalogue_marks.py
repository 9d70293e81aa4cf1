"""The mark of a qualified result: who has it, on which day, where it stands, and what it costs."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway import search
from gateway.adapter import load, load_all
from gateway.caller import GATEWAY
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.fhir import check, json
from gateway.fhir.resource import text
from gateway.pipeline import Pipeline
from gateway.recognition.marks import EXTENSION, SYSTEM, Marks
from gateway.recognition.rules import Institution, Period, Qualification, Region, RuleSet
from gateway.recognition.versions import Rulebook, shipped
from gateway.source import Resource
from gateway.store import Store
from gateway.terminology import ITEMS, PANELS

EXAMPLES = SHIPPED_ADAPTERS / "renmin" / "examples"
H1 = Period(date(2026, 1, 1), date(2026, 6, 30))


def rules(*rows: Qualification) -> RuleSet:
    """The shipped version with a hospital and its qualifications."""
    return shipped().changed(institutions={"h": Institution("h", "甲", region="330100")}, qualifications=rows)


def observation(item: str = "THM001Q", **more: Any) -> Resource:
    coding = {"system": PANELS if item.startswith("P-") else ITEMS, "code": item}
    return {"resourceType": "Observation", "id": "1", "meta": {"source": "urn:huren:h"}, "status": "final",
            "code": {"coding": [coding, {"system": "urn:huren:h:item", "code": "1001"}]},
            "effectiveDateTime": "2026-03-01T08:00:00+08:00", "valueString": "x", **more}


def marked(resource: Resource, *rows: Qualification, zone: str = "Asia/Shanghai") -> list[str]:
    """The codes of the marks that a result gets."""
    Marks(zone).set([resource], "h", rules(*rows))
    return [tag["code"] for tag in resource["meta"].get("tag", ())]


@pytest.mark.parametrize(("rows", "codes"), [
    ((), []),
    ((Qualification("h", "*", "330100"),), ["330100HR"]),
    ((Qualification("h", "HM", "330000"), Qualification("h", "THM001Q", "330100")), ["330100HR", "330000HR"]),
    ((Qualification("h", "THM001Q", "330100"), Qualification("h", "*", "330100")), ["330100HR"]),
    ((Qualification("h", "THM002O", "330100"),), []),
    ((Qualification("h", "BC", "330100"),), []),
    ((Qualification("other", "*", "330100"),), []),
    ((Qualification("h", "*", "999999"),), []),  # a region that this version has not
    ((Qualification("h", "*", "CN", Period(date(2026, 3, 1), date(2026, 3, 1))),), ["CNHR"]),
    ((Qualification("h", "*", "CN", Period(None, date(2026, 2, 28))),), []),
    ((Qualification("h", "*", "CN", Period(date(2026, 3, 2), None)),), []),
])
def test_a_mark_for_each_region_of_a_qualification(rows: tuple[Qualification, ...], codes: list[str]) -> None:
    """Institution × item × region on the day of the exam; each region once."""
    assert marked(observation(), *rows) == codes


@pytest.mark.parametrize(("when", "held"), [
    ({"effectiveDateTime": "2026-06-30T23:59:59+08:00"}, True),
    ({"effectiveDateTime": "2026-07-01T00:00:00+08:00"}, False),
    ({"effectiveDateTime": "2026-06-30T16:00:00Z"}, False),  # already July where the gateway is
    ({"effectiveDateTime": "2026-06-30T15:59:59Z"}, True),
    ({"effectiveDateTime": "2026-06-30"}, True),
    ({"effectiveDateTime": "2026-06"}, False),  # the day is not known
    ({"effectiveDateTime": None}, False),
    ({"effectiveDateTime": None, "effectivePeriod": {"start": "2026-06-30T08:00:00+08:00",
                                                     "end": "2026-07-01T08:00:00+08:00"}}, True),
    ({"effectiveDateTime": None, "effectivePeriod": {"end": "2026-06-30T08:00:00+08:00"}}, False),
    ({"effectiveDateTime": None, "issued": "2026-06-30T08:00:00+08:00"}, False),  # never the report's time
])
def test_the_day_of_the_exam_decides(when: dict[str, Any], held: bool) -> None:
    """Collection or acquisition, as a local day of the gateway's zone."""
    resource = {name: value for name, value in observation(**when).items() if value is not None}
    assert marked(resource, Qualification("h", "*", "330100", H1)) == (["330100HR"] if held else [])


def test_what_a_mark_says() -> None:
    """A tag with the region's mark as its display, and an extension with region, item and period."""
    resource = observation(meta={"source": "urn:huren:h", "tag": [{"code": "theirs"}]},
                           extension=[{"url": "urn:theirs", "valueString": "x"}])
    marked(resource, Qualification("h", "*", "330000", H1))
    assert resource["meta"] == {"source": "urn:huren:h", "tag": [
        {"code": "theirs"}, {"system": SYSTEM, "code": "330000HR", "display": "浙江省HR"}]}
    assert resource["extension"][1] == {"url": EXTENSION, "extension": [
        {"url": "region", "valueCoding": {"system": "http://huren.example/fhir/CodeSystem/recognition-region",
                                          "code": "330000", "display": "浙江省"}},
        {"url": "item", "valueCoding": {"system": ITEMS, "code": "THM001Q"}},
        {"url": "period", "valuePeriod": {"start": "2026-01-01", "end": "2026-06-30"}}]}
    assert check.check(resource) == []


def test_a_mark_without_period_on_a_result_of_one_item_is_its_tag_alone() -> None:
    """Tag and code say region and item: an extension would repeat them in every Observation."""
    resource = observation()
    assert marked(resource, Qualification("h", "*", "330000")) == ["330000HR"]
    assert "extension" not in resource


def test_an_image_study_is_marked_by_its_procedures() -> None:
    """Each unified procedure code has its extension; the region's tag stands once."""
    procedures = [{"coding": [{"system": ITEMS, "code": code}]} for code in ("ECT0149", "ECT010H")]
    study: dict[str, Any] = {"resourceType": "ImagingStudy", "meta": {}, "status": "available",
                             "started": "2026-03-01T08:00:00+08:00", "procedureCode": procedures}
    assert marked(study, Qualification("h", "CT", "330100")) == ["330100HR"]
    assert [part["extension"][1]["valueCoding"]["code"] for part in study["extension"]] == ["ECT0149", "ECT010H"]


def test_a_panel_s_report_is_marked_by_its_own_selector() -> None:
    """A report of a panel is qualified by the panel's code or by everything; it has no category."""
    assert marked(observation("P-CBC"), Qualification("h", "P-CBC", "330100")) == ["330100HR"]
    assert marked(observation("P-CBC"), Qualification("h", "*", "330100")) == ["330100HR"]
    assert marked(observation("P-CBC"), Qualification("h", "HM", "330100")) == []


@pytest.mark.parametrize("change", [
    {"status": "entered-in-error"},
    {"code": {"coding": [{"system": "urn:huren:h:item", "code": "1001"}]}},  # nobody has mapped it
    {"code": {"text": "x"}},
    {"resourceType": "ServiceRequest"},
    {"effectiveDateTime": "2016-12-31T23:59:60Z"},  # a leap second is on no day that Python knows
])
def test_what_is_no_qualified_result_stays_as_it_is(change: dict[str, Any]) -> None:
    """No mark, and not a byte changed."""
    resource = observation(**change)
    before = copy.deepcopy(resource)
    assert marked(resource, Qualification("h", "*", "330100")) == []
    assert resource == before


def test_a_region_without_a_mark_gives_none() -> None:
    """Not every region has a mark of its own."""
    given = rules(Qualification("h", "*", "330100"))
    plain = {**given.regions, "330100": Region("330100", "330000", "杭州市", "Hangzhou")}
    resource = observation()
    Marks("Asia/Shanghai").set([resource], "h", given.changed(regions=plain))
    assert resource == observation()


def test_resources_that_share_their_parts_do_not_share_marks() -> None:
    """A conversion may use one ``meta`` for all its resources."""
    meta: dict[str, Any] = {"source": "urn:huren:h"}
    one, other = observation(meta=meta), observation("ECT0149", meta=meta)
    Marks("Asia/Shanghai").set([one, other], "h", rules(Qualification("h", "HM", "330100")))
    assert "tag" in one["meta"] and "tag" not in other["meta"] and meta == {"source": "urn:huren:h"}


def test_another_version_is_asked_anew() -> None:
    """What is remembered of one version is not said of the next."""
    marks, resource = Marks("Asia/Shanghai"), observation()
    marks.set([resource], "h", rules(Qualification("h", "*", "330100")))
    again = observation()
    marks.set([again], "h", rules())
    assert ("tag" in resource["meta"], "tag" in again["meta"]) == (True, False)


# ---------------------------------------------------------------------------------------------------- at ingestion

def test_what_comes_in_is_marked_and_found_by_its_mark(store: Store, settings: Settings) -> None:
    """A blood count of a qualified hospital: every result of it is found by ``_tag``, and a resend changes nothing."""
    pipeline = Pipeline(settings, store)
    raw = (EXAMPLES / "01-cbc-final.hl7").read_bytes()
    assert pipeline.receive_hl7(raw, "127.0.0.1:1").category is None

    def found(kind: str, query: str) -> list[Resource]:
        return [json.loads(text(row.resource_type, row.id, row.version, row.updated, row.tail))
                for row in search.search(store, GATEWAY, kind, query).rows]

    observations = found("Observation", f"_tag={SYSTEM}|330100HR&_count=100")
    assert len(observations) == len(found("Observation", "_count=100")) == 23
    assert len(found("DiagnosticReport", "_tag=330100HR")) == 1
    assert found("Observation", f"_tag={SYSTEM}|310000HR") == []
    assert observations[0]["meta"]["tag"][0]["display"] == "杭州市HR"
    assert {r["meta"]["versionId"] for r in observations} == {"1"}
    assert pipeline.receive_hl7(raw, "127.0.0.1:1").resend


def test_a_hospital_without_quality_has_no_marks(store: Store, settings: Settings, tmp_path: Path) -> None:
    """Its results are stored all the same."""
    hospital = load(SHIPPED_ADAPTERS / "renmin")
    pipeline = Pipeline(settings, store, load_all([SHIPPED_ADAPTERS]))
    adapters = [replace(hospital, quality=()) if a.name == "renmin" else a for a in pipeline.adapters.all]
    pipeline.rulebook = Rulebook(settings.timezone, adapters, store)
    assert pipeline.receive_hl7((EXAMPLES / "01-cbc-final.hl7").read_bytes(), "127.0.0.1:1").category is None
    assert search.search(store, GATEWAY, "Observation", "_tag=330100HR").rows == []
    assert search.search(store, GATEWAY, "Observation", "_count=1").rows


def test_marking_a_message_is_cheap() -> None:
    """Under 0.15 ms for a report of 23 results, the look at the rulebook included."""
    hospital = load(SHIPPED_ADAPTERS / "renmin")
    book = Rulebook("Asia/Shanghai", [hospital])
    marks, raw = Marks("Asia/Shanghai"), (EXAMPLES / "01-cbc-final.hl7").read_bytes()
    message, spent = hospital.parse(raw), []
    for _ in range(200):
        resources = [change.resource for change in hospital.convert_hl7(message, "DEMO1").changes]
        began = time.perf_counter()
        marks.set(resources, "hz-demo-1", book.at(time.time_ns() // 1000))
        spent.append(time.perf_counter() - began)
        assert all("tag" in r["meta"] for r in resources if r["resourceType"] == "Observation")
    assert statistics.median(spent) < 150e-6
