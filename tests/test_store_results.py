"""A person's results under unified items: what makes a row, what a look-up finds and costs, and the reports around."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import HZ, NB, NUMBERS, check_consistent, observation, patient, put

from gateway import indexing
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.indexing import results
from gateway.recognition import model
from gateway.store import Store, index_schema, reindexing
from gateway.store import results as reading
from gateway.store.model import Delete, Put, Result, Unit

ITEMS = "http://huren.example/fhir/CodeSystem/recognition-item"
PANELS = "http://huren.example/fhir/CodeSystem/recognition-panel"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
ABSENT = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]}
SNOMED = "http://snomed.info/sct"


def code(*codes: str, system: str = ITEMS) -> dict[str, Any]:
    """A CodeableConcept."""
    return {"coding": [{"system": system, "code": each} for each in codes]}


def report(report_id: str, patient_id: str, *observations: str, **more: Any) -> dict[str, Any]:
    """A DiagnosticReport of an exam, with these Observations as results."""
    return {"resourceType": "DiagnosticReport", "id": report_id, "status": "final", "code": code("ECT001J"),
            "subject": {"reference": f"Patient/{patient_id}"}, "effectiveDateTime": "2026-01-02T08:00:00+08:00",
            "result": [{"reference": f"Observation/{each}"} for each in observations], **more}


def rows(resource: dict[str, Any]) -> list[Any]:
    """Its rows of ``idx_result``."""
    return indexing.extract(resource)["idx_result"]


def made(**changes: Any) -> dict[str, Any]:
    """An Observation with some elements set, or left out where the value is None."""
    resource = {**observation("o1", "p1", code="TCH001X"), **changes}
    return {name: value for name, value in resource.items() if value is not None}


def row(**changes: Any) -> Any:
    """The only row of ``made(**changes)``."""
    [only] = rows(made(**changes))
    return only


def us(text: str) -> int:
    """Microseconds since the epoch of a time with offset."""
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


# -------------------------------------------------------------------- which rows


def test_the_flags_are_those_of_recognition() -> None:
    """Index and verdict mean the same by a flag and by a side."""
    assert [1, 2, 4, 8] == [model.FLAG_CRITICAL, model.FLAG_HAEMOLYSIS, model.FLAG_REPEAT, model.FLAG_IMAGES]
    assert sorted(model.FLAG_NAMES) == sorted(results.FLAGS.values())
    assert list(results.SIDES) == [side.value for side in model.Side]


def test_a_row_for_each_unified_item() -> None:
    """Of an Observation every item, of a DiagnosticReport every exam's; panels and other systems make none."""
    assert ["TCH001X", "TCH002H"] == [r[0] for r in rows(made(code=code("TCH001X", "TCH002H", "TCH001X")))]
    assert ["ECT001J"] == [r[0] for r in rows(report("r1", "p1", code=code("ECT001J", "TCH001X")))]
    assert [] == rows(report("r1", "p1", code=code("TCH001X"))) == rows(made(code=code("PAN001", system=PANELS)))
    assert [] == rows(made(code=code("718-7", system="http://loinc.org"))) == rows(made(code={"text": "TCH001X"}))
    assert [] == rows(made(subject=None)) == rows(made(subject={"reference": "Group/g1"}))
    study = {"resourceType": "ImagingStudy", "id": "i1", "status": "available", "procedureCode": [code("ECT001J")],
             "subject": {"reference": "Patient/p1"}}
    assert [] == rows(study)


@pytest.mark.parametrize(("changes", "count"), [
    ({"valueQuantity": None}, 0),
    ({"valueQuantity": None, "dataAbsentReason": ABSENT}, 0),
    ({"valueQuantity": None, "status": "amended"}, 0),
    ({"valueQuantity": None, "status": "corrected", "component": [{"code": {}, "dataAbsentReason": ABSENT}]}, 0),
    ({"valueQuantity": None, "status": "preliminary"}, 1),
    ({"valueQuantity": None, "status": "cancelled"}, 1),
    ({"valueQuantity": None, "hasMember": [{"reference": "Observation/o2"}]}, 1),
    ({"valueQuantity": None, "component": [{"code": {}, "valueString": "阴性"}]}, 1),
    ({"valueQuantity": None, "valueString": "阴性"}, 1),
    ({"valueQuantity": None, "dataAbsentReason": ABSENT, "extension": [{
        "url": "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.valueAttachment",
        "valueAttachment": {"contentType": "application/pdf"}}]}, 1),
])
def test_a_result_without_content_is_none(changes: dict[str, Any], count: int) -> None:
    """An issued Observation that holds nothing has no row; one that is not issued has, with its status."""
    assert count == len(rows(made(**changes)))


@pytest.mark.parametrize(("effective", "expected"), [
    ({"effectiveDateTime": "2026-01-02T08:00:00+08:00"}, "2026-01-02T08:00:00+08:00"),
    ({"effectiveDateTime": "2026-01-02T08:00:00-05:00"}, "2026-01-02T08:00:00-05:00"),
    ({"effectiveDateTime": "2026-01-02T00:00:00.5Z"}, "2026-01-02T00:00:00.500+00:00"),
    ({"effectiveDateTime": "2026-01-02"}, "2026-01-02T00:00:00+08:00"),
    ({"effectiveDateTime": "2026-01"}, "2026-01-01T00:00:00+08:00"),
    ({"effectiveInstant": "2026-01-02T08:00:00+08:00"}, "2026-01-02T08:00:00+08:00"),
    ({"effectivePeriod": {"start": "2026-01-02T08:00:00+08:00", "end": "2026-03-02"}}, "2026-01-02T08:00:00+08:00"),
    ({"effectiveDateTime": "1969-12-31"}, "1969-12-31T00:00:00+08:00"),
    ({"effectivePeriod": {"end": "2026-03-02"}}, ""),
    ({"effectiveDateTime": "gestern"}, ""),
    ({"effectiveDateTime": "1970-01-01T08:00:00+08:00"}, ""),  # what an unset field becomes
    ({"effectiveTiming": {"event": ["2026-01-02"]}}, ""),
    ({"issued": "2026-01-02T08:00:00+08:00"}, ""),
])
def test_the_time_is_the_oldest_that_can_be_meant(effective: dict[str, Any], expected: str) -> None:
    """Collection, never issue; the first moment of what is not exact; unknown where nothing is said."""
    time = row(effectiveDateTime=None, **effective)[1] if "effectiveDateTime" not in effective else \
        row(**effective)[1]
    assert (us(expected) // 1000 if expected else results.UNKNOWN_TIME) == time


def test_a_date_is_one_of_the_gateways_zone() -> None:
    """A date without offset begins when the gateway's day begins."""
    before = indexing.zone()
    try:
        indexing.set_zone(ZoneInfo("America/New_York"))
        assert us("2026-01-02T00:00:00-05:00") // 1000 == row(effectiveDateTime="2026-01-02")[1]
    finally:
        indexing.set_zone(before)


@pytest.mark.parametrize(("changes", "flags"), [
    ({}, 0),
    ({"interpretation": [code("H", system=INTERPRETATION)]}, 0),
    ({"interpretation": [code("HH", system="urn:own")]}, 0),
    ({"interpretation": [code("HH", system=INTERPRETATION)]}, 1),
    ({"interpretation": [code("A", "LL", system=INTERPRETATION)]}, 1),
    ({"component": [{"code": {}, "interpretation": [code("AA", system=INTERPRETATION)]}]}, 1),
    ({"interpretation": [code("haemolysis", system=results.FLAG_SYSTEM)]}, 2),
    ({"meta": {"tag": [{"system": results.FLAG_SYSTEM, "code": "haemolysis"},
                       {"system": "x", "code": "critical"}]}}, 2),
    ({"meta": {"tag": [{"system": results.FLAG_SYSTEM, "code": "haemolysis"},
                       {"system": results.FLAG_SYSTEM, "code": "repeat-advised"}]}}, 6),
    ({"extension": [{"url": results.FLAG_EXTENSION, "valueCode": "images-unavailable"}]}, 8),
    ({"extension": [{"url": results.FLAG_EXTENSION, "valueCoding": {"code": "repeat-advised"}}]}, 4),
    ({"extension": [{"url": results.FLAG_EXTENSION, "valueCode": "else"}], "note": [{"text": "标本溶血"}]}, 0),
])
def test_flags_come_from_codes_alone(changes: dict[str, Any], flags: int) -> None:
    """Interpretation, tag and extension say them; free text never does."""
    assert flags == row(**changes)[4]


@pytest.mark.parametrize(("changes", "side"), [
    ({}, ""),
    ({"bodySite": code("7771000", system=SNOMED)}, "L"),
    ({"bodySite": code("24028007", system=SNOMED)}, "R"),
    ({"bodySite": code("51440002", system=SNOMED)}, "B"),
    ({"bodySite": code("7771000", "24028007", system=SNOMED)}, "B"),
    ({"bodySite": code("7771000", system="urn:own")}, ""),
    ({"bodySite": {"text": "左"}}, ""),
    ({"extension": [{"url": results.LATERALITY_EXTENSION, "valueCode": "R"}]}, "R"),
    ({"extension": [{"url": results.LATERALITY_EXTENSION, "valueCode": "left"}]}, ""),
])
def test_the_side_comes_from_codes_alone(changes: dict[str, Any], side: str) -> None:
    """SNOMED CT's qualifiers or the extension; both together are both."""
    assert side == results.SIDES[row(**changes)[5]]
    assert "L" == results.SIDES[rows(report("r1", "p1", extension=[
        {"url": results.LATERALITY_EXTENSION, "valueCode": "L"}]))[0][5]]


def test_a_session_is_an_encounter_else_a_report() -> None:
    """Equal for one encounter, else for parts of one report, whose ids begin with the same 48 bits."""
    def session(id: str, **changes: Any) -> int:
        return row(id=id, **changes)[6]
    one, other = "0a1b2c3d-4e5f-8123-8abc-000000000001", "0a1b2c3d-4e5f-8fff-9abc-000000000002"
    assert 0x0a1b2c3d4e5f == session(one) == session(other) == rows(report(one, "p1"))[0][6]
    assert session(one) != session(other.replace("4e5f", "4e5e"))
    encounter = {"encounter": {"reference": "Encounter/e1"}}
    assert session(one, **encounter) == session("x", encounter={"reference": "Encounter/e1/_history/3"})
    assert session(one, **encounter) != session(one) != session("x")
    said = {"encounter": {"identifier": {"system": "s", "value": "1"}}}
    assert session(one, **said) == session("x", **said) != session("x", **encounter)
    assert all(0 <= session(id) < 1 << 48 for id in ("x", "zzzzzzzz-zzzz-8123-8abc-000000000001"))


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(
    [ITEMS, "TCH001X", "ECT001J", SNOMED, "7771000", "coding", "2026-01-02"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["coding", "system", "code", "reference", "tag", "url", "valueCode", "start", "identifier", "value"]),
        inner, max_size=4), max_leaves=8)


@given(st.sampled_from(results.KINDS), st.dictionaries(st.sampled_from(
    ["status", "code", "effectiveDateTime", "effectivePeriod", "interpretation", "bodySite", "extension", "meta",
     "component", "encounter", "hasMember", "valueString"]), _JSON, max_size=6))
def test_whatever_a_resource_holds_rows_fit_their_columns(kind: str, elements: dict[str, Any]) -> None:
    """Wrong shapes make no error and no half row; every row is made of what its columns take, and is made again."""
    resource = {"code": code("ECT001J"), **elements, "resourceType": kind, "id": "x",
                "subject": {"reference": "Patient/p1"}}
    found = results.results(resource)
    assert found == rows(resource) and len({each[0] for each in found}) == len(found)
    for item, time, number, status, flags, side, session in found:
        assert item and isinstance(item, str)
        assert results.KINDS[number] == kind and results.STATUSES[status] in ("", resource.get("status"))
        assert 0 <= flags < 16 and side in range(4) and 0 <= session < 1 << 48
        assert -(1 << 47) < time <= results.UNKNOWN_TIME


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_an_exact_time_is_kept_to_the_millisecond(at: datetime, offset: int) -> None:
    """Whatever its offset, the moment is the same; what is finer than a millisecond is made older, never younger."""
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    text = f"{at.isoformat(timespec='microseconds')}{sign}{minutes // 60:02}:{minutes % 60:02}"
    exact = (at.replace(tzinfo=UTC) - timedelta(minutes=offset) - datetime(1970, 1, 1, tzinfo=UTC)) \
        // timedelta(milliseconds=1)
    assert (exact or results.UNKNOWN_TIME) == row(effectiveDateTime=text)[1]


# -------------------------------------------------------------------- looking up


def test_results_of_a_person_from_all_institutions(store: Store) -> None:
    """By item, newest first, unknown time last; other persons', items' and older ones are left out."""
    store.write(Unit([Put(patient("p1", NUMBERS[0]), "hz"), Put(patient("p2", NUMBERS[0]), "nb"),
                      Put(patient("p3"), "nb"),
                      *(Put({**observation(id, who, code=item), "effectiveDateTime": at}, slug)
                        for id, who, item, at, slug in (
                            ("a", "p1", "TCH001X", "2026-01-01T08:00:00+08:00", "hz"),
                            ("b", "p2", "TCH001X", "2026-01-03T08:00:00+08:00", "nb"),
                            ("c", "p1", "TCH001X", "?", "hz"), ("d", "p1", "TCH002H", "2026-01-02", "hz"),
                            ("e", "p3", "TCH001X", "2026-01-03", "nb"), ("f", "p1", "TCH003F", "2026-01-03", "hz"),
                            ("g", "p1", "TCH001X", "2019-01-01", "hz")))]), GATEWAY)
    person = store.persons_of(["p1"])["p1"]
    names = store.references([r.pk for r in store.results(person, ["TCH001X", "TCH002H", "TCH003F"], 0)])
    since = us("2026-01-01T08:00:00+08:00")

    def found(items: list[str], since: int) -> str:
        return "".join(names[r.pk][-1] for r in store.results(person, items, since))
    assert "dbagc" == found(["TCH002H", "TCH001X", "TCH001X"], 0)
    assert "dbac" == found(["TCH001X", "TCH002H"], since)
    assert "bc" == found(["TCH001X"], since + 1)
    assert "" == found([], 0) == found(["TCH009Y"], 0)
    first = store.results(person, ["TCH001X"], since)[0]
    assert Result("TCH001X", us("2026-01-03T08:00:00+08:00"), first.pk, "Observation", "final", "nb", 0, "",
                  first.session) == first
    assert 0 == store.results(person, ["TCH001X"], since)[-1].time
    assert [] == store.results(person + 1000, ["TCH001X"], 0) == store.results(0, ["TCH001X"], 0)


@pytest.mark.parametrize("count", [3, 300])
def test_many_items_find_what_few_find(store: Store, count: int) -> None:
    """Whether a person's rows are read at once or item by item, the same are found, with few results and with many."""
    items = [f"T{n:05}X" for n in range(30)]
    store._call(lambda transaction: transaction.insert("idx_result", [c.name for c in index_schema.idx_result.c], [
        (items[n % 40] if n % 40 < 30 else f"T9{n}", results.UNKNOWN_TIME if n % 9 == 0 else n * 1000, 0, 3, 0, 0, n,
         person, 10_000 * person + n, 0) for person in (1, 2) for n in range(count)]))
    for since in (0, count * 500_000):
        together = store.results(1, items, since)
        assert together == [found for item in sorted(items, reverse=True) for found in store.results(1, [item], since)]
        assert together


def test_results_follow_corrections_deletions_and_persons(store: Store) -> None:
    """A new version changes its row, a deletion takes it away, a Patient takes its results along."""
    put(store, patient("p1", NUMBERS[0]))
    put(store, made(id="o1"), "hz")
    put(store, made(id="o2", status="preliminary"), "hz")
    person = store.persons_of(["p1"])["p1"]

    def found(person: int = person) -> list[tuple[str, str, int]]:
        return sorted((r.status, r.institution, r.flags) for r in store.results(person, ["TCH001X"], 0))
    assert [("final", "hz", 0), ("preliminary", "hz", 0)] == found()
    put(store, made(id="o2", status="corrected", interpretation=[code("HH", system=INTERPRETATION)]), "hz")
    assert [("corrected", "hz", 1), ("final", "hz", 0)] == found()
    put(store, made(id="o2", status="final", valueQuantity=None, dataAbsentReason=ABSENT), "hz")
    assert [("final", "hz", 0)] == found()
    put(store, patient("p2", NUMBERS[1]))
    put(store, made(id="o3", subject={"reference": "Patient/p2"}), "nb")
    put(store, patient("p2", NUMBERS[0]))
    assert [("final", "hz", 0), ("final", "nb", 0)] == found(store.persons_of(["p1"])["p1"])
    store.write(Unit([Delete("Observation", "o1")]), GATEWAY)
    assert [("final", "nb", 0)] == found(store.persons_of(["p1"])["p1"])
    check_consistent(store)


def test_a_rebuild_makes_the_same_results(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`huren reindex` makes every row again; while it runs a look-up is BUSY: half of it would be wrong."""
    monkeypatch.setattr(reindexing, "BATCH", 5)
    monkeypatch.setattr("gateway.store.store._STATE", 0.0)
    put(store, patient("p1", NUMBERS[0]))
    for n in range(12):
        put(store, made(id=f"o{n}", effectiveDateTime=f"2026-01-{n + 1:02}"), ("hz", "nb")[n % 2])
    put(store, report("r1", "p1", "o1"), "hz")
    person = store.persons_of(["p1"])["p1"]
    before = store.results(person, ["TCH001X", "ECT001J"], 0)
    assert 13 == len(before)

    def during(done: int, total: int) -> None:
        for ask in (lambda: store.results(person, ["TCH001X"], 0), lambda: store.reports_of([1], GATEWAY)):
            with pytest.raises(GatewayError) as caught:
                ask()
            assert Category.BUSY is caught.value.category
    store.reindex(during)
    assert before == store.results(person, ["TCH001X", "ECT001J"], 0)


def test_a_look_up_reads_the_rows_that_it_wants(store: Store, settings: Settings) -> None:
    """Person, items and time are ranges of the key: a person with 20,000 results costs no more than one with few."""
    start, wanted = 1_767_225_600_000, ["TCH001X", "TCH002H"]
    many = ((1, "TCH001X", 20_000), (1, "TCH003F", 5000), (2, "TCH001X", 50))
    put_in = [(item, start + n * 1000, 0, 3, 0, 0, n, person, n, 0) for person, item, count in many
              for n in range(count)]
    columns = [c.name for c in index_schema.idx_result.c]
    store._call(lambda transaction: transaction.insert("idx_result", columns, put_in))
    since = (start + 19_950 * 1000) * 1000
    assert [start + n * 1000 for n in range(19_999, 19_949, -1)] == \
        [found.time // 1000 for found in store.results(1, wanted, since)]
    if settings.database_url:
        with store._database.read() as reader:
            store._call(lambda transaction: transaction.run("ANALYZE idx_result"))
            plan = " ".join(line for line, in reader.all("EXPLAIN (ANALYZE, COSTS off, TIMING off) " + reading._FIND,
                                                         (1, since // 1000, wanted)))
        assert "Index Cond: ((person = " in plan and "Seq Scan" not in plan
        assert "Rows Removed" not in plan
        return
    with closing(sqlite3.connect(settings.data / "huren.sqlite")) as file:
        sql, steps = reading._FIND.replace("IN ?*", "IN (?,?)"), 0
        plan = " ".join(r[3] for r in file.execute("EXPLAIN QUERY PLAN " + sql, (1, 5, "a", "b")))
        assert "SEARCH idx_result USING PRIMARY KEY (person=? AND item=? AND time>?)" == plan

        def step() -> None:
            nonlocal steps
            steps += 1
        file.set_progress_handler(step, 1)
        assert 50 == len(file.execute(sql, (1, since // 1000, *wanted)).fetchall())
        assert steps < 2000  # a dozen each row; all rows would be 300,000


# -------------------------------------------------------------------- reports, references


def test_the_reports_of_results(store: Store, statements: Callable[[], int]) -> None:
    """All reports that name an Observation, a report as its own; three statements for any number of results."""
    store.write(Unit([Put(patient("p1"), "hz"), *(Put(made(id=str(uuid.UUID(int=n))), "hz") for n in range(40)),
                      Put(report("r1", "p1", *(str(uuid.UUID(int=n)) for n in range(20))), "hz"),
                      Put(report("r2", "p1", str(uuid.UUID(int=0)), str(uuid.UUID(int=30))), "nb")]), GATEWAY)
    with store._database.read() as reader:
        pk_of = {f"{index}": pk for index, (pk,) in enumerate(reader.all("SELECT pk FROM resource ORDER BY pk"))}
    names = store.references(pk_of.values())
    pks = {name.partition("/")[2]: pk for pk, name in names.items()}
    o, r1, r2 = [pks[str(uuid.UUID(int=n))] for n in range(40)], pks["r1"], pks["r2"]
    statements()
    found = store.reports_of([*o, r1, r2, 10_000], GATEWAY)
    assert statements() <= 3
    assert {r1: ["r1"], r2: ["r2"], o[0]: ["r1", "r2"], o[30]: ["r2"], **{o[n]: ["r1"] for n in range(1, 20)}} == \
        {pk: sorted(row.id for row in rows) for pk, rows in found.items()}
    assert {o[0]: ["r1"]} == {pk: [row.id for row in rows] for pk, rows in store.reports_of([o[0], r2], HZ).items()}
    assert {o[0]: ["r2"], r2: ["r2"]} == {pk: [row.id for row in rows]
                                          for pk, rows in store.reports_of([o[0], r2], NB).items()}
    store.write(Unit([Delete("DiagnosticReport", "r1")]), GATEWAY)
    assert {o[0]: ["r2"]} == {pk: [r.id for r in rows] for pk, rows in store.reports_of([o[0], o[1], r1],
                                                                                       GATEWAY).items()}
    assert {} == store.reports_of([], GATEWAY)


@pytest.fixture
def statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many statements were run through a reader since the last call."""
    count = 0
    with store._database.read() as reader:
        original = type(reader).among

    def among(self: Any, sql: str, values: Any, before: Any = ()) -> list[tuple[Any, ...]]:
        nonlocal count
        count += 1
        return original(self, sql, values, before)
    monkeypatch.setattr(type(reader), "among", among)

    def since() -> int:
        nonlocal count
        found, count = count, 0
        return found
    return since
