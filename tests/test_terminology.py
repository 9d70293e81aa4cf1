"""The catalogue, hospitals' code maps and the URIs of coding systems."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.iso7064 import mod_37_36

from gateway.errors import Category, GatewayError
from gateway.terminology import (
    DCM,
    ITEMS,
    LOINC,
    PANELS,
    SNOMED,
    UCUM,
    Catalogue,
    CodeMap,
    CodeRow,
    Item,
    catalogue,
    check_item_code,
    code_rows,
    concept_map,
    dicom_scheme_uri,
    system_uri,
)

CODES = sorted(catalogue().items)
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_the_catalogue_is_whole() -> None:
    """427 items, 107 exams and 320 tests, 45 panels and 44 coverage edges, each code with a right check character."""
    known = catalogue()
    domains = [item.domain for item in known.items.values()]
    assert (domains.count("exam"), domains.count("test")) == (107, 320)
    assert (len(known.items), len(known.panels), len(known.edges)) == (427, 45, 44)
    assert [check_item_code(code) for code in CODES] == CODES
    assert len({code[:-1] for code in CODES}) == 427


@given(st.sampled_from(CODES), st.integers(0, 6), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_found(code: str, at: int, character: str) -> None:
    """ISO 7064 MOD 37,36 finds every single wrong character, and the refusal names the place and not the code."""
    wrong = code[:at] + character + code[at + 1:]
    if wrong == code:
        return
    with pytest.raises(GatewayError) as refused:
        check_item_code(wrong, "codes.csv:7")
    assert (refused.value.category, refused.value.where) == (Category.INVALID, "codes.csv:7")


@pytest.mark.parametrize("text", ["", "thm001q", "THM001", "白细胞计数", "THM001Q "])
def test_what_is_no_code_is_refused(text: str) -> None:
    """Lower case, missing characters and other texts are no item codes."""
    with pytest.raises(GatewayError):
        check_item_code(text)


def test_panels_and_items_tell_the_same_story() -> None:
    """An item names exactly the panels that list it, and every member of a panel is an item."""
    known = catalogue()
    listed = {(panel.code, member) for panel in known.panels.values() for member in panel.members}
    named = {(panel, item.code) for item in known.items.values() for panel in item.panels}
    assert listed == named
    assert known.members("P-RET") == ("THM025A", "THM0268")
    assert known.members("P-NONE") == ()


def test_items_carry_what_rules_need() -> None:
    """One exam and one test, field by field."""
    assert catalogue().items["ECT029W"] == Item(
        "ECT029W", "exam", "CT", "踝关节CT平扫", "CT ankle joint, plain", modality="CT", body_site="ankle", sided=True,
        contrast="none", result_type="report", validity_days=30, loinc="36425-7")
    assert catalogue().items["THM001Q"] == Item(
        "THM001Q", "test", "HM", "白细胞计数", "White blood cell count", specimen="全血(EDTA)", result_type="Q",
        unit="10*9/L", panels=("P-CBC",), validity_days=3, rapid_change=True, loinc="6690-2")
    assert catalogue().display("THM001Q", "en") == "White blood cell count"
    assert catalogue().display("P-CBC") == "血常规(五分类)"
    assert catalogue().display("X") is None


@pytest.mark.parametrize(("code", "loinc"), [
    ("THM001Q", "6690-2"),  # checked
    ("ECT002H", "24726-2"),  # read
    ("THM013I", None),  # loose: only inexact
    ("TCG002Z", None),  # unchecked
    ("ECT003F", None),  # read, and the note says that LOINC's code is wider
    ("TIM004P", None),  # none
    ("NONE", None)])
def test_loinc_only_where_it_is_equivalent(code: str, loinc: str | None) -> None:
    """A coding says "the same": loose, wider and unchecked codes never become one."""
    assert catalogue().loinc_of(code) == loinc
    assert [c["code"] for c in catalogue().codings(code) if c["system"] == LOINC] == ([loinc] if loinc else [])


def test_coverage_edges_know_items_and_say_why() -> None:
    """Every edge joins two items, with a reason; all three strengths are there."""
    known = catalogue()
    assert {edge.coverage for edge in known.edges} == {"full", "advisory", "none"}
    assert all({edge.prior, edge.order} <= known.items.keys() and edge.reason for edge in known.edges)
    assert [e.coverage for e in known.edges if (e.prior, e.order) == ("ECT012D", "ECT010H")] == ["none"]


def test_the_catalogue_is_light() -> None:
    """Loading it in a fresh process costs under 10 MB; the README has the measured time."""
    script = ("import os, gateway.errors, orjson, stdnum.iso7064.mod_37_36\n"
              "def rss():\n"
              "    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
              "before = rss()\n"
              "from gateway.terminology import catalogue\n"
              "assert len(catalogue().items) == 427\n"
              "print(rss() - before)")
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert int(done.stdout) < 10_000_000


# ------------------------------------------------------------------------------------------------ code maps


def test_a_local_code_has_unified_then_loinc_coding() -> None:
    """Unified first, then LOINC; a panel by its own system; unmapped and unknown codes have none."""
    codes = CodeMap([CodeRow(2, "1001", "THM001Q", "白细胞", "10^9/L"), CodeRow(3, "9001", "P-CBC"),
                     CodeRow(4, "77", "", "新项目")])
    assert codes.codings("1001") == [{"system": ITEMS, "code": "THM001Q", "display": "白细胞计数"},
                                     {"system": LOINC, "code": "6690-2"}]
    assert codes.codings("9001") == [{"system": PANELS, "code": "P-CBC", "display": "血常规(五分类)"}]
    assert codes.codings("77") == codes.codings("unknown") == codes.codings("") == []
    assert (codes.item("1001"), codes.item("77")) == ("THM001Q", None)
    assert (codes.unit("1001"), codes.unit("x")) == ("10^9/L", "")
    assert (len(codes), "77" in codes, "unknown" in codes) == (3, True, False)


def test_a_loinc_code_needs_no_row() -> None:
    """A sender's LOINC code has the unified coding of its equivalent item; a row for it wins, even an empty one."""
    codes = CodeMap([CodeRow(2, "2951-2", ""), CodeRow(3, "2075-0", "TBC0282")])
    assert codes.codings("2823-3", LOINC) == [{"system": ITEMS, "code": "TBC0274", "display": "钾"}]
    assert codes.codings("2823-3") == codes.codings("2823-3", "urn:other") == []
    assert codes.codings("51637-7", LOINC) == []  # inexact
    assert codes.codings("2951-2", LOINC) == []
    assert codes.codings("2075-0", LOINC)[0]["code"] == "TBC0282"
    assert all(catalogue().of_loinc(item.loinc) == item.code for item in catalogue().items.values() if item.loinc)


def test_a_code_that_is_no_item_by_nature_is_told_from_an_unmapped_one() -> None:
    """``-`` has no coding, as an empty item has none, but is not to be counted as unmapped."""
    codes = CodeMap([CodeRow(2, "FIND", "-"), CodeRow(3, "77", "")])
    assert codes.codings("FIND") == codes.codings("77") == []
    assert [codes.without_item(local) for local in ("FIND", "77", "unknown")] == [True, False, False]
    assert codes.item("FIND") is None


def test_codings_are_given_away() -> None:
    """A caller may change what it got; the next caller sees the map as it was."""
    codes = CodeMap([CodeRow(2, "1", "THM001Q")])
    codes.codings("1")[0]["display"] = "changed"
    codes.codings("1").clear()
    assert codes.codings("1")[0]["display"] == "白细胞计数"


@pytest.mark.parametrize(("unit", "systems"), [
    ("umol/L", [ITEMS, LOINC]), ("mmol/L", [ITEMS, LOINC]), ("", [ITEMS, LOINC]), ("某单位", [ITEMS, LOINC]),
    ("mg/dL", [ITEMS])])
def test_no_loinc_code_for_another_kind_of_quantity(unit: str, systems: list[str]) -> None:
    """Creatinine in mg/dL is the same item, and another LOINC code than that in umol/L."""
    assert [c["system"] for c in CodeMap([CodeRow(2, "CREA", "TBC020I", "", unit)]).codings("CREA")] == systems


HEADER = "local,item,display,unit\n"


@pytest.mark.parametrize(("text", "line"), [
    (HEADER + "1,THM001Q,a,\n2,THM002P,b,\n", 3),  # wrong check character
    (HEADER + "1,THM999E,a,\n", 2),  # no such item
    (HEADER + "1,P-XYZ,a,\n", 2),
    (HEADER + ",THM001Q,a,\n", 2),  # no local code
    (HEADER + "1,THM001Q,a,\n\n1,THM002O,a,\n", 4),  # twice, after an empty line
    (HEADER + '1,THM001Q,"two\nlines",\n2,bad,,\n', 4),
    (HEADER + "1,THM001Q,a,g/L,more\n", 2),
    ("local;item;display;unit\n", 1), ("", 1), (HEADER + '1,"THM', 2)])
def test_a_wrong_row_is_refused_with_its_line(text: str, line: int) -> None:
    """INVALID, at the line of the file where an editor has to look."""
    with pytest.raises(GatewayError) as refused:
        CodeMap(code_rows(text))
    assert (refused.value.category, refused.value.where) == (Category.INVALID, f"codes.csv:{line}")


def test_an_item_of_a_later_version_can_be_mapped() -> None:
    """A code that continues a category's serials, with its right check character: mapped, without a name of ours."""
    later = CodeMap(code_rows(HEADER + "9,ECT038U,肘关节CT,\n"))
    assert later.codings("9") == [{"system": ITEMS, "code": "ECT038U"}]
    for wrong in ("ECT038V", "EZZ038" + mod_37_36.calc_check_digit("EZZ038"), "ECT000" +
                  mod_37_36.calc_check_digit("ECT000")):
        with pytest.raises(GatewayError):
            CodeMap(code_rows(HEADER + f"9,{wrong},x,\n"))
    made = concept_map("h", "urn:h", code_rows(HEADER + "9,ECT038U,肘关节CT,\n"))
    assert made["group"][0]["element"][0]["target"] == [{"code": "ECT038U", "equivalence": "equivalent"}]


def test_a_spreadsheet_s_file_is_read() -> None:
    """Byte order mark, CRLF, spaces around cells, quoted commas and missing last cells are as spreadsheets write."""
    rows = code_rows('\ufefflocal,item,display,unit\r\n 1 ,THM001Q,"白细胞, 计数",10^9/L\r\n2,THM002O\r\n,,,\r\n')
    assert rows == [CodeRow(2, "1", "THM001Q", "白细胞, 计数", "10^9/L"), CodeRow(3, "2", "THM002O", "", "")]


def test_rows_may_be_dictionaries() -> None:
    """What `csv.DictReader` gives is taken as it is; its first row stands in line 2."""
    rows = [{"local": "1", "item": "THM001Q", "display": "", "unit": ""}]
    assert CodeMap(rows).item("1") == "THM001Q"
    with pytest.raises(GatewayError) as refused:
        CodeMap([*rows, {"local": "2", "item": "THM001Z"}])
    assert refused.value.where == "codes.csv:3"


@given(st.dictionaries(st.text("ABC123", min_size=1, max_size=5),
                       st.sampled_from([*CODES, *catalogue().panels, "", "-"])))
def test_a_map_and_its_concept_map_say_the_same(mapped: dict[str, str]) -> None:
    """Every local code is in the ConceptMap once, with the item that the CodeMap gives, or unmatched."""
    rows = [CodeRow(line, local, item) for line, (local, item) in enumerate(mapped.items(), 2)]
    codes = CodeMap(rows)
    resource = concept_map("hz-demo-1", "urn:huren:hz-demo-1:item", rows)
    found = {element["code"]: (group["target"], element["target"][0])
             for group in resource.get("group", ()) for element in group["element"]}
    assert found.keys() == mapped.keys() == {row.local for row in rows}
    for local, (system, target) in found.items():
        coding = codes.codings(local)
        if coding:
            assert (target["equivalence"], system, target["code"]) == ("equivalent", coding[0]["system"], mapped[local])
        else:
            assert target == {"equivalence": "unmatched"}


def test_a_concept_map_of_a_wrong_row_is_refused() -> None:
    """No map is published with an item that the catalogue does not have."""
    with pytest.raises(GatewayError) as refused:
        concept_map("h", "urn:huren:h:item", [CodeRow(9, "1", "THM002P")])
    assert refused.value.where == "codes.csv:9"


def test_another_catalogue_may_be_given() -> None:
    """A region's own catalogue works the same; the shipped one is not in the way."""
    own = Catalogue([Item("THM001Q", "test", "HM", "甲", "A")], version="9")
    assert CodeMap([CodeRow(2, "x", "THM001Q")], known=own).codings("x") == [
        {"system": ITEMS, "code": "THM001Q", "display": "甲"}]
    assert concept_map("h", "urn:h", [CodeRow(2, "x", "THM001Q")], known=own)["version"] == "9"


# ----------------------------------------------------------------------------------------- systems


@pytest.mark.parametrize(("name", "uri"), [
    ("LN", LOINC), ("ln", LOINC), (" LN ", LOINC), ("SCT", SNOMED), ("UCUM", UCUM), ("DCM", DCM),
    ("I10", "http://hl7.org/fhir/sid/icd-10"), ("ICD10", "http://hl7.org/fhir/sid/icd-10"),
    ("I9C", "http://hl7.org/fhir/sid/icd-9-cm"),
    ("HL70078", "http://terminology.hl7.org/CodeSystem/v2-0078"),
    ("HL70487", "http://terminology.hl7.org/CodeSystem/v2-0487"),
    ("L", None), ("99zzz", None), ("99LAB", None), ("", None), ("HL7", None), ("HL712345", None), ("ISO+", None)])
def test_v2_names_of_coding_systems(name: str, uri: str | None) -> None:
    """Table 0396 names have the URI that FHIR prescribes; local and unknown names have none."""
    assert system_uri(name) == uri


@pytest.mark.parametrize(("designator", "uri"), [
    ("SCT", SNOMED), ("LN", LOINC), ("DCM", DCM), ("UCUM", UCUM), ("dcm ", DCM), ("RADLEX", "http://radlex.org"),
    ("SRT", None), ("SNM3", None), ("99SDM", None), ("99PMP", None), ("", None)])
def test_dicom_designators(designator: str, uri: str | None) -> None:
    """A designator is never a URI itself; retired SNOMED-RT is not passed off as SNOMED CT."""
    assert dicom_scheme_uri(designator) == uri
