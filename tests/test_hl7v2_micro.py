"""Results that belong together: parents of orders and results, isolates and their susceptibilities, groups of OBX-4."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.check import check
from gateway.source import Conversion
from tests.support_source import OBR, convert, make_source, resources, segment

CULTURE = segment("OBR", {1: "1", 2: "PL1^HIS", 3: "F1^LIS", 4: "600-7^Blood culture^LN", 7: "20240102080000",
                          22: "20240104100000", 24: "MB", 25: "F"})
ECOLI = "OBX|1|CWE|600-7^Organism^LN|1|112283007^Escherichia coli^SCT||||||F"
KLEBSIELLA = ECOLI.replace("|1|112283007^Escherichia coli", "|2|56415008^Klebsiella pneumoniae").replace("X|1", "X|2")
AMP = "OBX|1|NM|28-1^Ampicillin MIC^LN||16|ug/mL|<=8|R|||F||||||MIC^Minimum inhibitory concentration^L"
CIP = "OBX|2|SN|185-9^Ciprofloxacin MIC^LN||<=^0.25|ug/mL||S|||F"
ZONE = "OBX|3|NM|AMK^阿米卡星^L||21|mm||S|||F||||||KB^纸片扩散法^L"


def _susceptibilities(number: str = "2", **fields: str) -> str:
    """An OBR of susceptibilities; ``F26`` and so on are its fields."""
    own = {int(name[1:]): value for name, value in fields.items()}
    return segment("OBR", {1: number, 3: f"F{number}^LIS", 4: "50545-3^Susceptibility panel^LN", 7: "20240102080000",
                           22: "20240104100000", 24: "MB", 25: "F", **own})


def _observations(conversion: Conversion) -> dict[str, dict[str, Any]]:
    """The Observations by code and value, such as ``600-7 112283007``."""
    made = {}
    for one in resources(conversion, "Observation"):
        coded = one.get("valueCodeableConcept", {}).get("coding", [{"code": ""}])[0]["code"]
        value = coded or one.get("valueString", "")
        made[f"{one['code']['coding'][0]['code']} {value}".strip()] = one
        assert check(one) == []
    return made


def _names(conversion: Conversion, references: list[dict[str, Any]]) -> list[str]:
    names = {f"Observation/{one['id']}": name for name, one in _observations(conversion).items()}
    return [names[one["reference"]] for one in references]


def test_susceptibilities_hang_on_their_isolate() -> None:
    """OBR-26 names the organism by OBX-3 and OBX-4, OBR-29 its order: hasMember and derivedFrom, for each isolate."""
    conversion = convert(CULTURE, ECOLI, KLEBSIELLA, _susceptibilities(
                             "2", F26="600-7&Organism&LN^1^Escherichia coli", F29="PL1&HIS^F1&LIS"), AMP, CIP,
                         _susceptibilities("3", F26="600-7&Organism&LN^2", F29="^F1&LIS"), ZONE)
    made = _observations(conversion)
    assert _names(conversion, made["600-7 112283007"]["hasMember"]) == ["28-1", "185-9"]
    assert _names(conversion, made["600-7 56415008"]["hasMember"]) == ["AMK"]
    assert _names(conversion, made["28-1"]["derivedFrom"]) == ["600-7 112283007"]
    assert _names(conversion, made["AMK"]["derivedFrom"]) == ["600-7 56415008"]
    assert conversion.remarks == []


def test_the_drug_says_how_it_was_tested_and_what_it_means() -> None:
    """MIC and zone: method OBX-17, value with unit, S, I or R of OBX-8."""
    made = _observations(convert(CULTURE, ECOLI, AMP.replace("||16", "|1|16"), ZONE.replace("||21", "|1|21")))
    assert made["28-1"]["valueQuantity"]["unit"] == "ug/mL" and made["28-1"]["method"]["coding"][0]["code"] == "MIC"
    assert made["28-1"]["interpretation"][0]["coding"][0]["display"] == "Resistant"
    assert made["AMK"]["valueQuantity"]["code"] == "mm" and made["AMK"]["method"]["text"] == "纸片扩散法"


def test_the_parents_order_is_what_the_childs_report_answers_too() -> None:
    """DiagnosticReport.basedOn: its own order and the parent's; its ServiceRequest is based on the parent's."""
    conversion = convert(CULTURE, ECOLI, _susceptibilities(F26="600-7^1", F29="PL1&HIS^F1&LIS"), AMP)
    culture, panel = resources(conversion, "ServiceRequest")
    report = resources(conversion, "DiagnosticReport")[1]
    assert [one["reference"] for one in report["basedOn"]] == [f"ServiceRequest/{panel['id']}",
                                                                f"ServiceRequest/{culture['id']}"]
    assert panel["basedOn"] == [{"reference": f"ServiceRequest/{culture['id']}"}] and "basedOn" not in culture


@pytest.mark.parametrize("parent", [
    {"F26": "600-7&Organism&LN^1", "F29": "PL1&HIS^F1&LIS"}, {"F26": "600-7^1", "F29": "PL1&HIS"},
    {"F26": "600-7^1", "F29": "^F1"}, {"F26": "600-7^1"}, {"F26": "600-7^^Escherichia coli"},
    {"F26": "600-7^1", "F50": "600-7^Blood culture^LN", "F54": "PL1&HIS^F1&LIS"}, {"F26": "600-7^1", "F52": "G1"}])
def test_a_parent_in_the_same_message_needs_little(parent: dict[str, str]) -> None:
    """By its placer's or filler's number, by OBR-26 alone, by its value, by OBR-54, by OBR-51 and 52."""
    conversion = convert(CULTURE.replace("|MB|F", "|MB|F" + "|" * 26 + "G1"), ECOLI,
                         KLEBSIELLA, _susceptibilities(**parent), AMP)
    made = _observations(conversion)
    assert _names(conversion, made["28-1"]["derivedFrom"]) == ["600-7 112283007"]
    assert _names(conversion, made["600-7 112283007"]["hasMember"]) == ["28-1"]
    assert "hasMember" not in made["600-7 56415008"]


def test_a_parent_of_an_earlier_message_is_pointed_to_without_a_look_up() -> None:
    """OBR-29.2 and OBR-50 are the report, OBR-26 the result in it: the id is the one that the first message gave."""
    first = convert(CULTURE, ECOLI)
    later = convert(_susceptibilities(F26="600-7&Organism&LN^1", F29="PL1&HIS^F1&LIS", F50="600-7^Blood culture^LN"),
                    AMP)
    [organism] = resources(first, "Observation")
    [ampicillin] = resources(later, "Observation")
    assert ampicillin["derivedFrom"] == [{"reference": f"Observation/{organism['id']}"}]
    assert resources(later, "ServiceRequest")[0]["basedOn"] == [{
        "reference": f"ServiceRequest/{resources(first, 'ServiceRequest')[0]['id']}", "type": "ServiceRequest",
        "identifier": resources(first, "ServiceRequest")[0]["identifier"][0]}]
    assert later.remarks == []


_WORDS = st.text("aB12 .-中大", min_size=1, max_size=6).filter(str.strip)


@settings(max_examples=200, deadline=None)
@given(service=_WORDS, filler=_WORDS, authority=_WORDS | st.just(""), code=_WORDS, sub_id=_WORDS | st.just(""),
       reflex=st.booleans())
def test_the_computed_id_is_always_the_parents_own(service: str, filler: str, authority: str, code: str, sub_id: str,
                                                   reflex: bool) -> None:
    """Whatever the numbers and codes are: what a child points to is what the parent's message stored."""
    obr = segment("OBR", {3: f"{filler}^{authority}", 4: f"{service}^x^L", 7: "20240102", 25: "F"})
    child = segment("OBR", {3: "F9", 4: "SUSC", 7: "20240102", 11: "G" if reflex else "", 25: "F",
                            26: f"{code}&x&L^{sub_id}", 29: f"^{filler}&{authority}", 50: f"{service}^x^L"})
    [parent] = resources(convert(obr, f"OBX|1|ST|{code}^x^L|{sub_id}|值||||||F"), "Observation")
    [made] = resources(convert(child, "OBX|1|ST|A^a||1||||||F"), "Observation")
    pointed = made["extension"][0]["extension"][0]["valueReference"] if reflex else made["derivedFrom"][0]
    assert pointed == {"reference": f"Observation/{parent['id']}"}


def test_an_earlier_parent_that_is_not_fully_named_is_remarked() -> None:
    """Without OBR-50 the order is known by its placer's number, the result is not; nothing is guessed."""
    conversion = convert(_susceptibilities(F26="600-7^1", F29="PL1&HIS^F1&LIS"), AMP)
    assert "derivedFrom" not in resources(conversion, "Observation")[0]
    assert resources(conversion, "ServiceRequest")[0]["basedOn"][0]["reference"].startswith("ServiceRequest/")
    assert [remark.where for remark in conversion.remarks] == ["OBR-26"]
    by_filler = resources(convert(_susceptibilities(F29="^F1&LIS"), AMP), "ServiceRequest")[0]
    assert by_filler["basedOn"] == [{"type": "ServiceRequest", "identifier": {
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "FILL"}]},
        "system": "urn:huren:h1:filler:LIS", "value": "F1"}}]


def test_panels_of_one_number_keep_their_ids_in_any_order() -> None:
    """Two susceptibility OBR with the same numbers and code are told apart by the isolate that they name."""
    one, two = (_susceptibilities("2", F26=f"600-7^{n}", F29="^F1&LIS") for n in (1, 2))
    ids = [[(r["id"], o["id"]) for r, o in zip(resources(made, "DiagnosticReport")[1:],
                                               resources(made, "Observation")[2:], strict=True)]
           for made in (convert(CULTURE, ECOLI, KLEBSIELLA, one, AMP, two, AMP),
                        convert(CULTURE, ECOLI, KLEBSIELLA, two, AMP, one, AMP))]
    assert ids[0] == ids[1][::-1]
    culture, panels = resources(convert(CULTURE, ECOLI, KLEBSIELLA, one, AMP, two, AMP), "ServiceRequest")
    assert panels["basedOn"] == [{"reference": f"ServiceRequest/{culture['id']}"}]


def test_a_reflex_test_is_triggered_by_its_parent() -> None:
    """OBR-11 G: no value follows from the other, so R5's triggeredBy, and no derivedFrom."""
    free = segment("OBR", {1: "2", 2: "PL2", 3: "F2", 4: "FT4^游离甲状腺素^L", 7: "20240102", 11: "G", 25: "F",
                           26: "TSH^", 29: "PL1^F1"})
    conversion = convert(OBR, "OBX|1|NM|TSH^促甲状腺素^L||9.1|mIU/L||H|||F", free, "OBX|1|NM|FT4||8|pmol/L|||||F")
    tsh, ft4 = resources(conversion, "Observation")
    assert ft4["extension"] == [{
        "url": "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.triggeredBy",
        "extension": [{"url": "observation", "valueReference": {"reference": f"Observation/{tsh['id']}"}},
                      {"url": "type", "valueCode": "reflex"}]}]
    assert "derivedFrom" not in ft4 and "hasMember" not in tsh and check(ft4) == []
    first, second = resources(conversion, "ServiceRequest")
    assert second["intent"] == "reflex-order"
    assert second["basedOn"] == [{"reference": f"ServiceRequest/{first['id']}"}]


def _at(line: str, sub_id: str) -> str:
    fields = line.split("|")
    fields[4] = sub_id
    return "|".join(fields)


def test_one_obr_with_sub_ids_is_read_alike() -> None:
    """Organism and drugs share OBX-4 within one OBR; a colony count belongs to the isolate and is not derived."""
    conversion = convert(CULTURE, ECOLI, _at("OBX|3|NM|CFU^菌落计数^L||100000|CFU/mL|||||F", "1"), _at(AMP, "1"),
                         KLEBSIELLA, _at(CIP, "2"))
    made = _observations(conversion)
    assert _names(conversion, made["600-7 112283007"]["hasMember"]) == ["CFU", "28-1"]
    assert _names(conversion, made["600-7 56415008"]["hasMember"]) == ["185-9"]
    assert "derivedFrom" not in made["CFU"]
    assert _names(conversion, made["185-9"]["derivedFrom"]) == ["600-7 56415008"]


def test_the_flat_form_of_chinese_laboratories() -> None:
    """Local codes: the drug in OBX-3, the organism in the OBX with the same OBX-4 that is the only word among them."""
    obr = OBR.replace("CBC^血常规^L", "XPY^血培养及药敏^L").replace("|HM|F", "|MB|F")
    conversion = convert(obr, "OBX|1|ST|XJ^细菌鉴定^L|1|大肠埃希菌||||||F",
                         "OBX|2|ST|AMP^氨苄西林^L|1|>=32|ug/ml||R|||F", "OBX|3|ST|IPM^亚胺培南^L|1|敏感||||||F",
                         "OBX|4|ST|XJ^细菌鉴定^L|2|肺炎克雷伯菌||||||F", "OBX|5|NM|AMK^阿米卡星^L|2|4|ug/ml||S|||F")
    made = _observations(conversion)
    assert [name[:3] for name in _names(conversion, made["XJ 大肠埃希菌"]["hasMember"])] == ["AMP", "IPM"]
    assert _names(conversion, made["XJ 肺炎克雷伯菌"]["hasMember"]) == ["AMK"]


def test_the_manifest_may_name_the_organisms_codes() -> None:
    """``organism_codes``: then OBR-24 is not needed, and without OBX-4 what follows an organism is its own."""
    conversion = convert(OBR, "OBX|1|ST|TM^涂片^L||革兰阴性杆菌||||||F", "OBX|2|ST|XJ^细菌鉴定^L||大肠埃希菌||||||F",
                         "OBX|3|NM|AMP^氨苄西林^L||32|ug/ml||R|||F", "OBX|4|ST|BZ^备注^L||复查||||||F",
                         "OBX|5|ST|XJ^细菌鉴定^L||肺炎克雷伯菌||||||F", "OBX|6|NM|AMK^阿米卡星^L||4|ug/ml||S|||F",
                         habits={"organism_codes": ["XJ"]})
    made = _observations(conversion)
    assert _names(conversion, made["XJ 大肠埃希菌"]["hasMember"]) == ["AMP"]
    assert _names(conversion, made["XJ 肺炎克雷伯菌"]["hasMember"]) == ["AMK"]
    assert "hasMember" not in made["TM 革兰阴性杆菌"]


@pytest.mark.parametrize("obr", [OBR.replace("|HM|F", "||F"), OBR])
def test_organisms_are_never_lines_of_one_text(obr: str) -> None:
    """TX with OBX-4 1, 2 would be lines of a text, and so would the same OBX-3 twice: isolates are results each."""
    conversion = convert(obr, "OBX|1|TX|600-7^^LN|1|E. coli||||||F", "OBX|2|TX|600-7^^LN|2|Klebsiella||||||F",
                         "OBX|3|TX|XJ|1|Proteus||||||F", "OBX|4|TX|XJ||Serratia||||||F", "OBX|5|TX|XJ||Candida||||||F",
                         habits={"organism_codes": ["XJ"]})
    assert [one["valueString"] for one in resources(conversion, "Observation")] == [
        "E. coli", "Klebsiella", "Proteus", "Serratia", "Candida"]
    assert len(resources(conversion, "Observation")[1]["extension"]) == 1  # OBX-4 is kept


@pytest.mark.parametrize("lines", [
    ["OBX|1|ST|HBSAG^乙肝表面抗原^L|1|阴性||||||F", "OBX|2|ST|HCV^丙肝抗体^L|1|阳性|||R|||F"],
    ["OBX|1|NM|WBC|1|5|g/L||N|||F", "OBX|2|NM|HGB|1|130|g/L||N|||F"],
    ["OBX|1|TX|A^所见^L|1|一||||||F", "OBX|2|TX|B^印象^L|1|二||||||F"]])
def test_the_same_sub_id_alone_is_no_group(lines: list[str]) -> None:
    """Many laboratories send OBX-4 1 with everything, and R means reactive as well: nothing is guessed."""
    for one in resources(convert(OBR, *lines), "Observation"):
        assert "hasMember" not in one and "derivedFrom" not in one


def test_two_words_in_one_group_are_not_told_apart() -> None:
    """A smear and an organism with the same OBX-4, and no code that says which is which."""
    conversion = convert(OBR.replace("|HM|F", "|MB|F"), "OBX|1|ST|TM^涂片^L|1|革兰阴性杆菌||||||F",
                         "OBX|2|ST|XJ^鉴定^L|1|大肠埃希菌||||||F", "OBX|3|NM|AMP^氨苄西林^L|1|32|ug/ml||R|||F")
    assert all("hasMember" not in one for one in resources(conversion, "Observation"))


def test_dotted_sub_ids_belong_to_what_they_continue() -> None:
    """1.1 and 1.2 are members of 1, 1.1.1 of 1.1; without a result 1 there is no head, and the text of OBX-4 stays."""
    sub_ids = {"A": "1", "B": "1.1", "C": "1.2", "D": "1.1.1", "E": "2.1", "F": "3", "G": "3", "H": "3.1"}
    conversion = convert(OBR, *(f"OBX|1|ST|{code}^项目^L|{sub}|值||||||F" for code, sub in sub_ids.items()))
    made = _observations(conversion)
    members = {name: _names(conversion, one["hasMember"]) for name, one in made.items() if "hasMember" in one}
    assert members == {"A 值": ["B 值", "C 值"], "B 值": ["D 值"]}
    assert made["E 值"]["extension"][0]["extension"] == [{"url": "original-sub-identifier", "valueString": "2.1"}]


def test_og_tells_group_sequence_and_identifier() -> None:
    """OBX-4 as of 2.8.2 (OG), by the guide's extension."""
    [one] = resources(convert("OBX|1|ST|A^项目^L|^1^3^2|值||||||F"), "Observation")
    assert [(part["url"], str(part.get("valueDecimal", part.get("valueString")))) for part in
            one["extension"][0]["extension"]] == [("group", "1"), ("sequence", "3"), ("identifier", "2")]
    assert check(one) == []


def test_what_is_no_parent_is_remarked_and_harmless() -> None:
    """Some systems write a status into OBR-26."""
    conversion = convert(OBR + "|F", "OBX|1|NM|WBC||5|g/L|||||F")
    assert [remark.where for remark in conversion.remarks] == ["OBR-26"]
    assert resources(conversion, "DiagnosticReport")[0]["id"] == resources(convert(
        OBR, "OBX|1|NM|WBC||5|g/L|||||F"), "DiagnosticReport")[0]["id"]
    assert make_source().habits == {}
