"""Every settled row of the guide's data type maps, each tried in a field of that type; or we decided otherwise."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from gateway.errors import GatewayError
from tests.guide import (
    GUIDE,
    Row,
    at_path,
    converted,
    datatype_rows,
    decided,
    decisions,
    leaves,
    message,
    resources_of,
    sample,
)

pytestmark = pytest.mark.skipif(not GUIDE.is_dir(), reason="the guide's tables are not beside the repository")


class Host(NamedTuple):
    """A field of the type: where its FHIR data type stands, and what its other components must hold."""

    message: str
    segment: str
    field: int
    resource: str
    path: str
    given: dict[int, str]
    beside: dict[int, str] = {}
    within: int = 0  # the field's component that holds the type, whose components are then subcomponents


def obx(kind: str, path: str, given: dict[int, str], **more: str) -> Host:
    """OBX-5 of a value type."""
    return Host("ORU", "OBX", 5, "Observation", path, given, {2: kind, 6: more.get("unit", "")})


_CODE = {1: "C1", 4: "C2", 10: "C3"}
_ATTACHMENT = "extension.valueAttachment"
HOSTS: dict[str, Host] = {
    **{f"{kind}[CodeableConcept]": obx(kind, "valueCodeableConcept", _CODE) for kind in ("CF", "CNE", "CWE")},
    "CE[CodeableConcept]": obx("CE", "valueCodeableConcept", {1: "C1", 4: "C2"}),
    "IS[CodeableConcept]": obx("IS", "valueCodeableConcept", {}),
    "NA[SampledData]": obx("NA", "valueSampledData", {1: "1", 2: "2", 3: "3", 4: "4"}),
    "NM[Quantity]": obx("NM", "valueQuantity.value", {}),
    "NR[Range]": obx("NR", "valueRange", {1: "1", 2: "900"}),
    "SN[Quantity]": obx("SN", "valueQuantity", {1: ">", 2: "1"}),
    "SN[Range]": obx("SN", "valueRange", {2: "1", 3: "-", 4: "900"}),
    "SN[Ratio]": obx("SN", "valueRatio", {1: "<", 2: "1", 3: ":", 4: "128"}),
    "DR[Period]": obx("DR", "valuePeriod", {1: "20180101", 2: "20300101"}),
    "ED[Attachment]": obx("ED", _ATTACHMENT, {2: "Application", 3: "PDF", 4: "Base64", 5: "JVBERi0xLjQK"}),
    "RP[Attachment]": obx("RP", _ATTACHMENT, {1: "http://h.example/1", 3: "Application", 4: "PDF"}),
    "ED[DocumentReference]": Host("MDM", "OBX", 5, "DocumentReference", "",
                                  {2: "Application", 3: "PDF", 4: "Base64", 5: "JVBERi0xLjQK"}, {2: "ED"}),
    "RP[DocumentReference]": Host("MDM", "OBX", 5, "DocumentReference", "",
                                  {1: "http://h.example/1", 3: "Application", 4: "PDF"}, {2: "RP"}),
    "CWE[Quantity]": Host("ORU", "OBX", 6, "Observation", "valueQuantity", {}),
    "CWE[Coding]": Host("ADT", "PV1", 2, "Encounter", "class", {1: "I"}),
    "CWE[Organization]": Host("ORU", "OBX", 15, "Observation", "performer(Organization)", {1: "C1"}),
    "CWE[code]": Host("ORU", "PID", 8, "Patient", "gender", {}),
    "CX[Identifier]": Host("ORU", "PID", 3, "Patient", "identifier", {1: "N1"}),
    "EI[Identifier-Extension]": Host("ORU", "OBX", 21, "Observation", "identifier", {1: "N1"}),
    "EI[Identifier-System]": Host("ORU", "OBX", 21, "Observation", "identifier", {1: "N1"}),
    "EI[Identifier-Organization]": Host("ORU", "OBX", 21, "Observation", "identifier", {1: "N1"}),
    "EIP[Identifier-FillerAssignedIdentifier]": Host("ORU", "SPM", 2, "Specimen", "identifier", {}),
    "EIP[Identifier-PlacerAssignedIdentifier]": Host("ORU", "SPM", 2, "Specimen", "identifier", {}),
    "CQ[Quantity]": Host("ORU", "SPM", 12, "Specimen", "collection.quantity", {1: "1", 2: "mL"}),
    "DR[dateTime]": Host("ORU", "SPM", 17, "Specimen", "collection.collectedDateTime", {}),
    "DTM[dateTime]": Host("ORU", "OBX", 14, "Observation", "effectiveDateTime", {}),
    "TS[dateTime]": Host("ORU", "OBX", 14, "Observation", "effectiveDateTime", {}),
    "HD[uri]": Host("ORU", "PID", 3, "Patient", "identifier.system", {}, {}, 4),
    "FN[HumanName]": Host("ORU", "PID", 5, "Patient", "name", {1: "Smith"}, {}, 1),
    "XPN[HumanName]": Host("ORU", "PID", 5, "Patient", "name", {1: "Smith", 2: "John"}),
    "XPN[string]": Host("ORU", "PID", 6, "Patient", "extension.valueString", {}),
    "XAD[Address]": Host("ORU", "PID", 11, "Patient", "address", {1: "Road 1", 3: "Town"}),
    "SAD[Address]": Host("ORU", "PID", 11, "Patient", "address", {}, {}, 1),
    "XTN[ContactPoint]": Host("ORU", "PID", 13, "Patient", "telecom", {3: "PH", 7: "5551234"}),
    "XCN[Practitioner]": Host("ORU", "OBX", 16, "Observation", "performer(Practitioner)", {1: "D1", 2: "Smith"}),
    "XON[Organization]": Host("ORU", "OBX", 23, "Observation", "performer(Organization)", {1: "Lab", 10: "L1"}),
    "CNN[Practitioner]": Host("ORU", "OBR", 32, "DiagnosticReport", "resultsInterpreter(Practitioner)",
                              {1: "D1", 2: "Smith"}, {}, 1),
    "SPS[Specimen-Source]": Host("ORU-OBR", "OBR", 15, "Specimen", "", {1: "SER&Serum&L"}),
    "TQ[ServiceRequest]": Host("OML", "ORC", 7, "ServiceRequest", "", {}),
    "TQ[Appointment]": Host("SIU", "SCH", 11, "Appointment", "", {4: "20240301100000", 5: "20240301110000"}),
    "ID[CodeableConcept]": Host("ORU", "OBR", 24, "DiagnosticReport", "category", {}),
    "ID[code]": Host("OML", "OBR", 5, "ServiceRequest", "priority", {}),
    "ID[boolean]": Host("ORU", "PID", 30, "Patient", "deceasedBoolean", {}),
    "OG[Extension-Subidentifier]": Host("ORU", "OBX", 4, "Observation", "extension", {}),
    "DLN[Identifier]": Host("ADT", "PID", 20, "Patient", "identifier", {1: "N1"}),
    "PL[Location]": Host("ADT", "PV1", 3, "Encounter", "location.location(Location)", {}),
    "DLD[Location-Discharge]": Host("ADT", "PV1", 37, "Encounter", "hospitalization.destination(Location)", {}),
    "HD[Location]": Host("ADT", "PV1", 3, "Location", "", {1: "W1"}, {}, 4),
    "CWE[string]": Host("ORU", "SPM", 12, "Specimen", "collection.quantity.unit", {}, {}, 2),
    "XCN[Annotation-Author]": Host("ORU", "NTE", 5, "Observation", "note", {1: "D1", 2: "Smith"}, {3: "note text"}),
    "DTM[Annotation-Time]": Host("ORU", "NTE", 6, "Observation", "note", {}, {3: "note text"}),
}
#: What a component is filled with where its type alone does not tell: text, what must be found.
VALUES: dict[str, tuple[str, str]] = {
    "CWE.3": ("HL70078", "v2-0078"), "CE.3": ("HL70078", "v2-0078"), "CNE.3": ("HL70078", "v2-0078"),
    "CWE.6": ("HL70078", "v2-0078"), "CE.6": ("HL70078", "v2-0078"), "CNE.6": ("HL70078", "v2-0078"),
    "CWE.12": ("HL70078", "v2-0078"), "CNE.12": ("HL70078", "v2-0078"), "IS.1": ("ZIS1", "ZIS1"),
    "CX.4": ("ZNS&1.2.3.99&ISO", "1.2.3.99"), "CX.5": ("PPN", "PPN"), "XPN.7": ("L", "official"),
    "XCN.10": ("L", "official"), "XCN.9": ("ZNS&1.2.3.99&ISO", "1.2.3.99"), "XCN.13": ("PPN", "PPN"),
    "XON.6": ("ZNS&1.2.3.99&ISO", "1.2.3.99"), "XON.7": ("XX", "XX"), "XCN.2": ("ZFamily", "ZFamily"),
    "XPN.1": ("ZFamily", "ZFamily"), "XAD.1": ("ZRoad 5", "ZRoad 5"), "XAD.6": ("CHN", "CHN"),
    "XTN.2": ("PRN", "home"), "XTN.3": ("FX", "fax"), "XTN.5": ("86", "+86"), "XTN.6": ("0571", "0571"),
    "XTN.7": ("5557777", "5557777"), "XTN.8": ("88", "X88"), "XTN.18": ("3", "3"),
    "SN.1": ("<", "<"), "SN.2": ("7.5", "7.5"), "SN.4": ("731.25", "731.25"), "NR.1": ("0.5", "0.5"),
    "NR.2": ("731.25", "731.25"), "NA.1": ("8", "8"), "NA.2": ("8", "8"), "NA.3": ("8", "8"), "NA.4": ("8", "8"),
    "NM.1": ("731.25", "731.25"), "CQ.1": ("731.25", "731.25"), "CQ.2": ("uL", "uL"),
    "ED.3": ("PDF", "application/pdf"),
    "ED.5": ("JVBERi0xLjUK", "JVBERi0xLjUK"), "RP.1": ("http://h.example/z", "http://h.example/z"),
    "RP.3": ("Image", "image/pdf"), "DR.1": ("20190304", "2019-03-04"), "DR.2": ("20290304", "2029-03-04"),
    "DTM.1": ("20190304112233", "2019-03-04T11:22:33"), "TS.1": ("20190304112233", "2019-03-04T11:22:33"),
    "ID.1": ("", ""), "SPS.1": ("ZTYPE&Text&L", "ZTYPE"), "SPS.2": ("ZADD&Text&L", "ZADD"),
    "SPS.3": ("Z note", "Z note"),
    "SPS.4": ("ZSITE&Text&L", "ZSITE"), "SPS.6": ("ZCOND&Text&L", "ZCOND"), "TQ.1": ("5&mL", "5"),
    "TQ.4": ("20190304112233", "2019-03-04"), "TQ.5": ("20190305112233", "2019-03-05"), "TQ.6": ("S", "stat"),
    "TQ.12": ("3", "3"), "HD.1": ("ZNS", "ZNS"), "HD.2": ("1.2.3.99", "1.2.3.99"), "EI.2": ("ZNS", "ZNS"),
    "EI.3": ("1.2.3.99", "1.2.3.99"), "EI.4": ("ISO", "ISO"), "OG.2": ("2", "2"), "OG.3": ("3", "3"),
    "XCN.7": ("MD", "MD"), "PL.1": ("ZPOC", "ZPOC"), "XAD.9": ("Zdistrict", "Zdistrict"), "XAD.7": ("H", "home"),
    "RI.1": ("", ""),
}
#: The same for single rows: text, what must be found, other components.
ROW_VALUES: dict[str, tuple[str, str, dict[int, str]]] = {
    "CWE[code] CWE.1 $value": ("F", "female", {}),
    "CWE[Coding] CWE.1 code": ("ZCLASS", "ZCLASS", {}),
    "CWE[Quantity] CWE.1 Quantity.code": ("mmol/L", "mmol/L", {3: "UCUM"}),
    "CWE[Quantity] CWE.1 Quantity.unit": ("mmol/L", "mmol/L", {}),
    "CWE[Quantity] CWE.3 Quantity.system": ("UCUM", "http://unitsofmeasure.org", {1: "mmol/L"}),
    "CWE[Quantity] CWE.2 Quantity.unit": ("zmmol", "zmmol", {1: "Z1"}),
    "HD[uri] HD.1 $value": ("ZNS", "ZNS", {}),
    "HD[uri] HD.2 $value": ("1.2.3.99", "urn:oid:1.2.3.99", {3: "ISO"}),
    "HD[uri] HD.2 $value #2": ("2f8e4a10-1111-4222-8333-444455556666", "urn:uuid:2f8e4a10", {3: "UUID"}),
    "HD[uri] HD.2 $value #3": ("http://h.example/ids", "http://h.example/ids", {3: "URI"}),
    "ID[CodeableConcept] ID.1 coding.code": ("LAB", "LAB", {}),
    "ID[code] ID.1 $value": ("S", "stat", {}),
    "ID[boolean] ID.1 $value": ("Y", "true", {}),
    "XTN[ContactPoint] XTN.1 value": ("555-9999", "555-9999", {7: "", 3: "PH"}),
    "XTN[ContactPoint] XTN.3 system #2": ("", "email", {3: "", 4: "z@h.example", 7: ""}),
    "XTN[ContactPoint] XTN.3 system.extension-data-absent-reason": ("", "unknown", {3: ""}),
    "XTN[ContactPoint] XTN.4 value": ("z@h.example", "z@h.example", {3: "Internet", 7: ""}),
    "XTN[ContactPoint] XTN.7 value": ("5557777", "0571 5557777", {6: "0571"}),
    "XTN[ContactPoint] XTN.7 value #2": ("5557777", "+86 571 5557777", {5: "86", 6: "571"}),
    "XTN[ContactPoint] XTN.7 value #3": ("5557777", "+86 571 5557777 X88", {5: "86", 6: "571", 8: "88"}),
    "XTN[ContactPoint] XTN.7 value #4": ("5557777", "571 5557777 X88", {6: "571", 8: "88"}),
    "XAD[Address] XAD.7 type": ("M", "postal", {}),
    "XON[Organization] XON.3 identifier.value": ("Z3", "Z3", {10: ""}),
    "TQ[Appointment] TQ.5 end": ("20290305112233", "2029-03-05", {}),
    "XPN[HumanName] XPN.10 [1].period": ("20190304&20290304", "2029-03-04", {}),
    "XAD[Address] XAD.12 period": ("20190304&20290304", "2029-03-04", {}),
    "XCN[Practitioner] XCN.17 name.period": ("20190304&20290304", "2029-03-04", {}),
    "XCN[Annotation-Author] XCN.17 authorReference(Practitioner.name.period)": ("20190304&20290304", "2029-03-04", {}),
    "PL[Location] PL.1 [4].partOf.reference(Location[6])": ("W1", "Location/", {4: "F1"}),
    "PL[Location] PL.2 [2].partOf.reference(Location[3])": ("R1", "Location/", {1: "W1"}),
    "PL[Location] PL.3 [1].partOf.reference(Location[2])": ("B1", "Location/", {2: "R1"}),
    "PL[Location] PL.7 [5].partOf.reference(Location[5])": ("H1", "Location/", {4: "F1"}),
    "PL[Location] PL.8 [3].partOf.reference(Location[4])": ("L1", "Location/", {7: "H1"}),
    "PL[Location] PL.9 [1].location(Location.description)": ("Z place", "Z place", {1: "W1"}),
    "RP[Attachment] RP.3 contentType": ("image", "image/jpeg", {4: "JPEG"}),
    "RP[DocumentReference] RP.3 content.attachment.contentType": ("image", "image/jpeg", {4: "JPEG"}),
    "OG[Extension-Subidentifier] OG.1 extension[1]:orginal-sub-identiier.valueString": ("Z1", "Z1", {}),
}
#: Paths that the guide writes in a notation of its own.
_PATHS = (("$value", ""), ("$this", ""), ("Quantity.", ""), ("[1-3]", ""), ("(Annotation.text)", ".text"),
          (".coding.value", ".coding.code"), ("[3.", "[3]."), (" ", ""), ("[2}", "[2]"),
          ("extension[1]:group.url", "url"), ("extension[1]:orginal-sub-identiier", "extension"),
          ("extension[1]:group", "extension"), ("extension[1]:identifier", "extension"),
          ("system.extension-data-absent-reason", "system.extension.valueCode"),
          ("occurenceTiming", "occurrenceTiming"))


def _component(row: Row) -> int:
    match = re.search(r"[.-](\d+)$", row.place)
    return int(match[1]) if match else 1


def _value(row: Row) -> tuple[str, str, dict[int, str]]:
    if row.key in ROW_VALUES:
        return ROW_VALUES[row.key]
    if not re.search(r"[.-]\d+$", row.place):
        return "", "", {}
    if row.place in VALUES:
        text, expected = VALUES[row.place]
        return text, expected, {}
    kind = row.data_type if row.data_type in ("ST", "TX", "FT", "DTM", "DT", "TS", "DR", "CWE", "NM") else "ST"
    text, expected_all = sample(kind, row.place.replace(".", ""), 1)
    if kind in ("CWE", "DR"):
        text, expected_all = f"Z{row.place}&Text&L", [f"Z{row.place}"]
    return text, expected_all[0], {}


def verdict(row: Row) -> str:
    """"" where the component stands at the row's target, else what is missing."""
    host = HOSTS.get(row.map)
    if host is None:
        return "no field of this type is mapped so"
    text, expected, others = _value(row)
    components = {**host.given, **others}
    if text:
        components[_component(row)] = text
    delimiter = "&" if host.within else "^"
    joined = delimiter.join(components.get(at, "") for at in range(1, max(components) + 1))
    if host.within:
        joined = f"{'1' if host.within > 1 else ''}{'^' * (host.within - 1)}{joined}"
    which = 1 if host.segment == "NTE" else 0
    fields = {(host.segment, which, host.field): joined,
              **{(host.segment, which, at): beside for at, beside in host.beside.items()}}
    conversion = converted(message(host.message, fields))
    if isinstance(conversion, GatewayError):
        return f"refused: {conversion}"
    resources = resources_of(conversion)
    path = row.path
    for theirs, ours in _PATHS:
        path = path.replace(theirs, ours)
    path = re.sub(r"^\[[\w-]*\]\.?", "", path).strip(".")
    path = re.sub(r"^location\(Location\.(.*)\)$", r"\1", re.sub(r"\.reference\(Location\[\d\]\)", "", path))
    constant = re.fullmatch(r'"([^"]*)"', row.assigned)
    wanted = constant[1].strip() if constant else expected
    for one in resources.values():
        if one["resourceType"] != host.resource:
            continue
        for element in at_path(one, host.path, resources) if host.path else [one]:
            held = set(leaves(element, resources))
            if constant and text and not any(expected in leaf for leaf in held):
                continue
            if any(wanted in leaf for node in (at_path(element, path, resources) if path else [element])
                   for leaf in leaves(node, resources, 0)):
                return ""
    return f"{host.resource}.{host.path}.{path} does not hold {wanted}"


@pytest.mark.parametrize("row", [row for row in datatype_rows() if row.map in HOSTS], ids=lambda row: row.key)
def test_a_component_is_filled_as_the_guide_tells_or_decided_otherwise(row: Row) -> None:
    """The component, in a field of the type, stands where the data type map says."""
    missing = verdict(row)
    decision = decided(row.key)
    if decision is None:
        assert missing == "", f"{row.key}: {missing}; mend the converter or decide it in guide_decisions.toml"
    else:
        assert missing, f"{row.key} is filled as the guide tells: take the decision out of guide_decisions.toml"


@pytest.mark.parametrize("name", sorted({row.map for row in datatype_rows()} - HOSTS.keys()))
def test_a_data_type_map_that_no_field_uses_is_decided(name: str) -> None:
    """A map without a field to try it in is left out on purpose, as a whole."""
    assert f"{name} *" in decisions(), f"{name}: give it a field in HOSTS, or decide it"
