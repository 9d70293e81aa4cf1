"""MDM: documents as DocumentReference and Binary, situation by situation, and their life over several messages."""

from __future__ import annotations

import base64
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
from gateway.joining import Joining
from gateway.pipeline import Pipeline, document_key
from gateway.source import Conversion, Resource
from gateway.store import Store
from gateway.store.model import Put

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"
V2 = "http://terminology.hl7.org/CodeSystem/v2-"
TXA = segment("TXA", {1: "1", 2: "DS", 3: "TX", 4: "20240101090000", 6: "20240102083000", 9: "D1^张^医生", 12: "DOC1",
                      17: "AU", 19: "AV"})
PDF = b"%PDF-1.4 sample"
ED = f"OBX|9|ED|PDF^出院小结||^application^pdf^Base64^{base64.b64encode(PDF).decode()}||||||F"


def mdm(event: str, *segments: str, time: str = "20240102103000", control: str = "M1") -> str:
    """A message; PID stands for itself when left out."""
    msh = f"MSH|^~\\&|EMR|H1|GW|R|{time}||MDM^{event}^MDM_{event}|{control}|P|2.5.1||||||UNICODE UTF-8"
    pid = [] if any(line.startswith("PID") for line in segments) else [PID]
    return "\r".join([msh, f"EVN|{event}", *pid, *segments]) + "\r"


def convert(event: str, *segments: str, **changes: Any) -> Conversion:
    """The conversion; everything in it must be valid."""
    made = hl7v2.convert(hl7v2.parse(mdm(event, *segments).encode()), make_source(**changes))
    for change in made.changes:
        check.require_valid(change.resource, profile=True)
    return made


def document(conversion: Conversion) -> Resource:
    """The DocumentReference, also where it is an amendment of nothing."""
    found = resources(conversion, "DocumentReference")
    found += [made for amendment in conversion.amendments if (made := amendment.change(None))]
    [one] = found
    check.require_valid(one, profile=True)
    return one


def line(number: int, text: str, kind: str = "TX", status: str = "F") -> str:
    """A line of text."""
    return f"OBX|{number}|{kind}|BODY^正文||{text}||||||{status}"


# ---------------------------------------------------------------- one message

def test_a_document_with_its_content() -> None:
    """T02: number, type, states, people, times, visit; the lines of text are one Binary."""
    made = convert("T02", segment("PV1", {2: "I", 10: "CARD", 19: "V1"}), TXA, line(1, "第一行"), line(2, ""),
                   line(3, "第二行\\.br\\第三行", "FT"), line(4, "尾", "ST"))
    one = document(made)
    assert one["masterIdentifier"] == {"system": "urn:huren:h1:document", "value": "DOC1"}
    assert (one["status"], one["docStatus"]) == ("current", "final")
    assert one["type"]["coding"] == [{"system": f"{V2}0270", "code": "DS", "display": "Discharge summary"}]
    assert one["subject"] == resources(made, "Provenance")[0]["target"][0]
    assert one["date"] == "2024-01-02T08:30:00+08:00"
    assert [a["display"] for a in one["author"]] == ["张医生"] and one["custodian"] == {"reference": "Organization/h1"}
    assert one["context"]["period"] == dict.fromkeys(("start", "end"), "2024-01-01T09:00:00+08:00")
    assert one["context"]["encounter"][0]["reference"] == f"Encounter/{resources(made, 'Encounter')[0]['id']}"
    assert one["context"]["practiceSetting"]["text"] == "CARD"
    [content], [kept], [binary] = one["content"], made.documents, resources(made, "Binary")
    assert kept.data.decode() == "第一行\n\n第二行\n第三行\n尾"
    assert content["attachment"]["url"] == f"Binary/{kept.id}" == f"Binary/{binary['id']}"
    assert content["attachment"]["contentType"] == kept.content_type == binary["contentType"]
    assert content["attachment"]["creation"] == "2024-01-02T08:30:00+08:00"
    assert binary["securityContext"] == one["subject"] and "data" not in binary
    assert [c.resource["resourceType"] for c in made.changes].index("Binary") < \
        [c.resource["resourceType"] for c in made.changes].index("DocumentReference")


def test_several_contents_keep_their_order() -> None:
    """Text is one content at the place of its first line; each ED and each link is one; notes are the last."""
    link = "OBX|2|RP|IMG||https://pacs.example/1^^image^jpeg||||||F"
    made = convert("T02", TXA, ED, line(1, "一"), link, line(3, "二"), "NTE|1||备注")
    found = [c["attachment"] for c in document(made)["content"]]
    assert [a["contentType"].partition(";")[0] for a in found] == ["application/pdf", "text/plain", "image/jpeg",
                                                                   "text/plain"]
    assert found[0]["title"] == "出院小结" and found[2]["url"] == "https://pacs.example/1"
    assert [d.data for d in made.documents] == [PDF, "一\n二".encode(), "备注".encode()]


def test_other_values_are_lines_of_the_text() -> None:
    """A number with its unit, a code's text; deleted lines (OBX-11 D, W) are left out."""
    made = convert("T02", TXA, "OBX|1|NM|T^体温||36.5|Cel|||||F", "OBX|2|CE|DX^诊断||I10^高血压^ICD||||||F",
                   line(3, "错", status="D"), line(4, "错", status="W"), "OBX|5|SN|R||<^5|mg|||||F",
                   "OBX|6|RP|P||C:\\E\\scan\\E\\1.pdf||||||F")
    assert made.documents[0].data.decode() == "36.5 Cel\n高血压\n<5 mg\nC:\\scan\\1.pdf"


def test_a_document_about_images_and_orders() -> None:
    """OBR and ORC become a copy of the order; TXA-14 and 15 name orders too; 113014 names the study."""
    study = "1.2.840.113619.2.55.3"
    made = convert("T02", segment("ORC", {1: "SC", 2: "PL1", 3: "F1"}), segment("OBR", {4: "CT^胸部CT", 25: "F"}),
                   segment("TXA", {2: "DI", 12: "DOC1", 14: "PL1~PL2", 15: "F9"}),
                   f"OBX|1|HD|113014^DICOM Study^DCM||{study}||||||O", line(2, "未见异常"))
    [order] = resources(made, "ServiceRequest")
    related = document(made)["context"]["related"]
    assert related[0] == {"reference": f"ServiceRequest/{order['id']}"} and order["status"] == "completed"
    assert (related[1]["identifier"]["value"], related[1]["reference"]) == \
        ("PL2", f"ServiceRequest/{make_source().id_for('ServiceRequest', 'urn:huren:h1:placer|PL2')}")
    assert related[2]["identifier"]["value"] == "F9" and "reference" not in related[2]
    assert related[3]["reference"] == f"ImagingStudy/{make_source().id_for('ImagingStudy', study)}"
    assert made.documents[0].data.decode() == "未见异常"
    ordered = hl7v2.convert(hl7v2.parse("\r".join((
        "MSH|^~\\&|HIS|H1|GW|R|20240101||ORM^O01|O1|P|2.5", PID, "ORC|NW|PL1", "OBR|1|PL1||CT^胸部CT")).encode()),
        make_source())
    assert resources(ordered, "ServiceRequest")[0]["id"] == order["id"]


def test_who_signed() -> None:
    """TXA-22; without it TXA-10 where TXA-17 says that it is authenticated; never the one who is yet to sign."""
    def signer(fields: dict[int, str]) -> str | None:
        one = document(convert("T02", segment("TXA", {2: "DS", 12: "D", **fields}), line(1, "x")))
        return one.get("authenticator", {}).get("display")

    assert signer({10: "A^甲", 17: "AU", 22: "B^乙^^^^^^^^^^^^^20240102"}) == "乙"
    assert signer({10: "A^甲", 17: "LA"}) == "甲"
    assert signer({10: "A^甲", 17: "PA"}) is None


@pytest.mark.parametrize("event, completion, availability, expected", [
    ("T02", "AU", "AV", ("current", "final")), ("T02", "LA", "", ("current", "final")),
    ("T02", "DI", "UN", ("current", "preliminary")), ("T02", "IP", "OB", ("superseded", "preliminary")),
    ("T02", "", "", ("current", None)), ("T08", "AU", "AV", ("current", "amended")),
    ("T08", "PA", "AV", ("current", "preliminary")), ("T04", "AU", "CA", ("entered-in-error", "entered-in-error")),
    ("T11", "AU", "AV", ("entered-in-error", "entered-in-error"))])
def test_states(event: str, completion: str, availability: str, expected: tuple[str, str | None]) -> None:
    """Tables 0271 and 0273; an edit of a signed document is amended; cancelled is entered in error."""
    one = document(convert(event, segment("TXA", {2: "DS", 12: "D", 17: completion, 19: availability}), line(1, "x")))
    assert (one["status"], one.get("docStatus")) == expected


def test_states_that_nobody_knows() -> None:
    """They are left out with a remark; the manifest's tables come first."""
    txa = segment("TXA", {2: "DS", 12: "D", 17: "已签名", 19: "XX"})
    made = convert("T02", txa, line(1, "x"))
    assert document(made)["status"] == "current" and "docStatus" not in document(made)
    assert [remark.where for remark in made.remarks] == ["TXA-19", "TXA-17"]
    made = convert("T02", txa, line(1, "x"), tables={"TXA-17": {"已签名": "LA"}, "TXA-19": {"XX": "OB"}})
    assert (document(made)["status"], document(made)["docStatus"], made.remarks) == ("superseded", "final", [])


def test_type_and_confidentiality() -> None:
    """The hospital's own type stays its own; the manifest may name the standard's; a label is a v3 code beside it."""
    local = document(convert("T02", segment("TXA", {2: "CYXJ^出院小结", 12: "D", 18: "R"}), line(1, "x")))
    assert local["type"]["coding"] == [{"system": "urn:huren:h1:table:TXA-2", "code": "CYXJ", "display": "出院小结"}]
    assert [c["code"] for c in local["securityLabel"][0]["coding"]] == ["R", "R"]
    mapped = document(convert("T02", segment("TXA", {2: "CYXJ^出院小结", 12: "D"}), line(1, "x"),
                              tables={"TXA-2": {"CYXJ": "DS"}}))
    assert mapped["type"]["coding"][0] == {"system": f"{V2}0270", "code": "DS"}
    assert mapped["type"]["coding"][1]["code"] == "CYXJ"


@pytest.mark.parametrize("event, code", [("T05", "appends"), ("T06", "appends"), ("T09", "replaces"),
                                         ("T10", "replaces"), ("T02", None), ("T04", None)])
def test_what_a_document_relates_to(event: str, code: str | None) -> None:
    """TXA-13 by the event: an addendum, a replacement; of any other it is related, for nobody says how."""
    one = document_of(convert(event, segment("TXA", {2: "DS", 12: "D2", 13: "DOC1"}), line(1, "x")))
    parent = f"DocumentReference/{make_source().id_for('DocumentReference', 'urn:huren:h1:document|DOC1')}"
    if code:
        assert [(r["code"], r["target"]["reference"]) for r in one["relatesTo"]] == [(code, parent)]
    else:
        assert "relatesTo" not in one and one["context"]["related"][0]["reference"] == parent


def document_of(conversion: Conversion) -> Resource:
    """The DocumentReference that the message carries."""
    [one] = resources(conversion, "DocumentReference")
    return one


def test_without_content_the_attachment_says_so() -> None:
    """T01: R4 requires an attachment; its name stays."""
    made = convert("T01", segment("TXA", {2: "DS", 12: "D", 16: "a.rtf"}))
    [content] = document(made)["content"]
    assert content["attachment"]["extension"][0]["valueCode"] == "unknown"
    assert content["attachment"]["title"] == "a.rtf" and not made.documents
    assert {"reference": f"DocumentReference/{document(made)['id']}"} in resources(made, "Provenance")[0]["target"]


def test_a_document_without_a_number_of_its_own() -> None:
    """The order's number and the type stand for it, the filler's first; without any it is INVALID."""
    first = document(convert("T02", segment("ORC", {2: "PL1", 3: "F1"}), segment("TXA", {2: "DS"}), line(1, "x")))
    again = document(convert("T02", segment("TXA", {2: "DS", 15: "F1"}), line(1, "y")))
    placer = document(convert("T02", segment("TXA", {2: "DS", 14: "PL1"}), line(1, "y")))
    assert first["id"] == again["id"] != placer["id"] and "masterIdentifier" not in first
    for wrong, where in ((segment("TXA", {2: "DS"}), "TXA-12"), ("PV1||O", "TXA")):
        with pytest.raises(GatewayError) as refused:
            convert("T02", wrong, line(1, "x"))
        assert (refused.value.category, refused.value.where) == (Category.INVALID, where)
    with pytest.raises(GatewayError) as refused:
        hl7v2.convert(hl7v2.parse(mdm("T02", TXA).replace(PID, "PV1||O").encode()), make_source())
    assert refused.value.where == "PID"


def test_times_are_as_exact_as_they_are() -> None:
    """An instant needs the minute: TXA-6, else 8, 7, 4; an impossible time is left out with a remark."""
    def date(fields: dict[int, str]) -> str | None:
        return document(convert("T02", segment("TXA", {2: "DS", 12: "D", **fields}), line(1, "x"))).get("date")

    assert date({6: "20240102", 8: "202401031200", 4: "20240101"}) == "2024-01-03T12:00:00+08:00"
    assert date({6: "20240102"}) is None
    made = convert("T02", segment("TXA", {2: "DS", 12: "D", 4: "20241399"}), line(1, "x"))
    assert [remark.where for remark in made.remarks] == ["TXA-4"] and "period" not in document(made).get("context", {})


def test_several_documents_of_one_message() -> None:
    """Each TXA with the OBX behind it."""
    made = convert("T02", TXA, line(1, "一"), segment("TXA", {2: "PN", 12: "DOC2"}), line(2, "二"))
    assert [d["masterIdentifier"]["value"] for d in resources(made, "DocumentReference")] == ["DOC1", "DOC2"]
    assert [d.data.decode() for d in made.documents] == ["一", "二"]


def test_documents_of_one_message_may_be_of_each_other() -> None:
    """One replaces the other, whichever stands first; a number twice counts once; nothing is its own parent."""
    old, new = segment("TXA", {2: "DS", 12: "A"}), segment("TXA", {2: "DS", 12: "B", 13: "A"})
    for pair in ((old, line(1, "旧"), new, line(2, "新")), (new, line(1, "新"), old, line(2, "旧"))):
        found = {d["masterIdentifier"]["value"]: d["status"] for d in resources(convert("T10", *pair),
                                                                                "DocumentReference")}
        assert found == {"A": "superseded", "B": "current"}
    bare = convert("T09", old, new)
    assert [made["status"] for a in bare.amendments if (made := a.change(None))] == ["superseded", "current"]
    twice = convert("T02", old, line(1, "一"), old, line(2, "二"))
    assert len(resources(twice, "DocumentReference")) == 1 and [r.where for r in twice.remarks] == ["TXA-12"]
    assert "relatesTo" not in document(convert("T10", segment("TXA", {2: "DS", 12: "A", 13: "A"}), line(1, "x")))


def test_broken_base64_is_refused() -> None:
    """A document that is cut off is not kept as if it were whole."""
    with pytest.raises(GatewayError) as refused:
        convert("T02", TXA, "OBX|1|ED|PDF||^application^pdf^Base64^JVBER||||||F")
    assert (refused.value.category, refused.value.where) == (Category.INVALID, "OBX-5")


def test_public_messages_are_accepted() -> None:
    """Every public MDM with a TXA and whole Base64; the others are refused for what they lack."""
    if not CORPUS.is_dir():
        pytest.skip("the public messages are not beside this repository")
    adapters = load_all([SHIPPED_ADAPTERS], "generic")
    ends: dict[str, int] = {}
    for path in sorted(CORPUS.rglob("*.hl7")):
        for raw in hl7v2.split(path.read_bytes()):
            if b"MDM" not in raw[:200] or hl7v2.peek(raw).message_type[0] != "MDM":
                continue
            header = hl7v2.peek(raw)
            adapter = adapters.for_hl7(header.sending_facility, header.sending_application, "")
            try:
                made = adapter.convert_hl7(adapter.parse(raw), header.sending_facility)
                for resource in [c.resource for c in made.changes] + [a.change(None) for a in made.amendments]:
                    if resource:
                        check.require_valid(resource, profile=True)
                ends["taken"] = ends.get("taken", 0) + 1
            except GatewayError as error:
                ends[error.where] = ends.get(error.where, 0) + 1
    assert ends == {"taken": 18, "OBX-5": 2, "TXA": 1}


# ---------------------------------------------------------------- over time

class Hospital:
    """A hospital whose messages go through the pipeline."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.store = store
        self.pipeline = Pipeline(settings, store, load_all([SHIPPED_ADAPTERS], "generic"))

    def send(self, event: str, time: str, *segments: str) -> str | None:
        """The category of the answer, None when it was stored."""
        raw = mdm(event, *segments, time=time, control=f"{event}{time}").encode()
        return self.pipeline.receive_hl7(raw, "10.0.0.9:1").category

    def document(self, number: str = "DOC1", institution: str = "generic-h1") -> Resource:
        """The document as it is now."""
        [row] = search.search(self.store, GATEWAY, "DocumentReference", [
            ("identifier", f"urn:huren:{institution}:document|{number}")]).rows
        found: Resource = fhir_json.loads(text_of(row.resource_type, row.id, row.version, row.updated, row.tail))
        return found

    def content(self, number: str = "DOC1") -> list[str]:
        """The documents' texts by way of their Binary."""
        names = [c["attachment"].get("url", "") for c in self.document(number)["content"]]
        return [self.store.objects.get(document_key("generic-h1", name.removeprefix("Binary/"))).decode()
                for name in names if name]


@pytest.fixture
def hospital(settings: Settings, store: Store) -> Hospital:
    """Any sender."""
    return Hospital(settings, store)


def states(one: Resource) -> tuple[str, str | None, str]:
    """Status, docStatus, version."""
    return one["status"], one.get("docStatus"), one["meta"]["versionId"]


def txa(number: str = "DOC1", status: str = "AU", parent: str = "", available: str = "AV") -> str:
    """A TXA."""
    return segment("TXA", {2: "DS", 12: number, 13: parent, 17: status, 19: available})


def test_the_life_of_a_document(hospital: Hospital) -> None:
    """Announced, sent, signed, edited, cancelled: versions of one resource; what carries no content keeps it."""
    assert hospital.send("T01", "20240102100000", txa(status="IP")) is None
    assert states(hospital.document()) == ("current", "preliminary", "1") and hospital.content() == []
    assert hospital.send("T02", "20240102100100", txa(status="IP"), line(1, "草稿")) is None
    assert hospital.content() == ["草稿"]
    assert hospital.send("T03", "20240102100200", txa()) is None
    assert states(hospital.document()) == ("current", "final", "3") and hospital.content() == ["草稿"]
    assert hospital.send("T08", "20240102100300", txa(), line(1, "定稿")) is None
    assert states(hospital.document()) == ("current", "amended", "4") and hospital.content() == ["定稿"]
    assert hospital.send("T11", "20240102100400", txa()) is None
    assert states(hospital.document()) == ("entered-in-error", "entered-in-error", "5")
    row = hospital.store.vread("DocumentReference", hospital.document()["id"], 2, GATEWAY)
    assert row is not None and b'"Binary/' in row.tail


def test_an_older_message_never_undoes_a_newer_one(hospital: Hospital) -> None:
    """With content and without: CONFLICT, as of a report."""
    assert hospital.send("T08", "20240102100300", txa(), line(1, "定稿")) is None
    assert hospital.send("T02", "20240102100100", txa(status="IP"), line(1, "草稿")) == "conflict"
    assert hospital.send("T03", "20240102100200", txa(status="IP")) == "conflict"
    obr = segment("OBR", {3: "F1", 4: "CT", 22: "20240102093000"})
    raw = mdm("T02", obr, txa(status="IP"), line(1, "x"), time="20240102100250").encode()
    assert hospital.pipeline.receive_hl7(raw, "10.0.0.9:1").where == "MSH-7"
    assert states(hospital.document()) == ("current", "amended", "1") and hospital.content() == ["定稿"]


def test_a_replacement_supersedes_what_it_replaces(hospital: Hospital) -> None:
    """The old one stays readable; a later notification about it does not revive it unless it says so."""
    hospital.send("T02", "20240102100000", txa(), line(1, "旧"))
    assert hospital.send("T10", "20240102100100", txa("DOC2", parent="DOC1"), line(1, "新")) is None
    assert states(hospital.document()) == ("superseded", "final", "2") and hospital.content() == ["旧"]
    assert hospital.document("DOC2")["relatesTo"][0]["target"]["reference"] == \
        f"DocumentReference/{hospital.document()['id']}"
    assert hospital.send("T03", "20240102100200", txa(available="")) is None
    assert hospital.document()["status"] == "superseded"
    assert hospital.send("T03", "20240102100300", txa("DOC2")) is None
    assert hospital.document("DOC2")["relatesTo"] and hospital.content("DOC2") == ["新"]
    assert hospital.send("T03", "20240102100400", txa()) is None
    assert hospital.document()["status"] == "current"


@pytest.mark.parametrize("event", ["T01", "T02"])
def test_a_document_that_comes_after_its_replacement_is_superseded(hospital: Hospital, event: str) -> None:
    """With content and without, in one version; the replacement's own edits keep what it replaces."""
    hospital.send("T10", "20240102100100", txa("DOC2", parent="DOC1"), line(1, "新"))
    hospital.send("T08", "20240102100200", txa("DOC2"), line(1, "新二"))
    assert hospital.document("DOC2")["relatesTo"][0]["code"] == "replaces"
    body = [line(1, "旧")] if event == "T02" else []
    assert hospital.send(event, "20240102100000", txa(), *body) is None
    assert states(hospital.document()) == ("superseded", "final", "1")
    assert hospital.content() == (["旧"] if body else [])
    assert states(hospital.document("DOC2")) == ("current", "amended", "2") and hospital.content("DOC2") == ["新二"]
    assert hospital.pipeline.replay(3).category is None and states(hospital.document())[2] == "1"


@pytest.mark.parametrize("available, status", [("", "superseded"), ("AV", "current")])
def test_a_replaced_document_is_revived_only_by_saying_so_later(hospital: Hospital, available: str,
                                                                status: str) -> None:
    """A message later than the replacement, with content: whether the document is stored already or comes with it."""
    hospital.send("T10", "20240102100100", txa("DOC2", parent="DOC1"), line(1, "新"))
    assert hospital.send("T02", "20240102100200", txa(available=available), line(1, "旧")) is None
    assert hospital.document()["status"] == status
    hospital.send("T02", "20240102100000", txa("DOC3"), line(1, "旧"))
    hospital.send("T10", "20240102100100", txa("DOC4", parent="DOC3"), line(1, "新"))
    assert hospital.document("DOC3")["status"] == "superseded"
    assert hospital.send("T08", "20240102100200", txa("DOC3", available=available), line(1, "旧二")) is None
    assert hospital.document("DOC3")["status"] == status and hospital.content("DOC3") == ["旧二"]


def test_who_appends_or_was_told_of_elsewhere_replaces_nothing(hospital: Hospital) -> None:
    """An addendum, and another hospital's document of the same number, leave a later one current."""
    hospital.send("T06", "20240102100100", txa("DOC2", parent="DOC1"), line(1, "补充"))
    other = mdm("T10", txa("DOC2", parent="DOC1"), line(1, "新"), time="20240102100100").replace("|H1|", "|H2|")
    assert hospital.pipeline.receive_hl7(other.encode(), "10.0.0.9:1").category is None
    assert hospital.send("T02", "20240102100000", txa(), line(1, "旧")) is None
    assert hospital.document()["status"] == "current"
    assert hospital.document("DOC2", "generic-h2")["relatesTo"][0]["code"] == "replaces"


@pytest.mark.parametrize("unseen", ["gateway.joining.Joining._supersede", "gateway.hl7v2.mdm._supersede"])
def test_of_two_at_the_same_moment_the_replaced_one_is_superseded(
        hospital: Hospital, monkeypatch: pytest.MonkeyPatch, unseen: str) -> None:
    """Neither saw the other before it was written: the second looks behind its commit, also after a crash there."""
    messages = [("T10", "20240102100100", txa("DOC2", parent="DOC1"), line(1, "新")),
                ("T02", "20240102100000", txa(), line(1, "旧"))]
    if "mdm" in unseen:
        messages.reverse()
    assert hospital.send(*messages[0]) is None
    again = Joining.again

    def crash(*_: object) -> list[Put]:
        raise GatewayError(Category.BUSY, "the machine stops here")

    monkeypatch.setattr(unseen, lambda *_: None)
    monkeypatch.setattr(Joining, "again", crash)
    assert hospital.send(*messages[1]) == Category.BUSY.value
    assert hospital.document()["status"] == "current" and hospital.document("DOC2")["status"] == "current"
    monkeypatch.setattr(Joining, "again", again)
    [row] = hospital.store.inbox("received")
    assert hospital.pipeline.replay(row.id).category is None and not hospital.store.inbox("received")
    assert hospital.document()["status"] == "superseded" and hospital.document("DOC2")["status"] == "current"


def test_a_replacement_may_come_alone(hospital: Hospital) -> None:
    """What it replaces is not here: nothing is made up."""
    assert hospital.send("T10", "20240102100100", txa("DOC2", parent="DOC1"), line(1, "新")) is None
    assert not search.search(hospital.store, GATEWAY, "DocumentReference", [("identifier", "DOC1")]).rows


def test_an_addendum_leaves_its_document_as_it_is(hospital: Hospital) -> None:
    """T06 is a document of its own that appends."""
    hospital.send("T02", "20240102100000", txa(), line(1, "正文"))
    assert hospital.send("T06", "20240102100100", txa("DOC2", parent="DOC1"), line(1, "补充")) is None
    assert states(hospital.document()) == ("current", "final", "1") and hospital.content("DOC2") == ["补充"]
    [found] = search.search(hospital.store, GATEWAY, "DocumentReference",
                            [("relatesto", f"DocumentReference/{hospital.document()['id']}")]).rows
    assert found.id == hospital.document("DOC2")["id"]


def test_documents_are_found_as_r4_says(hospital: Hospital) -> None:
    """By patient, type, date, status, author, content type; with their Provenance, which leads to the message."""
    hospital.send("T02", "20240102100000", TXA, line(1, "正文"))
    one = hospital.document()
    for query in ([("patient", one["subject"]["reference"])], [("type", f"{V2}0270|DS")], [("date", "2024-01-02")],
                  [("status", "current")], [("author", one["author"][0]["reference"])], [("period", "2024-01-01")],
                  [("patient.identifier", "P1")], [("identifier", "urn:huren:generic-h1:document|DOC1")]):
        assert [row.id for row in search.search(hospital.store, GATEWAY, "DocumentReference", query).rows] == \
            [one["id"]], query
    [provenance] = search.search(hospital.store, GATEWAY, "Provenance",
                                 [("target", f"DocumentReference/{one['id']}")]).rows
    assert b"Binary/hl7v2-" in provenance.tail
    [binary] = search.search(hospital.store, GATEWAY, "Provenance",
                             [("target", one["content"][0]["attachment"]["url"])]).rows
    assert binary.id == provenance.id
