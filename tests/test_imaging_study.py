"""The facts of a study's instances become one ImagingStudy and one Patient, in whatever order they come."""

from __future__ import annotations

import json
import random

import pytest
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.patient import Patient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from test_imaging_header import shipped_files

from gateway.errors import GatewayError
from gateway.imaging import codes, read_header, study_from, times
from gateway.source import COPY, Source, Unmapped

LOINC = "http://loinc.org"
NATIONAL = "urn:oid:2.16.156.10011.1.3"


class Codes:
    """A hospital that mapped one code."""

    def without_item(self, local: str) -> bool:
        return False

    def codings(self, local: str, system: str = "") -> list[dict[str, str]]:
        if local != "CT-CHEST":
            return []
        return [{"system": "http://huren.example/fhir/CodeSystem/recognition-item", "code": "R0001"},
                {"system": LOINC, "code": "24627-2"}]


def a_source(**changes) -> Source:
    return Source(**{"institution": "hz-1", "name": "One", "code_system": "urn:huren:hz-1:item", "codes": Codes(),
                     "dicom_charset": "GB18030"} | changes)


def facts(sop="1.2.3.1", series="1.2.3", study="1.2", **more):
    return {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": sop, "Modality": "CT",
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "TransferSyntaxUID": "1.2.840.10008.1.2.1",
            "PatientID": "P1", "StudyDate": "20260105", "StudyTime": "081530"} | more


def study_of(*instances, source=None):
    [_, change] = study_from(instances, source or a_source()).changes
    return change.resource


def patient_of(*instances, source=None):
    [change, _] = study_from(instances, source or a_source()).changes
    return change.resource


@pytest.mark.parametrize("path", shipped_files(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_readable_file_becomes_valid_resources(path):
    """What real headers lack or get wrong never makes a resource that base R4 refuses."""
    try:
        one = read_header(path.read_bytes(), "GB18030")
    except GatewayError:
        return
    for change in study_from([one], a_source()).changes:
        model = {"Patient": Patient, "ImagingStudy": ImagingStudy}[change.resource["resourceType"]]
        model.model_validate(change.resource)


def test_study_holds_its_series_and_instances():
    """Counts are of what is there, series and instances in the order of their numbers."""
    study = study_of(facts("1.1", "1.9", InstanceNumber=2, SeriesNumber=2, SeriesDescription="lung"),
                     facts("1.2", "1.9", InstanceNumber=1, SeriesNumber=2, SeriesDescription="lung"),
                     facts("1.3", "1.8", InstanceNumber=7, SeriesNumber=1, Modality="SR"),
                     facts("1.4", "1.7", Modality="PT"))
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (3, 4)
    assert [(s["uid"], s["numberOfInstances"]) for s in study["series"]] == [("1.8", 1), ("1.9", 2), ("1.7", 1)]
    assert [i["uid"] for i in study["series"][1]["instance"]] == ["1.2", "1.1"]
    assert study["identifier"][0]["value"] == "urn:oid:1.2"
    assert (study["status"], study["started"]) == ("available", "2026-01-05T08:15:30+08:00")


def test_modality_lists_acquisitions_only():
    """CID 29: reports, key objects and presentation states are series, not modalities of the study."""
    modalities = ["SR", "CT", "KO", "PR", "OT", "MR"]
    study = study_of(*(facts(f"1.{i}", f"1.{i}", Modality=m) for i, m in enumerate(modalities)))
    assert [m["code"] for m in study["modality"]] == ["CT", "MR"]
    assert {"SR", "CT", "KO", "PR", "OT", "MR"} == {s["modality"]["code"] for s in study["series"]}


def test_a_missing_modality_is_ot():
    """series.modality is required in R4; a header without one does not lose the study."""
    one = facts()
    del one["Modality"]
    assert study_of(one)["series"][0]["modality"]["code"] == "OT"
    assert "modality" not in study_of(one)


def test_acquisition_modalities_are_cid_29():
    """Our list is the context group's."""
    values = {value for keyword in cid_concepts[29]["DCM"] for value, (_, cids) in concepts["DCM"][keyword].items()
              if 29 in cids}
    assert values == codes.ACQUISITION_MODALITIES


def test_body_part_codes_are_snomed_concepts_of_that_name():
    """Every code of the body part table is in pydicom's copy of PS3.16 under the same meaning."""
    known = {}
    for versions in concepts["SCT"].values():
        for value, (meaning, _) in versions.items():
            known.setdefault(value, set()).add(meaning.lower())
    wrong = {part: row for part, row in codes._BODY_PARTS.items()
             if not any(row[1].lower() in meaning or meaning in row[1].lower() for meaning in known.get(row[0], ()))}
    assert wrong == {}


INSTANCES = [
    facts("1.1", "1.9", SeriesNumber=1, InstanceNumber=1, PatientName={"Ideographic": "王^东"}, StudyDescription="胸"),
    facts("1.2", "1.9", SeriesNumber=1, InstanceNumber=2, PatientName={"Ideographic": "王^东"}, StudyDescription="胸"),
    facts("1.3", "1.8", Modality="SR", PatientName={"Alphabetic": "Wang"}, AccessionNumber="A1", StudyTime="09"),
    facts("1.4", "1.7", StudyDescription="头", AccessionNumber="A2", PatientBirthDate="19800101",
          RequestAttributesSequence=[{"AccessionNumber": "A3"}], PatientID="P1",
          ProcedureCodeSequence=[{"CodeValue": "X1", "CodeMeaning": "x"}, {"CodeValue": "CT-CHEST"}]),
    facts("1.5", "1.7", PatientID="P2", Laterality="L",
          PerformingPhysicianName=[{"Alphabetic": "B"}, {"Alphabetic": "A"}]),
    facts("1.6", "1.6", PatientID="P2", StudyDate="20260104", ReferringPhysicianName={"Alphabetic": "Li"}),
]


@given(st.permutations(INSTANCES), st.integers(0, 5))
@settings(deadline=None)
def test_order_of_arrival_changes_nothing(instances, resent):
    """Any permutation, with an instance received twice, gives the same resources, ids and remarks."""
    mine = study_from([*instances, instances[resent]], a_source())
    reference = study_from(INSTANCES, a_source())
    assert json.dumps([c.resource for c in mine.changes]) == json.dumps([c.resource for c in reference.changes])
    assert mine.unmapped == reference.unmapped


def test_conversion_leaves_the_facts_alone():
    """Facts are kept by the store and read again: a conversion must not change them."""
    before = json.dumps(INSTANCES)
    study_from(INSTANCES, a_source())
    assert before == json.dumps(INSTANCES)


def test_two_patients_under_one_study_uid_are_never_mixed():
    """Each patient has an ImagingStudy of his own instances; the larger keeps the id of the bare UID."""
    conversion = study_from([facts("1.1"), facts("1.2"), facts("1.3", PatientID="P2")], a_source())
    studies = [c.resource for c in conversion.changes if c.resource["resourceType"] == "ImagingStudy"]
    patients = {p["identifier"][0]["value"]: f"Patient/{p['id']}" for c in conversion.changes
                for p in [c.resource] if p["resourceType"] == "Patient"}
    counts = {s["subject"]["reference"]: s["numberOfInstances"] for s in studies}
    assert counts == {patients["P1"]: 2, patients["P2"]: 1}
    assert studies[0]["id"] == study_of(facts("1.1"))["id"] != studies[1]["id"]


def test_patient_is_the_one_that_messages_mean():
    """The id comes from the hospital's number alone, as from PID-3; an issuer that nobody named is no system."""
    source = a_source()
    patient = patient_of(facts(IssuerOfPatientID="ACME SCANNER"))
    assert patient["id"] == source.patient_id(source.system("patient"), "P1")
    assert [(source.system("patient"), "P1")] == [(i["system"], i["value"]) for i in patient["identifier"]]


def test_issuers_that_the_manifest_names_count():
    """(0010,0021), (0010,0024) and (0010,1002) are believed where the hospital's manifest maps the issuer."""
    source = a_source(identifier_systems={"GA": NATIONAL, "1.2.156.9": "urn:oid:1.2.156.9"})
    patient = patient_of(facts(OtherPatientIDsSequence=[
        {"PatientID": "330106198001014518", "IssuerOfPatientID": "GA"}, {"PatientID": "77", "IssuerOfPatientID": "?"}]),
        source=source)
    assert [source.system("patient"), NATIONAL] == [i["system"] for i in patient["identifier"]]
    one = facts(IssuerOfPatientIDQualifiersSequence=[{"UniversalEntityID": "1.2.156.9"}])
    qualified = patient_of(one, source=source)
    assert [i["system"] for i in qualified["identifier"]] == ["urn:oid:1.2.156.9"]


def test_the_manifest_says_whose_a_bare_number_is():
    """Headers seldom name an issuer: ``(0010,0020)`` in identifier_systems is the system that messages write out."""
    source = a_source(identifier_systems={"QTH": "urn:oid:1.2.156.7", "(0010,0020)": "urn:oid:1.2.156.7"})
    bare, issued = (patient_of(facts(**more), source=source) for more in ({}, {"IssuerOfPatientID": "QTH"}))
    assert bare["id"] == issued["id"] == source.patient_id("urn:oid:1.2.156.7", "P1")


def test_a_header_without_patient_id_is_nobody_else():
    """Two studies without a number never share a Patient, whatever their names."""
    name = {"Alphabetic": "A^B"}
    first, second = (patient_of(facts(study=uid, PatientName=name, PatientID="")) for uid in ("1.2", "1.3"))
    assert first["id"] != second["id"]
    assert first["identifier"][0]["use"] == "temp"


def test_a_header_never_undoes_a_message():
    """The Patient of a header is older than that of any message, results' copies among them, and newer than an older
    header's."""
    [old, _] = study_from([facts(StudyDate="20250101")], a_source()).changes
    [new, _] = study_from([facts()], a_source()).changes
    assert old.as_of < new.as_of < -COPY
    assert new.on_older == "skip"


REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"


@pytest.mark.parametrize(("groups", "expected"), [
    ({"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"},
     [("ABC", None, "XiaoDong Wang", "Wang", ["XiaoDong"]), ("IDE", "official", "王小东", "王", ["小东"])]),
    ({"Alphabetic": "王^小东"}, [("IDE", "official", "王小东", "王", ["小东"])]),
    ({"Alphabetic": "王小东"}, [("IDE", "official", "王小东", None, None)]),
    ({"Alphabetic": "WANG XIAODONG"}, [("ABC", "official", "WANG XIAODONG", None, None)]),
    ({"Alphabetic": "Adams^John Robert^Quincy^Rev.^B.A. M.Div."},
     [("ABC", "official", "Rev. John Robert Quincy Adams B.A. M.Div.", "Adams", ["John Robert", "Quincy"])]),
    ({"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
     [("ABC", None, "Tarou Yamada", "Yamada", ["Tarou"]), ("IDE", "official", "山田太郎", "山田", ["太郎"]),
      ("SYL", None, "やまだたろう", "やまだ", ["たろう"])]),
    ({"Alphabetic": "^小东"}, [("IDE", "official", "小东", None, ["小东"])]),
])
def test_names_by_group(groups, expected):
    """One HumanName a group; ideographs are official wherever they stand; nothing is split that the sender did not."""
    names = patient_of(facts(PatientName=groups))["name"]
    assert expected == [(n["extension"][0]["valueCode"], n.get("use"), n["text"], n.get("family"), n.get("given"))
                        for n in names]
    assert {REPRESENTATION} == {n["extension"][0]["url"] for n in names}


def test_demographics():
    """Sex and birth date as FHIR writes them; absent stays absent."""
    patient = patient_of(facts(PatientSex="F", PatientBirthDate="19800229"))
    assert (patient["gender"], patient["birthDate"]) == ("female", "1980-02-29")
    bare = patient_of(facts(PatientBirthDate="19810229"))
    assert {"gender", "birthDate", "name"}.isdisjoint(bare)


def test_local_procedure_code_gets_the_unified_one_beside_it():
    """(0008,1032): unified, LOINC and the hospital's own coding; nothing is reported as unmapped."""
    conversion = study_from([facts(ProcedureCodeSequence=[
        {"CodeValue": "CT-CHEST", "CodeMeaning": "胸部CT平扫", "CodingSchemeDesignator": "99HZ"}])], a_source())
    [concept] = conversion.changes[1].resource["procedureCode"]
    assert [c["code"] for c in concept["coding"]] == ["R0001", "24627-2", "CT-CHEST"]
    assert (concept["coding"][-1]["system"], concept["text"]) == ("urn:huren:hz-1:item", "胸部CT平扫")
    assert conversion.unmapped == []


def test_an_unmapped_procedure_is_kept_and_reported():
    """Under the scheme's own UID where the header gives one."""
    conversion = study_from([facts(
        RequestAttributesSequence=[{"RequestedProcedureCodeSequence": [
            {"CodeValue": "Q7", "CodeMeaning": "腹部", "CodingSchemeDesignator": "99HZ"}]}],
        CodingSchemeIdentificationSequence=[{"CodingSchemeDesignator": "99HZ", "CodingSchemeUID": "1.2.9"}])],
        a_source())
    [concept] = conversion.changes[1].resource["procedureCode"]
    assert concept["coding"] == [{"system": "urn:oid:1.2.9", "code": "Q7", "display": "腹部"}]
    assert [Unmapped("exam", "Q7", "腹部", where="(0040,0275)>(0032,1064)")] == conversion.unmapped


def test_description_is_a_code_only_where_the_manifest_says_so():
    """A free text is never taken for a code by itself."""
    one = facts(StudyDescription="CT-CHEST")
    assert "procedureCode" not in study_of(one)
    study = study_of(one, source=a_source(habits={"study_description_is_code": True}))
    assert study["procedureCode"][0]["coding"][0]["code"] == "R0001"


def test_public_schemes_have_their_uris_and_retired_snomed_is_translated():
    """SRT's T-D3000 is SNOMED CT's chest; the designator never becomes a system."""
    study = study_of(facts(AnatomicRegionSequence=[
        {"CodeValue": "T-D3000", "CodingSchemeDesignator": "SRT", "CodeMeaning": "Chest"}]))
    site = study["series"][0]["bodySite"]
    assert (site["system"], site["code"]) == ("http://snomed.info/sct", "51185008")


@pytest.mark.parametrize(("text", "code"), [("CHEST", "816094009"), ("c_spine", "122494005"),
                                            ("Whole Body", "38266002")])
def test_body_part_examined_is_coded(text, code):
    """PS3.16 Annex L, whatever case or space the sender uses."""
    assert code == study_of(facts(BodyPartExamined=text))["series"][0]["bodySite"]["code"]


def test_a_body_part_of_the_hospitals_own_is_text():
    """No code is guessed for it."""
    assert study_of(facts(BodyPartExamined="胸部"))["series"][0]["bodySite"] == {"display": "胸部"}


@pytest.mark.parametrize(("sides", "code"), [(["R"], "24028007"), (["L", "L"], "7771000"), (["L", "R"], "51440002"),
                                             (["B"], "51440002"), (["U"], None), (["x"], None)])
def test_laterality(sides, code):
    """Both sides in one series are both; unpaired and unknown values are left out."""
    study = study_of(*(facts(f"1.{i}", ImageLaterality=side) for i, side in enumerate(sides)))
    assert code == study["series"][0].get("laterality", {}).get("code")


def test_orders_are_identified_from_study_and_series_level():
    """One study, three accession numbers and a placer's: each within its issuer, all in basedOn."""
    issuer = [{"UniversalEntityID": "1.2.7", "UniversalEntityIDType": "ISO"}]
    study = study_of(facts(
        AccessionNumber="A1", PlacerOrderNumberImagingServiceRequest="O1",
        RequestAttributesSequence=[{"AccessionNumber": "A2", "IssuerOfAccessionNumberSequence": issuer},
                                   {"AccessionNumber": "A1"}]))
    based = [(b["identifier"]["type"]["coding"][0]["code"], b["identifier"]["system"], b["identifier"]["value"])
             for b in study["basedOn"]]
    assert based == [("ACSN", "urn:huren:hz-1:accession", "A1"), ("ACSN", "urn:oid:1.2.7", "A2"),
            ("PLAC", "urn:huren:hz-1:placer", "O1")]
    assert [i["value"] for i in study["identifier"][1:]] == ["A1", "A2"]


def test_people_of_the_study():
    """Referrer, reading and performing physicians by name."""
    study = study_of(facts(ReferringPhysicianName={"Alphabetic": "李^明"}, OperatorsName=[{"Alphabetic": "Zhao"}],
                           NameOfPhysiciansReadingStudy=[{"Alphabetic": "Chen^Wei"}]))
    assert study["referrer"]["display"] == "李明"
    assert study["interpreter"] == [{"display": "Wei Chen"}]
    assert study["series"][0]["performer"][0]["actor"] == {"display": "Zhao"}


def test_titles_of_what_is_no_image():
    """A structured report by its concept, a document by its title; images have none."""
    title = [{"CodeValue": "126000", "CodeMeaning": "报告"}]
    study = study_of(facts("1.1", InstanceNumber=1, ConceptNameCodeSequence=title),
                     facts("1.2", InstanceNumber=2, DocumentTitle="出院小结"), facts("1.3", InstanceNumber=3))
    assert [i.get("title") for i in study["series"][0]["instance"]] == ["报告", "出院小结", None]


def test_reason_is_coded_or_in_the_requesters_words():
    """A coded reason wins over the text."""
    assert study_of(facts(ReasonForTheRequestedProcedure="胸痛"))["reasonCode"] == [{"text": "胸痛"}]
    coded = study_of(facts(ReasonForTheRequestedProcedure="x", ReasonForRequestedProcedureCodeSequence=[
        {"CodeValue": "R07.4", "CodingSchemeDesignator": "I10", "CodeMeaning": "胸痛"}]))
    assert coded["reasonCode"][0]["coding"][0]["system"] == "http://hl7.org/fhir/sid/icd-10"


@pytest.mark.parametrize(("day", "time", "offset", "expected"), [
    ("20260105", "081530", "", "2026-01-05T08:15:30+08:00"),
    ("20260105", "081530.123", "+0000", "2026-01-05T08:15:30.123+00:00"),
    ("20260105", "081530", "-0330", "2026-01-05T08:15:30-03:30"),
    ("20260105", "081530", "+9900", "2026-01-05T08:15:30+08:00"),
    ("20260105", "0815", "", "2026-01-05T08:15:00+08:00"),
    ("20260105", "08", "", "2026-01-05"),
    ("20260105", "", "", "2026-01-05"),
    ("20260105", "240000", "", "2026-01-05T23:59:59+08:00"),
    ("20260105", "235960.5", "", "2026-01-05T23:59:59+08:00"),
    ("2026.01.05", "08:15:30", "", "2026-01-05T08:15:30+08:00"),
    ("19880701", "120000", "", "1988-07-01T12:00:00+09:00"),
    ("20260231", "081530", "", ""), ("19000", "081530", "", ""), ("", "081530", "", ""),
])
def test_date_and_time(day, time, offset, expected):
    """(0008,0201) first, else the hospital's zone at that moment (China kept summer time until 1991)."""
    assert expected == times.date_time(day, time, offset, "Asia/Shanghai")


def test_started_without_a_study_date_is_the_earliest_that_is_dated():
    """A study without Study Date takes the first moment of its series or acquisitions."""
    one, two = (facts(f"1.{i}", StudyDate="", AcquisitionDateTime=f"2026010{i}120000+0900") for i in (2, 1))
    assert study_of(one, two)["started"] == "2026-01-01T12:00:00+09:00"


def test_a_large_study_is_quick():
    """Two thousand slices are converted in well under a second: it happens between a C-STORE and its publication."""
    rng = random.Random(1)
    name = {"Alphabetic": "A^B"}
    instances = [facts(f"1.5.{i}", f"1.4.{i % 5}", InstanceNumber=i, PatientName=name) for i in range(2000)]
    rng.shuffle(instances)
    assert study_of(*instances)["numberOfInstances"] == 2000
