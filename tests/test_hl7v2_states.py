"""The life of a report through the store: preliminary, final, corrected, cancelled, deleted, for the wrong patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.adapter import load_all
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.fhir.json import loads
from gateway.fhir.resource import text
from gateway.pipeline import Pipeline
from gateway.search import search
from gateway.store import Store
from gateway.store.model import Receipt
from tests.support_source import PID, segment

MANIFEST = """
[institution]
id = "h1"
name = "一号医院"
code_system = "urn:huren:h1:item"
[hl7v2]
sending_facility = ["H1"]
"""


class Hospital:
    """A hospital that sends reports, and what is stored of them."""

    def __init__(self, settings: Settings, store: Store, folder: Path, more: str = "") -> None:
        folder.mkdir(parents=True)
        (folder / "manifest.toml").write_text(MANIFEST + more, encoding="utf-8")
        (folder / "codes.csv").write_text("local,item,display,unit\n", encoding="utf-8")
        self.store = store
        self.pipeline = Pipeline(settings, store, load_all([folder.parent]))
        self._sent = 0

    def send(self, status: str, at: str, *results: str, pid: str = PID, number: str = "F1", sent: str = "") -> Receipt:
        """One message: OBR-25, OBR-22 (hours and minutes) and results as ``code value status``."""
        self._sent += 1
        lines = [f"MSH|^~\\&|LIS|H1|GW|R|20240102{sent or at}00||ORU^R01|M{self._sent}|P|2.5.1||||||UNICODE UTF-8", pid,
                 segment("OBR", {2: "P" + number, 3: number, 4: "CBC^血常规^L", 7: "20240102080000",
                                      22: f"20240102{at}00" if at else "", 24: "HM", 25: status})]
        for place, result in enumerate(results, 1):
            code, value, state = result.split(" ")
            lines.append(f"OBX|{place}|{'NM' if value else ''}|{code}^{code}^L||{value}|g/L|||||{state}")
        return self.pipeline.receive_hl7("\r".join(lines).encode(), "127.0.0.1:4000")

    def now(self, resource_type: str, query: str = "") -> list[dict[str, Any]]:
        """What a search finds now."""
        return [_resource(row) for row in search(self.store, GATEWAY, resource_type, query).rows]

    def states(self) -> dict[str, str]:
        """The Observations by code: value and status."""
        return {one["code"]["coding"][0]["code"]: f"{one.get('valueQuantity', {}).get('value', '-')} {one['status']}"
                for one in self.now("Observation")}

    def report(self, query: str = "") -> dict[str, Any]:
        """The only report."""
        [found] = self.now("DiagnosticReport", query)
        return found

    def results(self) -> list[str]:
        """Codes of the only report's results."""
        codes = {f"Observation/{one['id']}": one["code"]["coding"][0]["code"] for one in self.now("Observation")}
        return [codes[one["reference"]] for one in self.report().get("result", [])]

    def history(self, resource: dict[str, Any]) -> list[str]:
        """The statuses of all versions, the oldest first."""
        rows = self.store.history(resource["resourceType"], resource["id"], GATEWAY, 50)
        return [_resource(row)["status"] for row in reversed(rows)]


def _resource(row: Any) -> dict[str, Any]:
    made: dict[str, Any] = loads(text(row.resource_type, row.id, row.version, row.updated, row.tail))
    return made


@pytest.fixture
def hospital(settings: Settings, store: Store, tmp_path: Path) -> Hospital:
    """A hospital whose messages follow the standard: OBX-11 says what becomes of a result."""
    return Hospital(settings, store, tmp_path / "adapters" / "h1")


@pytest.fixture
def whole(settings: Settings, store: Store, tmp_path: Path) -> Hospital:
    """A hospital whose every message is the whole report."""
    return Hospital(settings, store, tmp_path / "adapters" / "h1", 'omitted_results = "deleted"\n')


def accepted(receipt: Receipt) -> bool:
    """Whether it was stored."""
    return receipt.category is None


def test_a_report_lives_from_preliminary_to_cancelled(hospital: Hospital) -> None:
    """Each state is a version of the same resources; search finds the newest alone, history all."""
    for status, at, results in (("O", "0810", ()), ("P", "0900", ("WBC 5.1 P", "HGB  I")),
                                ("F", "1000", ("WBC 5.2 F", "HGB 130 F")), ("C", "1100", ("WBC 5.3 C", "HGB 130 F")),
                                ("C", "1130", ("WBC 5.3 A", "HGB 130 F")), ("X", "1200", ("WBC  X", "HGB  X"))):
        assert accepted(hospital.send(status, at, *results))
    report = hospital.report()
    assert hospital.history(report) == ["registered", "preliminary", "final", "corrected", "corrected", "cancelled"]
    assert hospital.states() == {"WBC": "- cancelled", "HGB": "- cancelled"}
    [wbc] = hospital.now("Observation", "code=WBC")
    assert hospital.history(wbc) == ["preliminary", "final", "corrected", "amended", "cancelled"]
    [hgb] = hospital.now("Observation", "code=HGB")  # the correction and the amendment leave it as it is
    assert hospital.history(hgb) == ["registered", "final", "cancelled"]
    assert len(hospital.now("DiagnosticReport", "status=final,corrected,preliminary")) == 0


def test_a_cancelled_report_stays_readable_in_its_history(hospital: Hospital) -> None:
    """The versions before keep value and status, and can be read one by one."""
    hospital.send("F", "1000", "WBC 5.2 F")
    hospital.send("X", "1200", "WBC  X")
    [wbc] = hospital.now("Observation")
    rows = hospital.store.history("Observation", wbc["id"], GATEWAY, 50)
    assert [_resource(row).get("valueQuantity", {}).get("value") for row in rows] == [None, _resource(rows[1])[
        "valueQuantity"]["value"]]
    assert str(_resource(rows[1])["valueQuantity"]["value"]) == "5.2"


def test_a_cancelled_report_without_results_cancels_what_was_sent(hospital: Hospital) -> None:
    """OBR-25 X says that there are none, whether or not OBX say so once more."""
    hospital.send("P", "0900", "WBC 5.1 P", "HGB 130 F")
    hospital.send("F", "0900", "ALT 9 F", number="F2")
    assert accepted(hospital.send("X", "1200"))
    assert hospital.states() == {"WBC": "5.1 cancelled", "HGB": "130 cancelled", "ALT": "9 final"}


def test_a_report_is_cancelled_under_another_number_of_the_patient(hospital: Hospital) -> None:
    """After a merge the message names the surviving number; the results are known by their report, code and OBX-4."""
    hospital.send("F", "0900", "WBC 5.1 F", "HGB 130 F")
    assert accepted(hospital.send("X", "1200", pid=OTHER))
    assert hospital.states() == {"WBC": "5.1 cancelled", "HGB": "130 cancelled"}


def test_an_older_message_never_overwrites_a_newer_one(hospital: Hospital) -> None:
    """By OBR-22: sent later, valid earlier is CONFLICT at OBR-22; nothing of it is stored."""
    hospital.send("C", "1100", "WBC 5.3 C")
    refused = hospital.send("F", "1000", "WBC 5.2 F", "HGB 130 F", sent="1300")
    assert (refused.category, refused.where) == ("conflict", "OBR-22")
    assert hospital.states() == {"WBC": "5.3 corrected"} and hospital.report()["status"] == "corrected"


def test_an_older_correction_never_overwrites_a_newer_one(hospital: Hospital) -> None:
    """A correction is put on top of what is stored, but only of what is older."""
    hospital.send("F", "0900", "WBC 5.1 F", "HGB 130 F")
    hospital.send("C", "1200", "WBC 5.4 C")
    refused = hospital.send("C", "1100", "HGB 128 C", sent="1300")
    assert (refused.category, refused.where) == ("conflict", "OBR-22")
    assert hospital.states() == {"WBC": "5.4 corrected", "HGB": "130 final"}


def test_without_obr_22_the_time_of_the_message_counts(hospital: Hospital) -> None:
    """MSH-7, and the refusal says so."""
    hospital.send("F", "", "WBC 5.2 F", sent="1200")
    refused = hospital.send("P", "", "WBC 5.1 P", sent="1100")
    assert (refused.category, refused.where) == ("conflict", "MSH-7")
    assert accepted(hospital.send("C", "", "WBC 5.3 C", sent="1300"))
    assert hospital.states() == {"WBC": "5.3 corrected"}


def test_the_same_message_under_a_new_number_changes_nothing(hospital: Hospital) -> None:
    """Also when newer states are stored of other reports, and also a correction."""
    hospital.send("F", "1000", "WBC 5.2 F", "HGB 130 F")
    hospital.send("C", "1100", "WBC 5.3 C")
    assert accepted(hospital.send("C", "1100", "WBC 5.3 C", sent="1400"))
    assert hospital.history(hospital.report()) == ["final", "corrected"]
    assert hospital.results() == ["WBC", "HGB"]


def test_a_deleted_result_is_entered_in_error(hospital: Hospital) -> None:
    """OBX-11 D: found no more among the final ones, readable in its history; the report stays."""
    hospital.send("F", "1000", "WBC 5.2 F", "HGB 130 F")
    assert accepted(hospital.send("C", "1100", "WBC 5.2 F", "HGB  D"))
    assert hospital.states() == {"WBC": "5.2 final", "HGB": "- entered-in-error"}
    assert hospital.report()["status"] == "corrected"
    [hgb] = hospital.now("Observation", "code=HGB")
    assert hospital.history(hgb) == ["final", "entered-in-error"]


def test_a_correction_leaves_what_it_omits(hospital: Hospital) -> None:
    """Results are updated by action codes: what a correction does not carry stays, and stays the report's."""
    hospital.send("F", "1000", "WBC 5.2 F", "HGB 130 F", "PLT 200 F")
    assert accepted(hospital.send("C", "1100", "WBC 5.3 C"))
    assert hospital.states() == {"WBC": "5.3 corrected", "HGB": "130 final", "PLT": "200 final"}
    assert hospital.results() == ["WBC", "HGB", "PLT"]


def test_a_snapshot_withdraws_what_it_omits(whole: Hospital) -> None:
    """``omitted_results = "deleted"``: only of the same report, only when it is complete, and never by an older one."""
    whole.send("F", "0900", "ALT 9 F", number="F2")
    whole.send("P", "0900", "WBC 5.1 P", "HGB 130 P", "PLT 200 P")
    assert accepted(whole.send("P", "0930", "WBC 5.1 P"))
    assert whole.states()["HGB"] == "130 preliminary"
    assert accepted(whole.send("F", "1000", "WBC 5.2 F", "HGB 130 F"))
    assert whole.states() == {"WBC": "5.2 final", "HGB": "130 final", "PLT": "200 entered-in-error", "ALT": "9 final"}
    assert accepted(whole.send("C", "1100", "WBC 5.2 F"))
    assert whole.states()["HGB"] == "130 entered-in-error"
    assert [len(one["result"]) for one in whole.now("DiagnosticReport", "status=corrected")] == [1]
    assert accepted(whole.send("C", "1200", "WBC 5.2 F", "HGB 131 C")) and whole.states()["HGB"] == "131 corrected"


OTHER = PID.replace("P1^", "P2^").replace("王^小明", "李^雷")


def test_results_of_the_wrong_patient_move_with_their_number(hospital: Hospital) -> None:
    """W takes them back; sent again for the right patient under the same number they are that one's, and only that."""
    hospital.send("F", "1000", "WBC 5.2 F", "HGB 130 F")
    assert accepted(hospital.send("C", "1100", "WBC  W", "HGB  W"))
    assert hospital.report()["status"] == "entered-in-error"
    assert hospital.states() == {"WBC": "- entered-in-error", "HGB": "- entered-in-error"}
    assert accepted(hospital.send("C", "1130", "WBC 5.2 C", pid=OTHER))
    right, wrong = (next(p["id"] for p in hospital.now("Patient") if p["identifier"][0]["value"] == n)
                    for n in ("P2", "P1"))
    [moved] = hospital.now("Observation", f"patient={right}")
    assert (str(moved["valueQuantity"]["value"]), moved["status"]) == ("5.2", "corrected")
    assert [one["status"] for one in hospital.now("Observation", f"patient={wrong}")] == ["entered-in-error"]
    assert hospital.now("DiagnosticReport", f"patient={wrong}") == []
    report = hospital.report(f"patient={right}")
    assert len(report["result"]) == 1  # the other patient's results do not come along
    assert hospital.history(report) == ["final", "entered-in-error", "corrected"]


def test_results_of_the_wrong_patient_stay_withdrawn_under_a_new_number(hospital: Hospital) -> None:
    """The right patient's report is another one; the wrong patient keeps what was taken back, marked as such."""
    hospital.send("F", "1000", "WBC 5.2 F")
    hospital.send("C", "1100", "WBC  W")
    assert accepted(hospital.send("F", "1130", "WBC 5.2 F", pid=OTHER, number="F2"))
    assert sorted(one["status"] for one in hospital.now("DiagnosticReport")) == ["entered-in-error", "final"]
    assert sorted(one["status"] for one in hospital.now("Observation")) == ["entered-in-error", "final"]


def test_a_report_with_some_wrong_results_is_not_wrong(hospital: Hospital) -> None:
    """Only when every result was the wrong patient's is the report."""
    assert accepted(hospital.send("C", "1100", "WBC  W", "HGB 130 F"))
    assert hospital.report()["status"] == "corrected"


def test_an_isolates_susceptibilities_are_found_by_search(hospital: Hospital) -> None:
    """They come days later: derived-from asks from the isolate, based-on from the order of the culture."""
    msh = "MSH|^~\\&|LIS|H1|GW|R|{at}||ORU^R01|{number}|P|2.5.1||||||UNICODE UTF-8"
    culture = segment("OBR", {2: "PL1", 3: "F1", 4: "BC^血培养^L", 7: "20240102", 22: "20240103080000", 24: "MB",
                              25: "P"})
    panel = segment("OBR", {3: "F2", 4: "AST^药敏^L", 7: "20240102", 22: "20240105080000", 24: "MB", 25: "F",
                            26: "ORG&鉴定&L^1", 29: "PL1^F1", 50: "BC^血培养^L"})
    for lines in ((msh.format(at="20240103080000", number="C1"), PID, culture,
                   "OBX|1|ST|ORG^鉴定^L|1|大肠埃希菌||||||P"),
                  (msh.format(at="20240105080000", number="C2"), PID, panel,
                   "OBX|1|NM|AMP^氨苄西林^L||32|ug/mL||R|||F")):
        assert accepted(hospital.pipeline.receive_hl7("\r".join(lines).encode(), "127.0.0.1:4000"))
    [isolate] = hospital.now("Observation", "code=ORG")
    [found] = hospital.now("Observation", f"derived-from=Observation/{isolate['id']}")
    assert found["code"]["text"] == "氨苄西林"
    [order] = hospital.now("ServiceRequest", "identifier=PL1")
    reports = hospital.now("DiagnosticReport", f"based-on=ServiceRequest/{order['id']}")
    assert {one["code"]["text"] for one in reports} == {"血培养", "药敏"}


def test_results_and_observations_of_a_specimen_are_found_by_it(hospital: Hospital) -> None:
    """specimen finds both; focus only what is said of the tube itself, which is no result of the report."""
    lines = ("MSH|^~\\&|LIS|H1|GW|R|20240102100000||OUL^R22|S1|P|2.5.1||||||UNICODE UTF-8", PID, "SPM|1|S1^S1F||SER",
             "OBX|1|NM|VOL^体积^L||2.5|mL|||||F", "OBR|1|PL1|F1|CBC^血常规^L|||20240102|||||||||||||||||HM|F",
             "OBX|1|NM|WBC^白细胞^L||5.1|g/L|||||F")
    assert accepted(hospital.pipeline.receive_hl7("\r".join(lines).encode(), "127.0.0.1:4000"))
    [specimen] = hospital.now("Specimen", "identifier=S1F")
    of_specimen = hospital.now("Observation", f"specimen=Specimen/{specimen['id']}")
    about = hospital.now("Observation", f"focus=Specimen/{specimen['id']}")
    assert {one["code"]["text"] for one in of_specimen} == {"体积", "白细胞"}
    assert [one["code"]["text"] for one in about] == ["体积"] and hospital.results() == ["WBC"]
