"""SIU: appointments, situation by situation, and their life over several messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_source import PID, make_source, resources, segment

from gateway import hl7v2, search
from gateway.adapter import load_all
from gateway.caller import GATEWAY
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.fhir import json as fhir_json
from gateway.fhir.resource import text as text_of
from gateway.hl7v2.siu import EVENTS
from gateway.pipeline import Pipeline
from gateway.recognition.issue import released
from gateway.source import Conversion, Resource
from gateway.store import Store

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"
V2 = "http://terminology.hl7.org/CodeSystem/v2-"
#: Booked for half an hour by its filler, for the order PL1.
SCH = segment("SCH", {1: "A1", 2: "B1", 7: "CHECKUP", 9: "30", 10: "min", 11: "^^^20240105090000^20240105093000",
                      25: "Booked", 26: "PL1"})
AIS = "AIS|1|A|CT-CHEST^胸部CT平扫|20240105090000|||30|min||Booked"
AIL = segment("AIL", {1: "1", 2: "A", 3: "CT^2号机房", 12: "Booked"})
AIP = "AIP|1|A|D7^王^技师|TECH^技师"
AIG = "AIG|1|A|CT2^2号CT^L|EQ^设备"


def siu(event: str, *segments: str, time: str = "20240102103000", version: str = "2.5.1") -> str:
    """A message; SCH stands for itself when left out."""
    msh = f"MSH|^~\\&|RIS|H1|GW|R|{time}||SIU^{event}^SIU_S12|{event}{time}|P|{version}||||||UNICODE UTF-8"
    sch = [] if any(line.startswith("SCH") for line in segments) else [SCH]
    return "\r".join([msh, *sch, *segments]) + "\r"


def convert(event: str, *segments: str, **changes: Any) -> Conversion:
    """The conversion; everything in it must be valid."""
    made = hl7v2.convert(hl7v2.parse(siu(event, *segments).encode()), make_source(**changes))
    for change in made.changes:
        check.require_valid(change.resource, profile=True)
    return made


def appointment(conversion: Conversion) -> Resource:
    """The Appointment, also where it is an amendment of nothing; it must keep R4's rules app-1 to app-4."""
    found = resources(conversion, "Appointment")
    found += [made for amendment in conversion.amendments if (made := amendment.change(None))]
    [one] = found
    return valid(one)


def valid(one: Resource) -> Resource:
    """R4 appointment.html, app-1 to app-4, which the check of every resource does not know."""
    check.require_valid(one, profile=True)
    times = [name in one or f"_{name}" in one for name in ("start", "end")]
    assert times[0] == times[1]
    assert all(times) or one["status"] in ("proposed", "cancelled", "waitlist", "entered-in-error")
    assert "cancelationReason" not in one or one["status"] == "cancelled"
    assert all("actor" in participant or "type" in participant for participant in one["participant"])
    return one


def made_of(*fields: tuple[int, str], **changes: Any) -> Resource:
    """The Appointment of a booking whose SCH has only these fields beside its number."""
    return appointment(convert("S12", segment("SCH", {2: "B1", **dict(fields)}), AIS, **changes))


# ---------------------------------------------------------------- one message

def test_a_booking() -> None:
    """S12: numbers, status, time, service, who takes part and where, and the order that it is for."""
    pv1 = segment("PV1", {2: "O", 19: "V1"})
    made = convert("S12", PID, pv1, "DG1|1||R91^肺部阴影^I10", "RGS|1", AIS, AIG, AIL, AIP)
    one = appointment(made)
    assert [(i["type"]["coding"][0]["code"], i["system"], i["value"]) for i in one["identifier"]] == [
        ("PLAC", "urn:huren:h1:appointment-placer", "A1"), ("FILL", "urn:huren:h1:appointment", "B1")]
    assert (one["status"], one["start"], one["end"], one["minutesDuration"]) == \
        ("booked", "2024-01-05T09:00:00+08:00", "2024-01-05T09:30:00+08:00", 30)
    assert one["serviceType"][0]["coding"][0]["code"] == "CT-CHEST"
    assert one["appointmentType"]["coding"] == [{"system": f"{V2}0276", "code": "CHECKUP",
                                                 "display": "A routine check-up"}]
    assert one["reasonCode"][0]["coding"][0]["code"] == "R91"
    patient, thing, place, person = one["participant"]
    assert patient["actor"]["reference"] == f"Patient/{resources(made, 'Patient')[0]['id']}"
    assert thing["actor"]["display"] == "2号CT" and thing["actor"]["identifier"]["value"] == "CT2"
    assert place["actor"]["display"] == "CT 2号机房" and place["actor"]["reference"].startswith("Location/")
    assert person["actor"]["display"] == "王技师" and person["type"][0]["text"] == "技师"
    assert {p["status"] for p in one["participant"]} == {"accepted"}
    [encounter] = resources(made, "Encounter")
    assert encounter["status"] == "planned"
    assert encounter["appointment"] == [{"reference": f"Appointment/{one['id']}"}]
    assert {"reference": f"Appointment/{one['id']}"} in resources(made, "Provenance")[0]["target"]
    assert [c.on_older for c in made.changes if c.resource["resourceType"] == "Appointment"] == ["refuse"]


def test_it_is_based_on_the_order_that_an_order_message_makes() -> None:
    """SCH-26 gives the id of the order's ServiceRequest; where a form shares its number, with the service; SCH-27
    alone with the service too."""
    def ordered(line: str, **changes: Any) -> str:
        raw = "\r".join(("MSH|^~\\&|HIS|H1|GW|R|20240101||ORM^O01|O1|P|2.5", PID, line, "OBR|1|||CT-CHEST^胸部CT平扫"))
        [order] = resources(hl7v2.convert(hl7v2.parse(raw.encode()), make_source(**changes)), "ServiceRequest")
        return f"ServiceRequest/{order['id']}"

    one = appointment(convert("S12", AIS))
    assert [r["reference"] for r in one["basedOn"]] == [ordered("ORC|NW|PL1")]
    assert one["basedOn"][0]["identifier"]["value"] == "PL1"
    shared: dict[str, Any] = {"habits": {"orders_share_number": True}}
    assert [r["reference"] for r in appointment(convert("S12", AIS, **shared))["basedOn"]] == \
        [ordered("ORC|NW|PL1", **shared)]
    assert made_of((27, "F1"))["basedOn"][0]["reference"] == ordered("ORC|SN||F1")
    alone = appointment(convert("S12", segment("SCH", {2: "B1", 27: "F1"}), AIL))
    assert alone["basedOn"] == [{"type": "ServiceRequest", "identifier": alone["basedOn"][0]["identifier"]}]
    assert len(made_of((26, "PL1~PL2"))["basedOn"]) == 2


@pytest.mark.parametrize("event, sent, status", [
    ("S12", "Booked", "booked"), ("S12", "", "booked"), ("S12", "PENDING", "pending"), ("S12", "Waitlist", "waitlist"),
    ("S14", "Started", "checked-in"), ("S14", "Complete", "fulfilled"), ("S14", "Noshow", "noshow"),
    ("S14", "Cancelled", "cancelled"), ("S14", "Dc", "cancelled"), ("S14", "Deleted", "entered-in-error"),
    ("S13", "Overbook", "booked"), ("S18", "Booked", "booked"), ("S15", "Booked", "cancelled"),
    ("S16", "", "cancelled"), ("S17", "", "entered-in-error"), ("S26", "Booked", "noshow")])
def test_status(event: str, sent: str, status: str) -> None:
    """Table 0278; the events that end an appointment count more; everybody who took part is then free."""
    one = appointment(convert(event, segment("SCH", {2: "B1", 6: "P^病人要求", 25: sent}), PID, AIS, AIL))
    assert one["status"] == status
    assert ("cancelationReason" in one) is (status == "cancelled")
    expected = {"pending": "needs-action", "waitlist": "needs-action", "cancelled": "declined",
                "entered-in-error": "declined", "noshow": "declined"}.get(status, "accepted")
    assert one["participant"][0]["status"] == expected


def test_a_status_that_nobody_knows() -> None:
    """The event counts, with a remark; the manifest's table comes first."""
    made = convert("S12", segment("SCH", {2: "B1", 25: "已预约"}), AIS)
    assert appointment(made)["status"] == "booked" and [r.where for r in made.remarks] == ["SCH-25"]
    made = convert("S12", segment("SCH", {2: "B1", 25: "排队"}), AIS, tables={"SCH-25": {"排队": "Waitlist"}})
    assert appointment(made)["status"] == "waitlist" and not made.remarks


def test_a_resource_may_have_a_status_of_its_own() -> None:
    """AIP-12 and the like; tentative by SCH-8."""
    one = appointment(convert("S12", PID, f"{AIP}||||||||Pending", AIL))
    assert [p["status"] for p in one["participant"]] == ["accepted", "needs-action", "accepted"]
    assert appointment(convert("S12", segment("SCH", {2: "B1", 8: "Tentative"}), PID, AIL))["participant"][0][
        "status"] == "tentative"


@pytest.mark.parametrize("seventh, eighth, style, reason", [
    ("ROUTINE", "", f"{V2}0276|ROUTINE", None), ("", "ROUTINE", f"{V2}0276|ROUTINE", None),
    ("Followup", "Normal", f"{V2}0276|FOLLOWUP", None), ("X^体检", "Normal", f"{V2}0277|Normal", "X"),
    ("X^体检", "", None, "X"), ("", "VIP^专家号", "urn:huren:h1:table:SCH-8|VIP", None)])
def test_style_and_reason(seventh: str, eighth: str, style: str | None, reason: str | None) -> None:
    """A code of table 0276 is the type of the appointment wherever it stands; another SCH-7 is the reason."""
    one = made_of((7, seventh), (8, eighth))
    coding = one.get("appointmentType", {}).get("coding", [{}])[0]
    assert (f"{coding['system']}|{coding['code']}" if coding else None) == style
    assert (one["reasonCode"][0]["coding"][0]["code"] if "reasonCode" in one else None) == reason


# ---------------------------------------------------------------- when

def times(*segments: str, version: str = "2.5.1") -> tuple[str | None, str | None, int | None]:
    """Start, end and minutes."""
    raw = siu("S12", *segments, version=version).encode()
    one = appointment(hl7v2.convert(hl7v2.parse(raw), make_source()))
    return one.get("start"), one.get("end"), one.get("minutesDuration")


def test_where_the_time_stands() -> None:
    """TQ1, else SCH-11, else the first of the services and resources; the end by the duration where none is sent."""
    nine, half, ten = (f"2024-01-05T{clock}:00+08:00" for clock in ("09:00", "09:30", "10:00"))
    sch = segment("SCH", {2: "B1", 11: "^^^20240105090000^20240105093000"})
    assert times(sch, AIL) == (nine, half, None)
    assert times(sch, segment("TQ1", {7: "202401051000", 8: "202401051030"}), AIL)[0] == ten
    assert times(sch, AIL, version="2.3") == (nine, half, None)
    bare = segment("SCH", {2: "B1"})
    assert times(bare, "AIL|1|A|CT|||20240105100000|||1|h", AIS) == (nine, "2024-01-05T10:00:00+08:00", 60)
    assert times(segment("SCH", {2: "B1", 9: "1800", 10: "s", 11: "^^^202401050900"}), AIL) == (nine, half, 30)
    assert times(segment("SCH", {2: "B1", 9: "30", 10: "分钟", 11: "^^^202401050900"}), AIL) == (nine, half, 30)


def test_a_duration_that_is_not_sure() -> None:
    """A number without unit, of an unknown one, or of less than a minute says nothing; the end is then unknown."""
    for fields in ({9: "30"}, {9: "30", 10: "x"}, {9: "30", 10: "s"}, {9: "-5", 10: "min"}, {9: "a", 10: "min"}):
        one = appointment(convert("S12", segment("SCH", {2: "B1", 11: "^^^202401050900", **fields}), AIL))
        assert "minutesDuration" not in one and "end" not in one
        assert one["_end"]["extension"][0]["valueCode"] == "unknown"


def test_an_end_that_cannot_be_written() -> None:
    """Beyond the year 9999 the end is unknown; more minutes than FHIR can write say nothing."""
    for day, minutes, said in (("99991231", "1440", 1440), ("20240105", "2147483647", 2147483647),
                               ("20240105", "2147483648", None)):
        one = appointment(convert("S12", segment("SCH", {2: "B1", 9: minutes, 10: "min", 11: f"^^^{day}0900"}), AIL))
        assert "end" not in one or said == 2147483647 and one["end"].startswith("6107")
        assert one.get("minutesDuration") == said


def test_a_day_without_a_time_of_day() -> None:
    """An instant must not pretend: the day is what was requested."""
    one = appointment(convert("S12", segment("SCH", {2: "B1", 11: "^^^20240105"}), AIL))
    assert one["requestedPeriod"] == [{"start": "2024-01-05"}] and "start" not in one and "_start" in one


def test_times_that_cannot_be() -> None:
    """No such day is INVALID at its field; an end before the start is left out with a remark."""
    with pytest.raises(GatewayError) as refused:
        convert("S12", segment("SCH", {2: "B1", 11: "^^^20241305"}), AIL)
    assert (refused.value.category, refused.value.where) == (Category.INVALID, "SCH-11")
    made = convert("S12", segment("SCH", {2: "B1", 11: "^^^202401050900^202401050800"}), AIL)
    assert "end" not in appointment(made) and [r.where for r in made.remarks] == ["SCH-11"]


def test_a_cancellation_by_number_alone_leaves_the_order_of_a_shared_number_known() -> None:
    """Where one number stands for several orders, the service is told when it is booked and not when it is cancelled:
    the cancelled appointment still names the order, or its booking would never be freed."""
    shared: dict[str, Any] = {"habits": {"orders_share_number": True}}
    booked = appointment(convert("S12", AIS, **shared))
    [cancelled] = [a.change(booked) for a in convert("S15", **shared).amendments]
    assert cancelled is not None and (cancelled["status"], cancelled["basedOn"]) == ("cancelled", booked["basedOn"])
    [other] = [a.change(booked) for a in convert("S15", SCH.replace("PL1", "PL2"), **shared).amendments]
    assert other is not None and [r["identifier"]["value"] for r in other["basedOn"]] == ["PL2"]


# ---------------------------------------------------------------- what else

def test_without_a_patient() -> None:
    """A room is blocked for nobody yet; without anybody at all the hospital itself takes part."""
    one = appointment(convert("S12", AIL))
    assert len(one["participant"]) == 1 and "extension" not in one
    assert appointment(convert("S15"))["participant"] == [{"actor": {"display": "一号医院"}, "status": "declined"}]


def test_several_patients_and_groups() -> None:
    """A group therapy; what several RGS name again is named once; what is taken away (action D) is not there."""
    one = appointment(convert("S12", PID, "PID|2||P2^^^H1^MR||李^四", "RGS|1", AIS, AIL, "RGS|2", AIL, AIP,
                              "AIP|2|D|D8^赵^医生"))
    assert len(one["participant"]) == 4
    assert [e["url"].rpartition(".")[2] for e in one["extension"]] == ["subject"]


def test_notes_and_answers() -> None:
    """NTE behind SCH is the comment; all NTE are notes as the guide has them; OBX is information for the visit."""
    one = appointment(convert("S12", "NTE|1||空腹", PID, "OBX|1|NM|W^体重||62|kg", AIS, "NTE|1||憋尿"))
    assert one["comment"] == "空腹"
    assert [e["valueAnnotation"]["text"] for e in one["extension"] if "valueAnnotation" in e] == ["空腹", "憋尿"]
    assert one["supportingInformation"] == [{"display": "体重: 62 kg"}]


def test_numbers() -> None:
    """SCH-2, else SCH-1, with the occurrence of one that repeats; neither is INVALID, and so is no SCH."""
    ids = [appointment(convert("S12", segment("SCH", fields), AIL))["id"]
           for fields in ({1: "A", 2: "B"}, {2: "B"}, {1: "B"}, {2: "B", 3: "2"}, {2: "B", 3: "0"})]
    assert ids[0] == ids[1] == ids[4] and len(set(ids)) == 3
    for segments, where in (((segment("SCH", {7: "ROUTINE"}), AIL), "SCH-2"),):
        with pytest.raises(GatewayError) as refused:
            convert("S12", *segments)
        assert (refused.value.category, refused.value.where) == (Category.INVALID, where)
    with pytest.raises(GatewayError) as refused:
        hl7v2.convert(hl7v2.parse(siu("S12", AIL).replace(SCH, "EVN|S12").encode()), make_source())
    assert refused.value.where == "SCH"


def test_events_that_are_no_appointment() -> None:
    """S23 blocks a schedule: UNSUPPORTED, with what is taken."""
    with pytest.raises(GatewayError) as refused:
        convert("S23", AIL)
    assert (refused.value.category, refused.value.detail) == (Category.UNSUPPORTED, "event")
    assert all(event in refused.value.message for event in EVENTS)


def test_public_messages_are_accepted() -> None:
    """Every public SIU."""
    if not CORPUS.is_dir():
        pytest.skip("the public messages are not beside this repository")
    adapters = load_all([SHIPPED_ADAPTERS], "generic")
    taken = 0
    for path in sorted(CORPUS.rglob("*.hl7")):
        for raw in hl7v2.split(path.read_bytes()):
            if b"SIU" not in raw[:200] or (header := hl7v2.peek(raw)).message_type[0] != "SIU":
                continue
            adapter = adapters.for_hl7(header.sending_facility, header.sending_application, "")
            made = adapter.convert_hl7(adapter.parse(raw), header.sending_facility)
            for change in made.changes:
                check.require_valid(change.resource, profile=True)
            appointment(made)
            taken += 1
    assert taken == 18


# ---------------------------------------------------------------- over time

class Hospital:
    """A hospital whose messages go through the pipeline."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.store = store
        self.pipeline = Pipeline(settings, store, load_all([SHIPPED_ADAPTERS], "generic"))

    def send(self, event: str, time: str, *segments: str) -> str | None:
        """The category of the answer, None when it was stored."""
        return self.pipeline.receive_hl7(siu(event, *segments, time=time).encode(), "10.0.0.9:1").category

    def appointment(self, **query: str) -> Resource:
        """The only Appointment that a search finds."""
        [row] = search.search(self.store, GATEWAY, "Appointment", list(query.items())).rows
        return valid(fhir_json.loads(text_of(row.resource_type, row.id, row.version, row.updated, row.tail)))


@pytest.fixture
def hospital(settings: Settings, store: Store) -> Hospital:
    """Any sender."""
    return Hospital(settings, store)


def moved(hour: str, **fields: str) -> str:
    """SCH at another hour."""
    more = {int(name.removeprefix("f")): value for name, value in fields.items()}
    return segment("SCH", {2: "B1", 11: f"^^^20240105{hour}0000^20240105{hour}3000", **more})


def test_the_life_of_an_appointment(hospital: Hospital) -> None:
    """Booked, moved, cancelled with nothing but its number: who and what it was for stay."""
    assert hospital.send("S12", "20240102100000", PID, AIS, AIL, AIP) is None
    assert hospital.send("S13", "20240102110000", moved("10"), PID) is None
    one = hospital.appointment()
    assert (one["start"], one["status"]) == ("2024-01-05T10:00:00+08:00", "booked")
    assert len(one["participant"]) == 3 and one["serviceType"] and one["basedOn"] and "minutesDuration" not in one
    assert hospital.send("S15", "20240102120000", segment("SCH", {2: "B1", 6: "P^病人要求"})) is None
    one = hospital.appointment()
    assert (one["status"], one["start"]) == ("cancelled", "2024-01-05T10:00:00+08:00")
    assert one["cancelationReason"]["text"] == "病人要求" and len(one["participant"]) == 3
    assert {p["status"] for p in one["participant"]} == {"declined"} and one["meta"]["versionId"] == "3"
    assert hospital.send("S14", "20240102130000", moved("11"), PID, AIS, AIL) is None
    one = hospital.appointment()
    assert (one["status"], len(one["participant"])) == ("booked", 2) and "cancelationReason" not in one


def test_an_older_message_never_undoes_a_newer_one(hospital: Hospital) -> None:
    """With resources told or not: CONFLICT."""
    assert hospital.send("S15", "20240102120000", segment("SCH", {2: "B1"})) is None
    assert hospital.send("S12", "20240102100000", PID, AIS) == "conflict"
    assert hospital.send("S14", "20240102110000", moved("10")) == "conflict"
    assert hospital.appointment()["status"] == "cancelled"


def test_an_appointment_is_found_as_r4_says(hospital: Hospital) -> None:
    """By patient (also by another number of his), place, practitioner, day, status, order, number, service."""
    pid = PID.replace("P1^^^H1^MR", "P1^^^H1^MR~11010119800229001X^^^^NI")
    hospital.send("S12", "20240102100000", pid, AIS, AIL, AIP)
    one = hospital.appointment()
    patient, place, person = (p["actor"]["reference"] for p in one["participant"])
    for query in ({"patient": patient}, {"actor": patient}, {"location": place}, {"practitioner": person},
                  {"date": "2024-01-05"}, {"status": "booked"}, {"based-on": one["basedOn"][0]["reference"]},
                  {"identifier": "B1"}, {"service-type": "CT-CHEST"}, {"part-status": "accepted"},
                  {"appointment-type": "CHECKUP"}, {"patient.identifier": "P1"},
                  {"patient.identifier": "11010119800229001X"}):
        assert hospital.appointment(**query)["id"] == one["id"], query
    row = hospital.store.read("Appointment", one["id"], GATEWAY)
    assert row is not None
    assert row.person == hospital.store.persons_of([patient.removeprefix("Patient/")])[patient.removeprefix("Patient/")]


def test_recognition_frees_what_was_booked(hospital: Hospital) -> None:
    """The booking of an order is found by the order, whichever came first, and given back."""
    order = "\r".join(("MSH|^~\\&|HIS|H1|GW|R|20240101||ORM^O01|O1|P|2.5||||||UNICODE UTF-8", PID, "ORC|NW|PL1",
                       "OBR|1|PL1||CT-CHEST^胸部CT平扫")) + "\r"
    hospital.send("S12", "20240102100000", PID, AIS, AIL)
    assert hospital.pipeline.receive_hl7(order.encode(), "10.0.0.9:1").category is None
    [request] = search.search(hospital.store, GATEWAY, "ServiceRequest", [("identifier", "PL1")]).rows
    freed = released(hospital.appointment(**{"based-on": f"ServiceRequest/{request.id}"}))
    assert freed is not None and valid(freed)["status"] == "cancelled"
