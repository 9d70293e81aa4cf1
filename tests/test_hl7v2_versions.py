"""One admission, one order and one report in the customs of each version 2.1 to 2.8.2: the same meaning.

What moved or was withdrawn between them: MSH-9.2 (2.2) and 9.3 (2.3.1), MSH-12.2 (2.3); TS with its degree of precision
(to 2.5.1), DTM (2.6); CN and TN (to 2.2), XCN and XTN (2.3); PID-2, 4, 9, 12, 13, 19 and 20 (to 2.6), PID-3, 5, 11 and
40 instead; EVN-1 (to 2.6); OBR-5, 6, 27 and ORC-7 (to 2.4), TQ1 (2.5); OBR-15 (to 2.4), SPM (2.5); CE (to 2.5.1), CWE
(2.6); OBX-16 and OBR-32 (to 2.7), PRT (2.7.1); ORM (to 2.6), OML (2.7).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway import hl7v2
from gateway.adapter import Adapter, load
from gateway.config import SHIPPED_ADAPTERS
from gateway.errors import GatewayError
from gateway.fhir.check import check
from gateway.identity import NATIONAL_ID_SYSTEM
from tests.support_source import resources, segment

VERSIONS = ["2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2"]
NATIONAL = "11010519491231002X"  # the example of GB 11643
each_version = pytest.mark.parametrize("version", VERSIONS)


class Sender:
    """A hospital that speaks one version as its manuals say."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.numbers = tuple(int(part) for part in version.split("."))

    def since(self, *version: int) -> bool:
        """Whether the hospital's version is that one or a later one."""
        return self.numbers >= version

    def time(self, text: str) -> str:
        """YYYYMMDDHHMM as TS or DTM."""
        if self.since(2, 6):
            return f"{text}00.000+0800"
        return f"{text}00^S" if self.since(2, 3) else text

    def day(self, text: str) -> str:
        """DT in 2.1 and 2.2, then TS with its precision, then DTM."""
        return f"{text}^D" if self.since(2, 3) and not self.since(2, 6) else text

    def person(self, number: str, family: str, given: str) -> str:
        """CN, XCN."""
        return f"{number}^{family}^{given}" + ("^^^^^^H1^L" if self.since(2, 3) else "")

    def msh(self, code: str, event: str) -> str:
        """MSH-9 with what the version knows of it."""
        kind = code if not self.since(2, 2) else f"{code}^{event}"
        kind += f"^{code}_{event}" if self.since(2, 3, 1) else ""
        return segment("MSH", {1: "^~\\&", 2: "LIS", 3: "H1", 4: "GW", 5: "R", 6: self.time("202401021030"), 8: kind,
                               9: "M1", 10: "P", 11: self.version + ("^CHN" if self.since(2, 3) else "")})

    def pid(self) -> str:
        """Four numbers, a name and an alias, an address with its county, a telephone."""
        fields = {1: "1", 3: "P100^5^M10", 5: "Doe^John^Q^Jr^Dr", 7: self.day("19800229"), 8: "M",
                  11: "1 Main St^^Springfield^IL^62701^USA"}
        if self.since(2, 3):
            fields[3] = "P100^5^M10^H1^MR"
        if self.since(2, 7):
            fields[3] += f"~EXT9^^^GW^PT~ALT7^^^^AN~{NATIONAL}^^^^NNCHN~DL5^^^^DL"
            fields[5] += "^^L~Roe^Jack^^^^^A"
            fields[11] += "^H^^Sangamon"
            fields[40] = "^PRN^PH^^^217^5551234"
        else:
            fields |= {2: "EXT9", 4: "ALT7", 9: "Roe^Jack", 12: "Sangamon", 13: "(217)5551234", 19: NATIONAL, 20: "DL5"}
            if self.since(2, 3):
                fields |= {9: "Roe^Jack^^^^^A", 13: "(217)5551234^PRN^PH"}
        return segment("PID", fields)

    def pv1(self) -> str:
        """A bed, a doctor, a visit number, the admission."""
        return segment("PV1", {1: "1", 2: "I", 3: "W1^R2^B3" + ("^H1" if self.since(2, 3) else ""),
                               7: self.person("D1", "Smith", "Ann"), 19: "V1", 44: self.time("202401011200")})

    def admission(self) -> bytes:
        """ADT^A01; in 2.1 EVN-1 alone says so."""
        evn = {2: self.time("202401011200")} | ({} if self.since(2, 7) else {1: "A01"})
        return _message(self.msh("ADT", "A01"), segment("EVN", evn), self.pid(), self.pv1())

    def order(self) -> bytes:
        """ORM^O01, as of 2.7 OML^O21: an urgent blood count, wanted at a time, of a blood sample."""
        quick, wanted = "S", self.time("202401030800").partition("^")[0]
        orc = {1: "NW", 2: "PL1^HIS", 9: self.time("202401021000"), 12: self.person("D1", "Smith", "Ann")}
        obr = {1: "1", 2: "PL1^HIS", 4: "CBC^Blood count^L", 13: "fever", 16: self.person("D1", "Smith", "Ann"),
               24: "HM"}
        more = []
        if self.since(2, 5):
            more = [segment("TQ1", {1: "1", 7: wanted, 9: quick})]
        elif self.since(2, 3):
            orc[7] = obr[27] = f"1^^^{wanted}^^{quick}"
        else:
            obr |= {5: quick, 6: wanted}
        if not self.since(2, 5):
            obr |= {15: "BLD" + ("&Blood&HL70070" if self.since(2, 3) else "")}
        kind = ("OML", "O21") if self.since(2, 7) else ("ORM", "O01")
        sample = [segment("SPM", {1: "1", 4: "BLD^Blood^HL70487"})] if self.since(2, 5) else []
        return _message(self.msh(*kind), self.pid(), self.pv1(), segment("ORC", orc), *more, segment("OBR", obr),
                        *sample)

    def report(self) -> bytes:
        """ORU^R01: a number, a code, a text, who measured and who read it."""
        coded = "CWE" if self.since(2, 6) else "CE"
        flag = "H^High^HL70078" if self.since(2, 7) else "H"
        obr = {1: "1", 2: "PL1^HIS", 3: "F1^LIS", 4: "CBC^Blood count^L", 7: self.time("202401020800"),
               16: self.person("D1", "Smith", "Ann"), 22: self.time("202401021000"), 24: "HM", 25: "F"}
        wbc = {1: "1", 2: "NM", 3: "WBC^Leukocytes^L", 5: "11.20", 6: "10*9/L" + ("^^UCUM" if self.since(2, 3) else ""),
               7: "4.0-10.0", 8: flag, 11: "F"}
        others = [segment("OBX", {1: "2", 2: coded, 3: "MAL^Malaria^L", 5: "NEG^Negative^L", 11: "F"}),
                  segment("OBX", {1: "3", 2: "TX", 3: "CMT^Comment^L", 5: "checked by hand", 11: "F"})]
        took_part = []
        if self.since(2, 7, 1):
            took_part = [segment("PRT", {1: "1", 2: "UC", 4: "RO", 5: self.person("T1", "Lee", "Bo")})]
            read_by = [segment("PRT", {1: "1", 2: "UC", 4: "PI", 5: self.person("D2", "Fox", "Eve")})]
        else:
            read_by = []
            obr[32] = "D2&Fox&Eve" if self.since(2, 3) else "D2^Fox^Eve"
            if self.since(2, 2):
                wbc[16] = self.person("T1", "Lee", "Bo")
        return _message(self.msh("ORU", "R01"), self.pid(), self.pv1(), segment("OBR", obr), *read_by,
                        segment("OBX", wbc), *took_part, *others)


def _message(*segments: str) -> bytes:
    return ("\r".join(segments) + "\r").encode()


@pytest.fixture(scope="module")
def generic() -> Adapter:
    """The hospital folder that any sender gets."""
    return load(SHIPPED_ADAPTERS / "generic")


def meaning(raw: bytes, adapter: Adapter) -> dict[str, list[dict[str, Any]]]:
    """The resources of a message by type; each is valid."""
    conversion = adapter.convert_hl7(adapter.parse(raw), "H1")
    for change in conversion.changes:
        assert check(change.resource, profile=True) == []
    kinds = {change.resource["resourceType"] for change in conversion.changes}
    return {kind: resources(conversion, kind) for kind in kinds}


def one(found: dict[str, list[dict[str, Any]]], kind: str) -> dict[str, Any]:
    """The only resource of a type."""
    [made] = found[kind]
    return made


def _is_same_person(patient: dict[str, Any]) -> None:
    values = {identifier["value"] for identifier in patient["identifier"]}
    assert values == {"P100", "EXT9", "ALT7", NATIONAL, "DL5"}
    systems = {identifier["value"]: identifier["system"] for identifier in patient["identifier"]}
    assert (systems["P100"], systems["DL5"]) == ("urn:huren:generic-h1:patient", "urn:huren:generic-h1:licence")
    assert systems[NATIONAL] == NATIONAL_ID_SYSTEM
    name, alias = patient["name"]
    assert (name["family"], name["given"], name["prefix"], name["suffix"]) == ("Doe", ["John", "Q"], ["Dr"], ["Jr"])
    assert (alias["family"], alias["given"]) == ("Roe", ["Jack"])
    assert (patient["gender"], patient["birthDate"]) == ("male", "1980-02-29") and "_birthDate" not in patient
    [address] = patient["address"]
    assert (address["city"], address["postalCode"], address["district"]) == ("Springfield", "62701", "Sangamon")
    [telephone] = patient["telecom"]
    assert "".join(filter(str.isdigit, telephone["value"])) == "2175551234"
    assert (telephone["system"], telephone["use"]) == ("phone", "home")


def _name(reference: dict[str, Any], people: list[dict[str, Any]]) -> str:
    return next(f"{person['identifier'][0]['value']} {person['name'][0]['family']}" for person in people
                if reference["reference"] == f"Practitioner/{person['id']}")


def _instant(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


# ---------------------------------------------------------------- the same in every version

@each_version
def test_an_admission(version: str, generic: Adapter) -> None:
    """ADT^A01: the patient, the visit with its doctor, the bed."""
    found = meaning(Sender(version).admission(), generic)
    _is_same_person(one(found, "Patient"))
    visit = one(found, "Encounter")
    assert (visit["status"], visit["class"]["code"], visit["identifier"][0]["value"]) == ("in-progress", "IMP", "V1")
    assert _instant(visit["period"]["start"]) == "2024-01-01 04:00"
    [doctor] = visit["participant"]
    assert _name(doctor["individual"], found["Practitioner"]) == "D1 Smith"
    assert doctor["type"][0]["coding"][0]["code"] == "ATND"
    assert {"W1", "R2", "B3"} <= {place["name"] for place in found["Location"]}
    assert [place["status"] for place in visit["location"]] == ["active"]


@each_version
def test_an_order(version: str, generic: Adapter) -> None:
    """ORM^O01 and OML^O21: what, how urgent, when, who asks, of which sample and why."""
    found = meaning(Sender(version).order(), generic)
    _is_same_person(one(found, "Patient"))
    order = one(found, "ServiceRequest")
    assert (order["status"], order["intent"], order["priority"]) == ("active", "order", "stat")
    assert (order["code"]["coding"][0]["code"], order["code"]["text"]) == ("CBC", "Blood count")
    assert [number["value"] for number in order["identifier"]] == ["PL1"]
    assert _instant(order["authoredOn"]) == "2024-01-02 02:00"
    assert _instant(order["occurrenceDateTime"]) == "2024-01-03 00:00"
    assert _name(order["requester"], found["Practitioner"]) == "D1 Smith"
    assert order["supportingInfo"] == [{"display": "fever"}]
    assert one(found, "Specimen")["type"]["coding"][0]["code"] == "BLD"
    assert order["specimen"] == [{"reference": f"Specimen/{one(found, 'Specimen')['id']}"}]


@each_version
def test_a_report(version: str, generic: Adapter) -> None:
    """ORU^R01: a number with its unit, range and flag, a code, a text; who asked, measured and read."""
    found = meaning(Sender(version).report(), generic)
    _is_same_person(one(found, "Patient"))
    report, people = one(found, "DiagnosticReport"), found["Practitioner"]
    assert (report["status"], report["category"][0]["coding"][0]["code"]) == ("final", "HM")
    assert _instant(report["effectiveDateTime"]) == "2024-01-02 00:00"
    assert _instant(report["issued"]) == "2024-01-02 02:00"
    assert _name(report["resultsInterpreter"][0], people) == "D2 Fox"
    assert _name(one(found, "ServiceRequest")["requester"], people) == "D1 Smith"
    count, malaria, comment = found["Observation"]
    value = count["valueQuantity"]
    assert (str(value["value"]), value["code"], value["system"]) == ("11.20", "10*9/L", "http://unitsofmeasure.org")
    assert count["interpretation"][0]["coding"][0]["code"] == "H" and count["status"] == "final"
    limits = count["referenceRange"][0]
    assert (str(limits["low"]["value"]), str(limits["high"]["value"])) == ("4.0", "10.0")
    measured_by = [] if version == "2.1" else ["T1 Lee"]  # whose OBX ends with field 11
    assert [_name(who, people) for who in count["performer"] if "Practitioner" in who["reference"]] == measured_by
    assert malaria["valueCodeableConcept"]["coding"][0]["code"] == "NEG"
    assert comment["valueString"] == "checked by hand"
    assert [result["reference"].partition("/")[2] for result in report["result"]] == [
        made["id"] for made in found["Observation"]]


def test_a_hospital_that_changes_its_version_stays_the_same(generic: Adapter) -> None:
    """The patient, the visit, the order, the report and its results have one id in all versions: an upgrade of the
    sender makes no second patient and no second report."""
    kinds = ("Patient", "Encounter", "ServiceRequest", "DiagnosticReport", "Observation")
    ids = {tuple(made["id"] for kind in kinds for made in meaning(raw, generic).get(kind, ()))
           for version in VERSIONS for raw in [Sender(version).report()]}
    assert len(ids) == 1
    orders = {one(meaning(Sender(version).order(), generic), "ServiceRequest")["id"] for version in VERSIONS}
    visits = {one(meaning(Sender(version).admission(), generic), "Encounter")["id"] for version in VERSIONS}
    report = next(iter(ids))
    assert len(orders) == len(visits) == 1 and orders | visits <= set(report)


@each_version
def test_a_refusal_in_the_senders_version(version: str, generic: Adapter) -> None:
    """ERR-1 to 2.4, ERR-2, 3 and 4 as of 2.5; MSA-3 to 2.6; MSH-9.3 as of 2.3.1; MSH-12 as it came."""
    raw = Sender(version).report().replace(b"CBC^Blood count^L", b"")
    with pytest.raises(GatewayError) as refusal:
        meaning(raw, generic)
    assert refusal.value.where == "OBR-4"
    error = hl7v2.AckError("101", "Required field missing", where=refusal.value.where, message=refusal.value.message)
    answer = hl7v2.parse(hl7v2.ack(hl7v2.peek(raw), "AE", error=error, now=datetime(2024, 1, 2, tzinfo=UTC),
                                   control_id="A1"))
    numbers = Sender(version)
    err, msa = answer.first("ERR"), answer.first("MSA")
    assert err is not None and msa is not None and answer.header.version_id == version
    told = (err.get(2, 1), err.get(2, 3), err.get(3)) if numbers.since(2, 5) else (
        err.get(1, 1), err.get(1, 3), err.first(1).part(4).get(1))
    assert told == ("OBR", "4", "101") and bool(err.raw_field(1)) is not numbers.since(2, 5)
    assert bool(msa.get(3)) is not numbers.since(2, 7)
    assert bool(answer.header.message_type[2]) is numbers.since(2, 3, 1)
