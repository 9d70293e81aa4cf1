"""Order and charge messages as FHIR resources: situations, field by field."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import hl7v2
from gateway.errors import Category, GatewayError
from gateway.fhir.check import check, judge
from gateway.source import Conversion
from tests.support_source import ITEMS, make_source, resources, segment

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"
BASE = "http://huren.example/fhir"
PID = "PID|1||P1^^^H1^MR||王^小明||19800229|M"
ORC = segment("ORC", {1: "NW", 2: "PL1", 9: "20240102080000", 12: "D1^张^医生"})
OBR = "OBR|1|PL1||CBC^血常规^L"


def msh(kind: str = "ORM^O01", sent: str = "20240102103000", version: str = "2.5.1") -> str:
    """MSH of an order message."""
    return f"MSH|^~\\&|HIS|H1|GW|R|{sent}||{kind}|M1|P|{version}||||||UNICODE UTF-8"


def convert(*segments: str, kind: str = "ORM^O01", **changes: Any) -> Conversion:
    """The conversion of a message; MSH and PID stand for themselves when left out."""
    head, *rest = segments if segments[0].startswith("MSH") else (msh(kind), *segments)
    lines = [head, *([] if rest[0].startswith("PID") else [PID]), *rest]
    return hl7v2.convert(hl7v2.parse("\r".join(lines).encode()), make_source(**changes))


def request(*segments: str, **changes: Any) -> dict[str, Any]:
    """The only ServiceRequest of a message."""
    [found] = resources(convert(*segments, **changes), "ServiceRequest")
    return found


def only(conversion: Conversion, kind: str) -> dict[str, Any]:
    """The only resource of a type."""
    [found] = resources(conversion, kind)
    return found


# ---------------------------------------------------------------- the order

@pytest.mark.parametrize("kind", ["ORM^O01", "OML^O21", "OMI^O23", "OMG^O19", "ORM", "OML^^OML_O21", "orm^o01"])
def test_order_messages_are_taken(kind: str) -> None:
    """General, laboratory, imaging and clinical orders, and the bare ORM of 2.1 and 2.2."""
    made = request(ORC, OBR, kind=kind)
    assert (made["status"], made["intent"]) == ("active", "order")
    assert made["code"]["coding"][0] == {"system": "http://huren.example/fhir/CodeSystem/recognition-item",
                                         "code": "P-CBC", "display": "p-cbc"}
    assert made["code"]["coding"][-1] == {"system": "urn:huren:h1:item", "code": "CBC", "display": "血常规"}


def test_the_id_is_the_placers_number_so_that_results_match_orders() -> None:
    """An ORU of the same order refers to the same ServiceRequest, whatever the laboratory calls the service."""
    ordered = request(ORC, OBR)
    source = make_source()
    assert ordered["id"] == source.id_for("ServiceRequest", f"{source.system('placer')}|PL1")
    result = convert(msh("ORU^R01"), "OBR|1|PL1|F1|HGB^血红蛋白^L|||20240102080000|||||||||||||||20240103||HM|F",
                     "OBX|1|NM|HGB||130|g/L|||||F")
    assert only(result, "DiagnosticReport")["basedOn"] == [{"reference": f"ServiceRequest/{ordered['id']}"}]


def test_what_an_order_message_says_is_newer_than_any_reports_copy() -> None:
    """Of the same ServiceRequest the order's own message counts: its time is MSH-7, a report's copy is always older."""
    order = next(c for c in convert(ORC, OBR).changes if c.resource["resourceType"] == "ServiceRequest")
    report = next(c for c in convert(msh("ORU^R01", "20300101"), OBR + "||||||||||||||||||20300101||HM|F").changes
                  if c.resource["resourceType"] == "ServiceRequest")
    assert order.as_of == 1704162600_000000 and order.on_older == "refuse"
    assert report.as_of is not None and report.as_of < 0 and report.on_older == "skip"


@pytest.mark.parametrize("control, status, expected, fresh", [
    ("NW", "", "active", True), ("NW", "SC", "active", True), ("SN", "", "active", True), ("OK", "", "active", False),
    ("XO", "", "active", True), ("XO", "HD", "on-hold", False), ("XX", "IP", "active", True),
    ("RO", "", "active", True), ("RP", "", "active", True), ("CA", "", "revoked", False),
    ("CA", "IP", "revoked", False), ("OC", "", "revoked", False), ("CR", "", "revoked", False),
    ("DC", "", "revoked", False), ("OD", "", "revoked", False), ("DR", "", "revoked", False),
    ("UA", "", "revoked", False), ("HD", "", "on-hold", False), ("OH", "", "on-hold", False),
    ("RL", "", "active", True), ("RL", "HD", "active", True), ("SC", "CM", "completed", False),
    ("SC", "CA", "revoked", False), ("SC", "IP", "active", False), ("SC", "", "active", False),
    ("SC", "ER", "entered-in-error", False), ("NW", "??", "active", True), ("", "", "active", True),
    ("ca", "", "revoked", False)])
def test_order_control_and_status(control: str, status: str, expected: str, fresh: bool) -> None:
    """ORC-1 where the placer settles the order with it, else ORC-5, else active; only new and changed are matched."""
    conversion = convert(segment("ORC", {1: control, 2: "PL1", 5: status}), OBR)
    assert only(conversion, "ServiceRequest")["status"] == expected
    [line] = conversion.orders
    assert (line.status, line.fresh) == (expected, fresh)


def test_the_manifests_tables_hold_for_control_status_and_priority() -> None:
    """The hospital's own values of ORC-1, ORC-5 and OBR-5 are the standard's by its manifest."""
    tables = {"ORC-1": {"1": "NW", "2": "CA"}, "ORC-5": {"完成": "CM"}, "OBR-5": {"急": "S"}}
    assert request("ORC|2|PL1", OBR, tables=tables)["status"] == "revoked"
    assert request("ORC|1|PL1|||完成", OBR + "|急", tables=tables) | {"code": 0} == {
        **request("ORC|NW|PL1|||CM", OBR + "|S"), "code": 0}
    assert convert("ORC|1|PL1", OBR, tables=tables).orders[0].control == "NW"


def test_an_unknown_order_control_is_refused() -> None:
    """Neither the table nor the manifest knows it: INVALID ORC-1, and no guess."""
    with pytest.raises(GatewayError) as refusal:
        convert("ORC|QQ|PL1", OBR)
    assert (refusal.value.category, refusal.value.where, refusal.value.detail) == (
        Category.INVALID, "ORC-1", "table-value")


def test_a_replacement_names_what_it_replaces() -> None:
    """RP with the RO that follows: the former is revoked, the latter active and fresh."""
    conversion = convert("ORC|RP|PL1", OBR, "ORC|RO|PL2", "OBR|2|PL2||HGB^血红蛋白^L")
    old, new = resources(conversion, "ServiceRequest")
    assert (old["status"], new["status"]) == ("revoked", "active")
    assert new["replaces"] == [{"reference": f"ServiceRequest/{old['id']}"}]
    assert [(line.number, line.fresh) for line in conversion.orders] == [("PL1", False), ("PL2", True)]


@pytest.mark.parametrize("segments", [
    ["ORC|NW|PL1|||SC", "OBR|1|||CBC", "ORC|CA|PL2", "OBR|2|||HGB"],
    ["OBR|1|||CBC", "ORC|NW|PL1|||SC", "OBR|2|||HGB", "ORC|CA|PL2"],
    ["OBR|1|PL1||CBC", "ORC|NW|PL1", "ORC|CA|PL2", "OBR|2|PL2||HGB"]])
def test_orc_stands_before_or_behind_its_obr(segments: list[str]) -> None:
    """As the standard has it, behind it throughout, or behind it where its number says so."""
    conversion = convert(*segments)
    assert [(line.number, line.local, line.status) for line in conversion.orders] == [
        ("PL1", "CBC", "active"), ("PL2", "HGB", "revoked")]


def test_an_order_without_orc_is_a_new_one() -> None:
    """OBR alone orders; it cannot say when it was made."""
    conversion = convert("OBR|1|PL1||CBC")
    assert only(conversion, "ServiceRequest")["status"] == "active" and conversion.orders[0].fresh
    assert conversion.orders[0].control_place == "OBR[1]"


def test_one_orc_holds_for_the_obr_that_follow_it() -> None:
    """A cancelled form cancels all of its lines; each keeps its own number."""
    conversion = convert("ORC|CA|G1", "OBR|1|PL1||CBC", "OBR|2|PL2||HGB")
    assert [(line.number, line.status) for line in conversion.orders] == [("PL1", "revoked"), ("PL2", "revoked")]


def test_one_number_for_two_services_gives_two_orders() -> None:
    """A form's number in ORC-2 for several OBR: the service's code tells them apart, in ids and lines."""
    conversion = convert("ORC|NW|G1", "OBR|1|||CBC", "OBR|2|||HGB")
    first, second = resources(conversion, "ServiceRequest")
    assert first["id"] != second["id"] and [line.number for line in conversion.orders] == ["G1|CBC", "G1|HGB"]
    assert first["identifier"][0]["value"] == second["identifier"][0]["value"] == "G1"


def test_a_hospital_whose_numbers_are_forms_says_so() -> None:
    """With ``orders_share_number`` a line that comes alone has the same id as together with others, in ORU too."""
    shared: dict[str, Any] = {"habits": {"orders_share_number": True}}
    together = resources(convert("ORC|NW|G1", "OBR|1|||CBC", "OBR|2|||HGB", **shared), "ServiceRequest")
    alone = convert("ORC|XO|G1", "OBR|1|||HGB", **shared)
    report = convert(msh("ORU^R01"), "OBR|1|G1|F1|HGB|||20240102||||||||||||||||||F", **shared)
    assert only(alone, "ServiceRequest")["id"] == together[1]["id"] == only(report, "ServiceRequest")["id"]
    assert alone.orders[0].number == "G1|HGB"


def test_numbers_group_and_alternates() -> None:
    """PLAC and FILL, the form's number as requisition, OBR-53 behind them, the parent as basedOn."""
    made = request(segment("ORC", {1: "NW", 2: "PL1^HIS", 3: "F1", 4: "G1^HIS"}),
                   segment("OBR", {2: "PL1^HIS", 3: "F1", 4: "CBC", 29: "PP1&HIS^FF1", 53: "ALT1"}))
    assert [(i["type"]["coding"][0]["code"], i["system"], i["value"]) for i in made["identifier"]] == [
        ("PLAC", "urn:huren:h1:placer:HIS", "PL1"), ("FILL", "urn:huren:h1:filler", "F1"),
        ("PLAC", "urn:huren:h1:placer", "ALT1")]
    assert made["requisition"]["value"] == "G1"
    assert made["basedOn"][0]["identifier"]["value"] == "PP1"
    assert made["basedOn"][0]["identifier"]["system"] == "urn:huren:h1:placer:HIS"


@pytest.mark.parametrize("sent, code, component", [
    ("OBR-5", "S", "stat"), ("OBR-5", "A", "asap"), ("OBR-5", "R", "routine"), ("TQ1", "S", "stat"),
    ("OBR-27", "A", "asap"), ("ORC-7", "R", "routine"), ("OBR-5", "PRN", "")])
def test_priority(sent: str, code: str, component: str) -> None:
    """Table 0485 at each place where versions put it."""
    timing = f"^^^^^{code}"
    made = request(segment("ORC", {1: "NW", 2: "PL1", 7: timing if sent == "ORC-7" else ""}),
                   *([f"TQ1|1||||||||{code}"] if sent == "TQ1" else []),
                   segment("OBR", {4: "CBC", 5: code if sent == "OBR-5" else "",
                                   27: timing if sent == "OBR-27" else ""}))
    assert made.get("priority", "") == component


def test_preoperative_priority_is_a_purpose() -> None:
    """P (preop) is no priority of FHIR, and a reason of step 6: the order says that it is before surgery."""
    made = request(ORC, "TQ1|1||||||||P^Preop^HL70485", OBR)
    assert "priority" not in made
    assert made["category"] == [{"coding": [{"system": f"{BASE}/CodeSystem/recognition-purpose",
                                             "code": "before-surgery"}]}]


def test_times() -> None:
    """ORC-9 of a new order is when it was made; OBR-6, TQ1-7, OBR-27.4, ORC-7.4 or OBR-36 when it is wanted."""
    assert request(ORC, OBR)["authoredOn"] == "2024-01-02T08:00:00+08:00"
    assert "authoredOn" not in request(ORC.replace("NW", "XO"), OBR)
    wanted = "2024-01-05T09:00:00+08:00"
    at = "20240105090000"
    for segments in ([ORC, OBR + f"||{at}"], [ORC, f"TQ1|1||||||{at}", OBR],
                     [ORC, segment("OBR", {2: "PL1", 4: "CBC", 27: f"^^^{at}"})],
                     [segment("ORC", {1: "NW", 2: "PL1", 7: f"^^^{at}"}), OBR],
                     [ORC, segment("OBR", {2: "PL1", 4: "CBC", 36: at})]):
        assert request(*segments)["occurrenceDateTime"] == wanted


@pytest.mark.parametrize("field, value, key", [
    (17, "0301^心内科^L", "0301"), (21, "心内科^^0301", "0301"), (13, "0301^^^^^^^^心内科", "0301"),
    (17, "^心内科", "心内科")])
def test_the_requester_is_a_doctor_of_a_department(field: int, value: str, key: str) -> None:
    """ORC-12 with ORC-17, 21 or 13 is a PractitionerRole; the line names doctor and department by their codes."""
    conversion = convert(segment("ORC", {1: "NW", 2: "PL1", 12: "D1^张^医生", field: value}), OBR)
    role = only(conversion, "PractitionerRole")
    assert only(conversion, "ServiceRequest")["requester"] == {"reference": f"PractitionerRole/{role['id']}",
                                                               "display": "张医生"}
    department = next(o for o in resources(conversion, "Organization") if "partOf" in o)
    assert department["name"] == "心内科" and department["partOf"] == {"reference": "Organization/h1"}
    assert role["organization"]["reference"] == f"Organization/{department['id']}"
    [line] = conversion.orders
    assert (line.doctor, line.department) == ("D1", key)


def test_without_a_department_the_requester_is_the_doctor_and_without_both_the_department_of_the_visit() -> None:
    """ORC-12 alone is a Practitioner; OBR-16 does as well; PV1-10 or PV1-3 is the line's department then."""
    conversion = convert("PV1|1|O|OPD^1||||||||||||||||V1", ORC, OBR)
    assert only(conversion, "ServiceRequest")["requester"]["reference"].startswith("Practitioner/")
    assert conversion.orders[0].department == "OPD"
    line = convert("PV1|1|O|OPD|||||||CARD", "ORC|NW|PL1", OBR + "||||||||||||D9^李").orders[0]
    assert (line.department, line.doctor) == ("CARD", "D9")


def test_reasons_notes_details_and_site() -> None:
    """OBR-31 and DG1, NTE, OBR-13 and OBX, OBR-46, OBR-15.4 with its modifier, ORC-16, call-back number."""
    made = request(
        segment("ORC", {1: "NW", 2: "PL1", 14: "^PRN^PH^^86^571^1234567", 16: "X^改期^L"}),
        segment("OBR", {2: "PL1", 4: "CBC", 13: "发热三天", 15: "^^^KNEE&膝&99H^^^LT&左&99H", 24: "CT",
                        31: "R50^发热^I10", 46: "C^加急^L"}),
        "NTE|1||第一行~第二行", "NTE|2||第三行", "DG1|1||J18.9^肺炎^I10", "DG1|2|||咳嗽", "OBX|1|NM|WT^体重||72|kg",
        "OBX|2|CE|PREG^怀孕||N^否^L")
    assert [r["text"] for r in made["reasonCode"]] == ["发热", "肺炎", "咳嗽"]
    assert made["note"] == [{"text": "第一行\n第二行\n第三行"}]
    assert [s["display"] for s in made["supportingInfo"]] == ["发热三天", "体重: 72 kg", "怀孕: 否"]
    assert made["orderDetail"][0]["text"] == "加急" and made["bodySite"][0]["text"] == "膝 (左)"
    assert made["category"][0]["coding"][0]["code"] == "CT"
    urls = {e["url"].rpartition("/")[2]: e for e in made["extension"]}
    assert urls["laterality"]["valueCode"] == "L"
    assert urls["request-statusReason"]["valueCodeableConcept"]["text"] == "改期"
    assert urls["servicerequest-order-callback-phone-number"]["valueContactPoint"]["value"] == "+86 571 1234567"


@pytest.mark.parametrize("modifiers, side", [("LT", "L"), ("RT", "R"), ("50", "B"), ("LT~RT", "B"), ("26", "")])
def test_a_side_comes_from_the_procedures_modifier_too(modifiers: str, side: str) -> None:
    """OBR-45 (LT, RT, 50); left and right are both."""
    made = request(ORC, segment("OBR", {2: "PL1", 4: "CBC", 45: modifiers}))
    assert [e["valueCode"] for e in made.get("extension", [])] == ([side] if side else [])


def test_specimens_of_the_order() -> None:
    """SPM of a laboratory order, or OBR-15 before 2.5; none for imaging."""
    conversion = convert(ORC, OBR, "SPM|1|S1||SER^Serum^HL70487", kind="OML^O21")
    specimen = only(conversion, "Specimen")
    assert only(conversion, "ServiceRequest")["specimen"] == [{"reference": f"Specimen/{specimen['id']}"}]
    assert specimen["type"]["coding"][0]["code"] == "SER"
    assert only(convert(ORC, OBR + "|||||||||||01^全血^L"), "Specimen")["type"]["text"] == "全血"
    assert resources(convert(ORC, OBR + "|||||||||||01^全血^L|||||||||CT"), "Specimen") == []


def test_containers_of_an_order() -> None:
    """SAC behind SPM is the specimen's container; without SPM it is all that tells of the specimen."""
    spm = segment("SPM", {1: "1", 2: "S1", 4: "SER"})
    sac = segment("SAC", {2: "A1", 3: "T7", 21: "10", 24: "mL"})
    specimen = only(convert(ORC, OBR, spm, sac), "Specimen")
    assert [one["identifier"][0]["value"] for one in specimen["container"]] == ["T7"]
    assert specimen["container"][0]["capacity"]["value"] == 10
    alone = only(convert(ORC, OBR, sac), "Specimen")
    assert alone["accessionIdentifier"]["value"] == "A1" and alone["container"][0]["identifier"][0]["value"] == "T7"


@pytest.mark.parametrize("pattern, repeat", [
    ("Q6H", (1, 6, "h")), ("Q2D", (1, 2, "d")), ("QD", (1, 1, "d")), ("BID", (2, 1, "d")), ("TID", (3, 1, "d")),
    ("QID", (4, 1, "d")), ("6ID", (6, 1, "d")), ("QOD", (1, 2, "d")), ("QAM", (1, 1, "d")), ("Q30M", (1, 30, "min")),
    ("PRN", ()), ("C", ()), ("Q2J3", ()), ("每周一次", ())])
def test_a_series_is_no_single_test(pattern: str, repeat: tuple[Any, ...]) -> None:
    """TQ1-3, OBR-27.2 and ORC-7.2 by table 0335 as Timing, with its bounds; a pattern that says no number is a code."""
    begin, end = "20240103080000", "20240105080000"
    tq = f"^{pattern}^^{begin}^{end}"
    for segments in ([ORC, f"TQ1|1||{pattern}||||{begin}|{end}|R", OBR], [ORC, OBR + "|" * 23 + tq],
                     [segment("ORC", {1: "NW", 2: "PL1", 7: tq}), OBR]):
        made = request(*segments)
        timing = made["occurrenceTiming"]
        assert timing["code"]["coding"][0]["code"] == pattern and "occurrenceDateTime" not in made
        said = timing["repeat"]
        assert said["boundsPeriod"] == {"start": "2024-01-03T08:00:00+08:00", "end": "2024-01-05T08:00:00+08:00"}
        assert tuple(said[name] for name in ("frequency", "period", "periodUnit") if name in said) == repeat


@pytest.mark.parametrize("segments", [
    (ORC, "TQ1|1||BID||||20240105|20240103", OBR), (ORC, OBR + "|" * 23 + "^BID^^20240105080000^20240105070000"),
    (ORC, "TQ1|1||BID|||||20240103", "OBR|1|PL1||CBC^血常规^L||20240104")])
def test_a_series_that_ends_before_it_begins(segments: tuple[str, ...]) -> None:
    """The end is left out with a remark, whichever field tells the start."""
    conversion = convert(*segments)
    order = only(conversion, "ServiceRequest")
    assert set(order["occurrenceTiming"]["repeat"]["boundsPeriod"]) == {"start"} and not check(order)
    assert [r.where for r in conversion.remarks] in (["TQ1-3"], ["OBR-27"])


def test_amounts_times_of_day_and_single_tests() -> None:
    """TQ1-2, 4, 11 and 14; once, or an amount of one, is a single test with its time."""
    made = request(ORC, "TQ1|1|3^mL&mL&UCUM|Q1D|0730~113005|||20240103||||after meals|||4", OBR)
    assert made["quantityQuantity"]["value"] == 3 and made["quantityQuantity"]["code"] == "mL"
    assert made["occurrenceTiming"]["repeat"]["timeOfDay"] == ["07:30:00", "11:30:05"]
    assert made["occurrenceTiming"]["repeat"]["count"] == 4 and made["note"] == [{"text": "after meals"}]
    fed = request(ORC, "TQ1|1||TID^^^^^^^AC^1^hr", OBR)["occurrenceTiming"]["repeat"]
    assert (fed["frequency"], fed["when"], fed["offset"]) == (3, ["AC"], 60)
    for tq1 in ("TQ1|1|1|Once^^^^1^d||||20240103080000||R", "TQ1|1||||||20240103080000||R",
                "TQ1|1||ONCE^once^HL70335||||20240103080000|||||||1"):
        single = request(ORC, tq1, OBR)
        assert single["occurrenceDateTime"] == "2024-01-03T08:00:00+08:00"
        assert "occurrenceTiming" not in single and "quantityQuantity" not in single


@pytest.mark.parametrize("tq1, bounds, each", [
    ("TQ1|1||Q6H|||2^d&d&UCUM|||||||30^min&min&UCUM", {"boundsDuration": ("2", "d")}, ("30", "min")),
    ("TQ1|1||Q6H|||2^d|20240103|||||", {"boundsPeriod": None}, None), ("TQ1|1||Q6H|||0^d|||||||1^apples", {}, None)])
def test_how_long_a_series_and_each_of_its_times_lasts(tq1: str, bounds: dict[str, Any], each: Any) -> None:
    """TQ1-6, where no start and no end is told, and TQ1-13."""
    repeat = request(ORC, tq1, OBR)["occurrenceTiming"]["repeat"]
    assert {name for name in repeat if name.startswith("bounds")} == set(bounds)
    if duration := bounds.get("boundsDuration"):
        made = repeat["boundsDuration"]
        assert (str(made["value"]), made["code"], made["system"]) == (*duration, "http://unitsofmeasure.org")
    assert (str(repeat["duration"]), repeat["durationUnit"]) == each if each else "duration" not in repeat


@pytest.mark.parametrize("sent, expected", [("S50", ("50", "s")), ("L2", ("2", "mo")), ("D0", None), ("INDEF", None)])
def test_how_long_a_series_lasted_before_2_5(sent: str, expected: tuple[str, str] | None) -> None:
    """TQ.3 of OBR-27, where neither TQ.4 nor TQ.5 is told; with a start it is the start that stands there."""
    repeat = request(ORC, OBR + "|" * 23 + f"^BID^{sent}")["occurrenceTiming"]["repeat"]
    made = repeat.get("boundsDuration")
    assert (made and (str(made["value"]), made["code"])) == expected
    assert "boundsDuration" not in request(ORC, OBR + "|" * 23 + f"^BID^{sent}^20240103")["occurrenceTiming"]["repeat"]


def test_orders_by_specimen() -> None:
    """OML^O33: an SPM before its orders holds for all of them up to the next; its OBX and NTE answer no order."""
    conversion = convert(
        "SPM|1|S1||SER", "OBX|1|ST|FAST^Fasting||yes", "NTE|1||cold", "SAC|||T1", "ORC|NW|PL1", "OBR|1|PL1||A^A",
        "OBX|1|ST|DRUG^Drug||none", "ORC|NW|PL2", "OBR|2|PL2||B^B", "SPM|2|S2||UR", "ORC|NW|PL3", "OBR|3|PL3||C^C",
        kind="OML^O33^OML_O33")
    of = {made["identifier"][0]["value"]: made for made in resources(conversion, "ServiceRequest")}
    tubes = {made["id"]: made for made in resources(conversion, "Specimen")}
    assert [[tubes[one["reference"].partition("/")[2]]["identifier"][0]["value"] for one in of[number]["specimen"]]
            for number in ("PL1", "PL2", "PL3")] == [["S1"], ["S1"], ["S2"]]
    assert [one["display"] for one in of["PL1"]["supportingInfo"]] == ["Drug: none"]
    assert "note" not in of["PL1"] and len(tubes) == 2
    first = next(made for made in tubes.values() if made["identifier"][0]["value"] == "S1")
    assert first["note"][0]["text"] == "cold" and first["container"][0]["identifier"][0]["value"] == "T1"


def test_insurance_and_its_scheme() -> None:
    """IN1 is a Coverage of the patient; the manifest may name the region's scheme for the hospital's plan type."""
    in1 = segment("IN1", {1: "1", 2: "B01^城乡^L", 3: "YB1", 4: "医保局", 12: "20240101", 13: "20241231",
                          15: "390^城乡居民", 17: "SEL", 36: "POL1", 49: "SUB1"})
    conversion = convert(in1, ORC, OBR, tables={"IN1-15": {"390": "municipal-basic"}})
    coverage = only(conversion, "Coverage")
    assert only(conversion, "ServiceRequest")["insurance"] == [{"reference": f"Coverage/{coverage['id']}"}]
    assert coverage["type"]["coding"][0] == {"system": f"{BASE}/CodeSystem/recognition-scheme",
                                             "code": "municipal-basic"}
    assert coverage["type"]["coding"][1]["code"] == "390"
    assert (coverage["subscriberId"], coverage["order"]) == ("SUB1", 1)
    assert coverage["period"] == {"start": "2024-01-01", "end": "2024-12-31"}
    assert coverage["payor"][0]["display"] == "医保局" and coverage["relationship"]["coding"][0]["code"] == "self"
    assert [(one["type"]["coding"][0]["code"], one["value"], one["name"]) for one in coverage["class"]] == [
        ("plan", "B01", "城乡")]
    assert coverage["subscriber"] == coverage["beneficiary"] and "costToBeneficiary" not in coverage
    assert conversion.orders[0].scheme == "municipal-basic"
    assert convert("IN1|1|自费", ORC, OBR).orders[0].scheme == "自费"
    assert convert("IN1|1||YB1|医保局", ORC, OBR).orders[0].scheme == ""


def test_the_numbers_of_a_member() -> None:
    """IN2 behind its IN1, in an order, a charge and an event: the member's number, Medicare's and Medicaid's."""
    in2 = segment("IN2", {6: "MC1", 8: "MA1", 61: "M1^^^Plan^^^20240101^20241231"})
    for made in (convert("IN1|1|B01||A", in2, "IN1|2|B02||C", "IN3|2", ORC, OBR),
                 charges("IN1|1|B01||A", in2, "IN1|2|B02||C", segment("FT1", FT1), "ORC|RE|PL1"),
                 convert(PID, "PV1||I", "IN1|1|B01||A", in2, "IN1|2|B02||C", kind="ADT^A08")):
        first, second = resources(made, "Coverage")
        assert [(one["type"]["coding"][0]["code"], one["value"]) for one in first["identifier"]] == [
            ("MB", "M1"), ("MC", "MC1"), ("MA", "MA1")]
        assert first["identifier"][0]["system"] == "urn:huren:h1:member:Plan" and "identifier" not in second
        assert first["identifier"][0]["period"] == {"start": "2024-01-01", "end": "2024-12-31"}


def test_what_the_patient_pays_first() -> None:
    """IN1-37 (a deductible) as costToBeneficiary, exactly as it was written."""
    [cost] = only(convert(segment("IN1", {2: "B01", 37: "150.00&CNY^DC"}), ORC, OBR), "Coverage")["costToBeneficiary"]
    assert cost["type"]["coding"][0]["code"] == "deductible"
    assert (str(cost["valueMoney"]["value"]), cost["valueMoney"]["currency"]) == ("150.00", "CNY")


def test_who_is_insured_and_who_has_the_contract() -> None:
    """IN1-16 of another than the patient and IN1-11 are named by text; IN1-8 is the group beside the plan of IN1-2."""
    in1 = segment("IN1", {2: "B01", 3: "YB1", 8: "G7", 9: "Staff", 11: "ACME", 16: "Doe^Rosallie", 17: "SPO"})
    coverage = only(convert(in1, ORC, OBR), "Coverage")
    assert (coverage["subscriber"], coverage["policyHolder"]) == ({"display": "Rosallie Doe"}, {"display": "ACME"})
    assert [(one["type"]["coding"][0]["code"], one["value"]) for one in coverage["class"]] == [("plan", "B01"),
                                                                                              ("group", "G7")]


def test_the_visit_is_known_even_without_its_number() -> None:
    """PV1 without PV1-19 is no Encounter resource, and still says class and admission to the match."""
    conversion = convert(segment("PV1", {2: "I", 44: "20240101"}), ORC, OBR)
    assert resources(conversion, "Encounter") == []
    visit = conversion.orders[0].encounter
    assert visit is not None and visit["class"]["code"] == "IMP" and visit["period"] == {"start": "2024-01-01"}
    stored = convert(segment("PV1", {2: "E", 19: "V1"}), ORC, OBR)
    assert stored.orders[0].encounter["id"] == only(stored, "Encounter")["id"]  # type: ignore[index]


# ---------------------------------------------------------------- what is no order, what is missing

def test_previous_results_in_an_order_are_no_orders() -> None:
    """ORC-1 PR, and an OBR with results but without an ORC of its own, come along only (OML PRIOR_RESULT)."""
    conversion = convert(PID, ORC, OBR, "PID|1||P1^^^H1^MR||王^小明", "ORC|PR|OLD1", "OBR|2|OLD1||HGB",
                         "OBX|1|NM|HGB||130", segment("OBR", {2: "OLD2", 4: "HGB", 25: "F"}), "OBX|1|NM|HGB||131",
                         kind="OML^O21")
    assert [line.number for line in conversion.orders] == ["PL1"]


def test_orders_of_medicines_beside_exams_are_left_out_and_alone_are_unsupported() -> None:
    """Only OBR orders an exam or a test."""
    assert [line.number for line in convert("ORC|NW|RX1", "RXO|A001", ORC, OBR).orders] == ["PL1"]
    with pytest.raises(GatewayError) as refusal:
        convert("ORC|NW|RX1", "RXO|A001")
    assert (refusal.value.category, refusal.value.where) == (Category.UNSUPPORTED, "RXO")


@pytest.mark.parametrize("segments, where", [
    ([ORC], "OBR"), (["NTE|1||x"], "OBR"), (["ORC|NW", "OBR|1|||CBC"], "ORC-2"), ([ORC, "OBR|1|PL1"], "OBR-4"),
    (["ORC|CA"], "ORC-2"), (["PID|1||||王", ORC, OBR], "PID-3"), (["ORC|NW|PL1|||||||20249999", OBR], "ORC-9")])
def test_what_is_missing_or_impossible_is_named(segments: list[str], where: str) -> None:
    """INVALID with the sender's path."""
    with pytest.raises(GatewayError) as refusal:
        convert(*segments)
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, where)
    assert "王" not in refusal.value.message


def test_nobodys_order_is_refused() -> None:
    """An order before any PID."""
    with pytest.raises(GatewayError) as refusal:
        hl7v2.convert(hl7v2.parse("\r".join([msh(), ORC, OBR]).encode()), make_source())
    assert refusal.value.where == "PID"


def test_an_orc_alone_may_end_an_order_that_is_known() -> None:
    """No resource is made of it, only the line with the id that the order has."""
    conversion = convert("ORC|CA|PL1")
    [line] = conversion.orders
    assert line.partial and line.request == request(ORC, OBR)["id"]
    assert (line.status, line.place, line.fresh) == ("revoked", "ORC[1]", False)
    assert resources(conversion, "ServiceRequest") == []


def test_unmapped_orders_are_listed() -> None:
    """A code that no row maps keeps the hospital's own coding, and is told."""
    conversion = convert(ORC, "OBR|1|PL1||XYZ^怪项目^L")
    assert [(u.kind, u.local, u.where) for u in conversion.unmapped] == [("order", "XYZ", "OBR-4")]
    assert ITEMS not in {c["system"] for c in only(conversion, "ServiceRequest")["code"]["coding"]}


# ---------------------------------------------------------------- charges

FT1 = {1: "1", 2: "T1", 4: "20240102", 6: "CG", 7: "P100^血常规^PRICE", 10: "2", 11: "50.00&CNY", 21: "D1"}


def charges(*segments: str, **changes: Any) -> Conversion:
    """A DFT^P03."""
    return convert("EVN|P03", *segments, kind="DFT^P03", **changes)


def test_a_charge_is_a_charge_item_of_its_order() -> None:
    """FT1 with the ORC that follows it."""
    conversion = charges(segment("FT1", FT1), "ORC|RE|PL1", "OBR|1|PL1||CBC")
    item = only(conversion, "ChargeItem")
    assert (item["status"], item["code"]["text"]) == ("billed", "血常规")
    assert item["supportingInformation"] == [{"reference": f"ServiceRequest/{request(ORC, OBR)['id']}"}]
    assert str(item["priceOverride"]["value"]) == "50.00" and item["priceOverride"]["currency"] == "CNY"
    assert str(item["quantity"]["value"]) == "2"
    [charge] = conversion.charges
    assert (charge.number, charge.credit, charge.place, charge.code, charge.doctor) == (
        "PL1", False, "FT1[1]", "CBC", "D1")


def test_the_account_and_the_organizations_of_a_charge() -> None:
    """PID-18 as the account's number; FT1-32 performed, FT1-33 asked, else the hospital performed and nobody asked."""
    sent = [segment("FT1", FT1), "ORC|RE|PL1", "OBR|1|PL1||CBC"]
    plain = only(charges(*sent), "ChargeItem")
    assert plain["performingOrganization"]["reference"] == "Organization/h1"
    assert not {"account", "requestingOrganization"} & plain.keys()
    item = only(convert(PID + "|" * 10 + "ACC1", segment("FT1", {**FT1, 32: "Lab East^L^77", 33: "Clinic^L^78"}),
                        *sent[1:], kind="DFT^P03"), "ChargeItem")
    assert item["account"][0]["identifier"]["value"] == "ACC1"
    assert (item["performingOrganization"]["display"], item["requestingOrganization"]["display"]) == (
        "Lab East", "Clinic")


def test_a_credit_finds_its_charge() -> None:
    """CR of the same order and code is the same ChargeItem, aborted."""
    order = ["ORC|RE|PL1", "OBR|1|PL1||CBC"]
    billed = only(charges(segment("FT1", FT1), *order), "ChargeItem")
    credit = charges(segment("FT1", {**FT1, 2: "T2", 6: "CR"}), *order)
    assert (only(credit, "ChargeItem")["id"], only(credit, "ChargeItem")["status"]) == (billed["id"], "aborted")
    assert credit.charges[0].credit


def test_who_did_it_why_and_which_department_pays() -> None:
    """FT1-5, 13, 19, 20, 21 (who ordered) and 24 (who entered) of a charge."""
    item = only(charges(segment("FT1", {**FT1, 5: "20240103", 13: "RAD^放射科", 19: "R07^胸痛^I10~J06",
                                        20: "D7^钱^医生~D8^孙^医生", 21: "D1^李", 24: "D9^周"}),
                        "ORC|RE|PL1", "OBR|1|PL1||CBC"), "ChargeItem")
    assert (item["enteredDate"], item["costCenter"]) == ("2024-01-03", {"display": "放射科"})
    assert [reason["coding"][0]["code"] for reason in item["reason"]] == ["R07", "J06"]
    assert [(one["actor"]["display"], "function" in one) for one in item["performer"]] == [
        ("钱医生", False), ("孙医生", False), ("李", True)]
    assert item["enterer"]["display"] == "周"


@pytest.mark.parametrize("segments, number, filler", [
    (["ORC|RE|PL9|F9", "OBR|1|||CBC", segment("FT1", FT1)], "PL9", ""),
    (["ORC|RE|PL8|F8", "ORC|RE|PL9|F9", segment("FT1", {**FT1, 23: "F9"})], "PL9", ""),
    (["ORC|RE|PL8", "ORC|RE|PL9", segment("FT1", FT1)], "", ""),
    ([segment("FT1", {**FT1, 23: "F9"})], "F9", "urn:huren:h1:filler|F9"),
    ([segment("FT1", FT1), "ORC|RE||F9"], "F9", "urn:huren:h1:filler|F9"),
    ([segment("FT1", FT1)], "", "")])
def test_which_order_a_charge_is_for(segments: list[str], number: str, filler: str) -> None:
    """The ORC behind FT1, the one ORC before it, the one with its filler number, FT1-23; else none is guessed."""
    [charge] = charges(*segments).charges
    assert (charge.number, charge.filler) == (number, filler)


def test_payments_bill_nothing_and_unknown_kinds_are_refused() -> None:
    """PY, CO and AJ (table 0017) are taken and left; others need the manifest."""
    assert charges(segment("FT1", {**FT1, 6: "PY"})).charges == []
    with pytest.raises(GatewayError) as refusal:
        charges(segment("FT1", {**FT1, 6: "收费"}))
    assert (refusal.value.where, refusal.value.detail) == ("FT1-6", "table-value")
    assert len(charges(segment("FT1", {**FT1, 6: "收费"}), tables={"FT1-6": {"收费": "CG"}}).charges) == 1


def test_an_order_message_may_charge_its_orders() -> None:
    """FT1 in ORM is a charge of the order that it stands behind."""
    conversion = convert(ORC, OBR, segment("FT1", FT1), "ORC|NW|PL2", "OBR|2|PL2||HGB")
    assert [(c.number, c.code, c.place) for c in conversion.charges] == [("PL1", "CBC", "FT1[1]")]


# ---------------------------------------------------------------- independent judges

@pytest.mark.parametrize("version", ["2.3.1", "2.4", "2.5.1"])
def test_an_order_that_hl7apy_builds_is_read(version: str) -> None:
    """An independent library writes a whole ORM^O01 of its version; every field arrives where it belongs."""
    from hl7apy.core import Group, Message

    built = Message("ORM_O01", version=version)
    built.msh.msh_3, built.msh.msh_4, built.msh.msh_7 = "HIS", "H1", "20240102103000"
    built.msh.msh_9, built.msh.msh_10, built.msh.msh_11 = "ORM^O01", "M1", "P"
    patient = Group("ORM_O01_PATIENT", version=version)
    patient.add_segment("PID")
    patient.pid.pid_3, patient.pid.pid_5 = "P1^^^H1^MR", "Wang^Xiaoming"
    built.add(patient)
    order = Group("ORM_O01_ORDER", version=version)
    order.add_segment("ORC")
    order.orc.orc_1, order.orc.orc_2, order.orc.orc_9 = "NW", "PL1", "20240102080000"
    order.orc.orc_12 = "D1^Zhang"
    built.add(order)
    raw = built.to_er7() + "\rOBR|1|PL1||CBC^Blood count^L|S"
    conversion = hl7v2.convert(hl7v2.parse(raw.encode()), make_source())
    made = only(conversion, "ServiceRequest")
    assert (made["status"], made["priority"], made["authoredOn"]) == (
        "active", "stat", "2024-01-02T08:00:00+08:00")
    assert made["identifier"][0]["value"] == "PL1" and made["requester"]["display"] == "Zhang"
    assert only(conversion, "Patient")["name"][0]["family"] == "Wang"


#: What becomes of the public order and charge messages, and why a refusal is right.
EXPECTED = {
    "ok ORM": 13, "ok OML": 16, "ok DFT": 11,
    "unsupported RXO": 6, "unsupported ODS": 1, "unsupported RQ1": 1,  # medicines, diets, supplies
    "unsupported MSH-9": 2,  # DFT^P11
    "invalid OBR": 3, "invalid PID": 3,  # fragments of a converter's tests
    "invalid ORC-2": 3,  # orders that nothing numbers
}


def test_public_messages_are_converted_or_refused_with_a_place() -> None:
    """Every public order and charge is accepted and its resources valid, or refused for a reason of its own."""
    if not CORPUS.is_dir():
        pytest.skip("the folder of public messages is not beside the repository")
    outcomes: Counter[str] = Counter()
    for path in sorted(CORPUS.rglob("*.hl7")):
        for raw in hl7v2.split(path.read_bytes()):
            try:
                kind = hl7v2.peek(raw).message_type[0]
                if kind not in hl7v2.ORDER_MESSAGES:
                    continue
                conversion = hl7v2.convert(hl7v2.parse(raw), make_source())
            except GatewayError as refusal:
                if refusal.where != "MSH":
                    outcomes[f"{refusal.category.value} {refusal.where}"] += 1
                continue
            outcomes[f"ok {kind}"] += 1
            _valid(conversion)
    assert outcomes == EXPECTED


def _valid(conversion: Conversion) -> None:
    for change in conversion.changes:
        assert check(change.resource, profile=True) == []
        assert judge(change.resource) == []


_ATOM = st.sampled_from(["", "1", "王", "2024", "20240102030405", '""', "A^B^L", "a&b&c", "~", "1~2^3", "\\F\\", "CG",
                         "CR", "NW", "CA", "RP", "RO", "SC", "&1.2.3&ISO", "^^^20240101^^S", "^PRN^PH^^86^1", "1.5&CNY",
                         "<5", "^^^KNEE&膝^^^LT", "P^Preop", "390^居民", "P1&HIS^F1&LIS"])


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    def fields(required: dict[int, str], upto: int) -> dict[int, str]:
        return {**required, **draw(st.dictionaries(st.integers(1, upto), _ATOM, max_size=8))}
    kind = draw(st.sampled_from(["ORM^O01", "OML^O21", "OMI^O23", "OMG^O19", "DFT^P03"]))
    lines = [msh(kind), segment("PID", fields({3: "P1", 5: "王^一"}, 30))]
    uses = {"ORC": {1: "NW", 2: "PL"}, "OBR": {2: "PL", 4: "CBC"}, "FT1": FT1, "IN1": {2: "A"}, "PV1": {2: "O"},
            "TQ1": {9: "R"}, "DG1": {3: "J18"}, "SPM": {4: "SER"}, "NTE": {3: "x"}, "OBX": {3: "WBC", 5: "1"},
            "RXO": {1: "A"}, "ZZZ": {1: "x"}}
    for name in draw(st.lists(st.sampled_from([*uses, "ORC", "OBR", "FT1"]), min_size=1, max_size=9)):
        lines.append(segment(name, fields(uses[name], 50)))
    return "\r".join(lines).encode()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_messages(), st.sampled_from([{}, {"orders_share_number": True}]))
def test_no_message_crashes_the_conversion_and_what_it_makes_is_valid(raw: bytes, habits: dict[str, Any]) -> None:
    """Odd content in any field, in any order of segments, is refused with GatewayError or becomes valid R4."""
    source = make_source(habits=habits)
    try:
        conversion = hl7v2.convert(hl7v2.parse(raw), source)
    except GatewayError as refusal:
        assert refusal.category in (Category.INVALID, Category.MALFORMED, Category.UNSUPPORTED)
        return
    for change in conversion.changes:
        assert check(change.resource, profile=True) == []
    assert hl7v2.convert(hl7v2.parse(raw), source) == conversion
    ids = [(c.resource["resourceType"], c.resource["id"]) for c in conversion.changes]
    assert len(ids) == len(set(ids))
    assert all(line.number for line in conversion.orders)
