"""The text of reports: lines, findings and impression, one narrative."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.fhir import check
from gateway.fhir.display import concluding, value_of
from gateway.fhir.narrative import problem
from tests.support_source import OBR, convert, resources

RAD = OBR.replace("CBC^血常规^L", "CT1^胸部CT^L").replace("||HM|F", "||RAD|F")
PLAIN = OBR.replace("||HM|F", "|||F")


def _report(*segments: str, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    conversion = convert(*segments, **changes)
    for change in conversion.changes:
        check.require_valid(change.resource, profile=True)
    [report] = resources(conversion, "DiagnosticReport")
    return report, resources(conversion, "Observation")


def _lines(report: dict[str, Any]) -> str:
    """The narrative without its div."""
    assert problem(report["text"]["div"]) is None and report["text"]["status"] == "additional"
    return report["text"]["div"].removeprefix('<div xmlns="http://www.w3.org/1999/xhtml">').removesuffix("</div>")


def test_findings_and_impression_are_told_apart() -> None:
    """The impression is the report's conclusion; the narrative holds both, under their headings, in order."""
    report, observations = _report(RAD, "OBX|1|TX|F^检查所见^L||右肺<上叶>见结节~直径 5mm||||||F",
                                   "OBX|2|TX|I^诊断意见^L||右肺上叶结节 & 复查||||||F")
    assert report["conclusion"] == "右肺上叶结节 & 复查"
    assert _lines(report) == ("<h4>检查所见</h4><p>右肺&lt;上叶&gt;见结节<br/>直径 5mm</p>"
                              "<h4>诊断意见</h4><p>右肺上叶结节 &amp; 复查</p>")
    assert [one["valueString"] for one in observations] == ["右肺<上叶>见结节\n直径 5mm", "右肺上叶结节 & 复查"]
    assert len(report["result"]) == 2


@pytest.mark.parametrize("impression", [
    "19005-8^Radiology Imaging study [Impression]^LN", "X^任意^L^19005-8^impr^LN", "24627-2&IMP^CT Chest^LN",
    "24627-2&IMP1^CT^LN", "CT1&IMP^胸部CT^L", "121073^x^DCM", "22637-3^Pathology report diagnosis^LN", "I^诊断意见^L",
    "I^ 【影像诊断】 ^L", "I^超声提示：^L", "I^IMPRESSION:^L", "I^Conclusion^L", "^印象", "I^x^L^J^结论^M"])
def test_what_an_impression_is_called(impression: str) -> None:
    """LOINC, DICOM's code, the suffix of version 2, or a heading that means nothing else."""
    report, _ = _report(PLAIN, f"OBX|1|TX|{impression}||肺炎||||||F")
    assert report["conclusion"] == "肺炎" and "<p>肺炎</p>" in _lines(report)


@pytest.mark.parametrize("part", [
    "59776-5^Procedure findings^LN", "18782-3^x^LN", "24627-2&GDT^CT^LN", "121071^x^DCM", "F^影像所见^L",
    "F^Findings^L",
    "24627-2&REC^CT^LN", "X^建议^L", "19005-8^没有系统^L"])
def test_what_is_no_impression(part: str) -> None:
    """Findings, recommendations, and a LOINC number that is the hospital's own code."""
    report, _ = _report(RAD, f"OBX|1|TX|{part}||未见异常||||||F")
    assert "conclusion" not in report and "<p>未见异常</p>" in _lines(report)


def test_the_manifest_says_what_a_part_is() -> None:
    """The table for OBX-3 comes before everything else, and may say that a known heading is none."""
    tables = {"OBX-3": {"ZD": "impression", "I": "text"}}
    report, _ = _report(PLAIN, "OBX|1|ST|ZD^最后^L||肺炎||||||F", "OBX|2|ST|I^诊断意见^L||见附件||||||F",
                        tables=tables)
    assert report["conclusion"] == "肺炎"


def test_a_coded_impression_and_several_make_the_conclusion() -> None:
    """Impressions under &IMP may be coded, and stay Observations of their own; the conclusion has a line for each."""
    report, observations = _report(RAD, "OBX|1|CE|71020&IMP^胸片^L|1|J18^肺炎^I10||||||F",
                                   "OBX|2|CE|71020&IMP^胸片^L|2|^心影增大||||||F")
    assert report["conclusion"] == "肺炎\n心影增大" and len(observations) == 2
    assert _lines(report) == "<h4>胸片 (impression)</h4><p>肺炎</p><p>心影增大</p>"
    assert observations[0]["code"]["coding"][0]["code"] == "71020&IMP"


def test_lines_without_obx_4_are_one_text() -> None:
    """One OBX for each line: one Observation, whose id does not depend on how many lines there are."""
    lines = [f"OBX|{n}|TX|F^检查所见^L||第{n}行||||||F" for n in (1, 2, 3)]
    report, [found] = _report(RAD, *lines)
    assert found["valueString"] == "第1行\n第2行\n第3行" and len(report["result"]) == 1
    _, [shorter] = _report(RAD, *lines[:2])
    assert shorter["id"] == found["id"]
    assert _lines(report) == "<h4>检查所见</h4><p>第1行<br/>第2行<br/>第3行</p>"


@pytest.mark.parametrize("kind", ["TX", "FT", "ST"])
def test_lines_that_obx_4_counts_are_one_text(kind: str) -> None:
    """OBX-4 1, 2, 3 in a report of images: the same Observation as a report of one line."""
    lines = [f"OBX|{n}|{kind}|F^检查所见^L|{n}|第{n}行||||||F" for n in (1, 2, 3)]
    _, [found] = _report(RAD, *lines)
    assert found["valueString"] == "第1行\n第2行\n第3行" and "extension" not in found
    _, [one] = _report(RAD, lines[0])
    assert one["id"] == found["id"]


@pytest.mark.parametrize("segments, count", [
    ([OBR, "OBX|1|TX|M^菌^L|1|甲||||||F", "OBX|2|TX|M^菌^L|2|乙||||||F"], 2),  # a laboratory's isolates
    ([RAD, "OBX|1|TX|F^检查所见^L|1|甲||||||F", "OBX|2|TX|F^检查所见^L|3|乙||||||F"], 2),  # no count
    ([RAD, "OBX|1|TX|F^检查所见^L|a|甲||||||F", "OBX|2|TX|F^检查所见^L|b|乙||||||F"], 2),
    ([RAD, "OBX|1|TX|F^检查所见^L||甲||||||F", "OBX|2|TX|F^检查所见^L||乙||||||P"], 2),  # another status
    ([RAD, "OBX|1|TX|F^检查所见^L||甲||||||F", "NTE|1||注", "OBX|2|TX|F^检查所见^L||乙||||||F"], 2),
    ([RAD, "OBX|1|TX|F^检查所见^L||甲||||||F", "OBX|2|TX|I^印象^L||乙||||||F", "OBX|3|TX|F^检查所见^L||丙||||||F"], 3),
    ([OBR, "OBX|1|ST|M^颜色^L||黄||||||F", "OBX|2|ST|M^颜色^L||红||||||F"], 2),  # two results typed ST
    ([RAD, "OBX|1|NM|M^径^L||1||||||F", "OBX|2|NM|M^径^L||2||||||F"], 2),
    ([OBR, "OBX|1|TX|M^备注^L||甲||||||F", "OBX|2|TX|M^备注^L||乙||||||F"], 1)])
def test_what_is_a_line_and_what_a_result_of_its_own(segments: list[str], count: int) -> None:
    """Lines differ in OBX-1, OBX-4 and OBX-5 alone; OBX-4 in a laboratory's report tells results apart."""
    _, observations = _report(*segments)
    assert len(observations) == count
    told = "\n".join(str(one.get("valueString", one.get("valueQuantity", {}).get("value"))) for one in observations)
    assert sorted(told.split("\n")) == sorted(segment.split("|")[5] for segment in segments if segment[:3] == "OBX")


def test_notes_behind_the_last_line_belong_to_the_text() -> None:
    """NTE after the lines is the Observation's note."""
    _, [found] = _report(RAD, "OBX|1|TX|F^检查所见^L||甲||||||F", "OBX|2|TX|F^检查所见^L||乙||||||F", "NTE|1||注")
    assert found["note"] == [{"text": "注"}] and found["valueString"] == "甲\n乙"


def test_a_text_without_a_code_is_the_reports_own() -> None:
    """TX lines and documents without OBX-3: one text under the report's name and local code, blank lines kept."""
    sent = ("", "超声心动图", "", "左室大小正常")
    report, [found] = _report(RAD, *(f"OBX|{n}|TX|||{line}||||||F" for n, line in enumerate(sent, 1)))
    own = {"system": "urn:huren:h1:item", "code": "CT1", "display": "胸部CT"}
    assert found["code"] == {"coding": [own], "text": "胸部CT"} and found["valueString"] == "超声心动图\n\n左室大小正常"
    assert _lines(report) == "<h4>胸部CT</h4><p>超声心动图<br/><br/>左室大小正常</p>"
    report, _ = _report(RAD, "OBX|1|ED|||^AP^PDF^Base64^JVBERg==||||||F")
    assert report["presentedForm"][0]["title"] == "胸部CT"
    _, [found] = _report(OBR, "OBX|1|TX|||标本溶血||||||F")  # the unified panel has no result of its own
    assert [one["system"] for one in found["code"]["coding"]] == ["urn:huren:h1:item"]
    with pytest.raises(GatewayError) as refusal:
        _report(RAD, "OBX|1|NM|||5||||||F")
    assert refusal.value.where == "OBX-3"


def test_measurements_stand_in_the_text_of_an_imaging_report() -> None:
    """The narrative is the whole report: numbers and coded parts too, but no UID and no document."""
    report, _ = _report(RAD, "OBX|1|HD|113014^DICOM Study^DCM||1.2.3.4.5.6||||||F",
                        "OBX|2|NM|D^结节直径^L||5.0|mm|||||F", "OBX|3|CWE|L^部位^L||RUL^右肺上叶^L||||||F",
                        "OBX|4|TX|I^印象^L||结节||||||F", "OBX|5|ED|P^报告^L||^AP^PDF^Base64^JVBERg==||||||F")
    assert _lines(report) == ("<h4>结节直径</h4><p>5.0 mm</p><h4>部位</h4><p>右肺上叶</p><h4>印象</h4><p>结节</p>")


@pytest.mark.parametrize("segments", [
    ["OBX|1|NM|WBC^白细胞||5|g/L|||||F"], ["OBX|1|NM|WBC^白细胞||5|g/L|||||F", "OBX|2|TX|C^备注||标本溶血||||||F"],
    ["OBX|1|ST|A^颜色||黄||||||F"], ["OBX|1|TX|A^颜色||黄||||||F"]])
def test_a_table_of_results_has_no_narrative(segments: list[str]) -> None:
    """Laboratory results are read as a table; a comment beside them makes no report in words."""
    report, _ = _report(OBR, *segments)
    assert "text" not in report and "conclusion" not in report


def test_a_long_text_of_a_laboratory_is_a_report_in_words() -> None:
    """A pathology report without headings: one narrative, no conclusion by guess."""
    text = "送检组织一块，大小约两厘米，切面灰白，质中。" * 4
    report, _ = _report(OBR, f"OBX|1|FT|P^报告^L||{text}\\.br\\完||||||F")
    assert _lines(report) == f"<h4>报告</h4><p>{text}<br/>完</p>" and "conclusion" not in report


def test_a_text_beyond_a_megabyte_is_a_document() -> None:
    """R4's strings end at 1 MB: a longer text is kept as a plain text document; several long ones have no narrative."""
    text = "长" * 1_000_001
    conversion = convert(RAD, f"OBX|1|TX|I^印象^L||{text}||||||F")
    assert [document.data for document in conversion.documents] == [text.encode()]
    report, _ = _report(RAD, f"OBX|1|TX|F^检查所见^L||{text[:600_000]}||||||F",
                        f"OBX|2|TX|I^印象^L||{text[:600_000]}||||||F")
    assert "text" not in report and len(report["conclusion"]) == 600_000


def test_two_reports_of_one_message_have_their_own_texts() -> None:
    """Lines of the next OBR do not continue those of this one."""
    conversion = convert(RAD, "OBX|1|TX|I^印象^L||甲||||||F", RAD.replace("F1", "F2").replace("OBR|1", "OBR|2"),
                         "OBX|1|TX|I^印象^L||乙||||||F")
    assert [one["conclusion"] for one in resources(conversion, "DiagnosticReport")] == ["甲", "乙"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="|^~\\&\r\n"), min_size=1, max_size=60))
def test_any_text_makes_a_narrative_that_r4_allows(text: str) -> None:
    """Markup, quotes and control characters of the sender are text, never XHTML."""
    conversion = convert(RAD, f"OBX|1|TX|I^印象^L||x{text}||||||F")
    [report] = resources(conversion, "DiagnosticReport")
    check.require_valid(report)
    assert "<script" not in report["text"]["div"]


@pytest.mark.parametrize("texts, conclusion, twice", [
    (["所见", "肺炎"], "肺炎", {1}), (["肺炎", "肺炎"], "肺炎", {1}), (["所见", "肺炎", "心大"], "肺炎\n心大", {1, 2}),
    (["所见", "肺炎\n心大"], "肺炎\n心大", {1}), (["未见异常"], "胸部未见异常", set()), (["", "肺炎"], "", set()),
    (["肺炎"], "肺炎\n另有所述", set())])
def test_a_screen_shows_the_conclusion_once(texts: list[str], conclusion: str, twice: set[int]) -> None:
    """The impressions that make up the conclusion are left out, and nothing that only resembles it."""
    assert concluding(texts, conclusion) == twice


@pytest.mark.parametrize("obx, shown", [
    ("SN|A||^10^-^20|/HPF", ("10–20", "/HPF")), ("NR|A||^5|g/L", ("≤ 5", "g/L")), ("NR|A||5^|g/L", ("≥ 5", "g/L")),
    ("NM|A||1.50~1.52|g/L", ("1.50; 1.52", "g/L")), ("SN|A||^1^:^128|", ("1:128", "")),
    ("XPN|A||王^小明|", ("王小明", ""))])
def test_a_screen_shows_every_kind_of_value(obx: str, shown: tuple[str, str]) -> None:
    """Ranges, ratios and repeated values are not blank."""
    _, [found] = _report(OBR, f"OBX|1|{obx}|||||F")
    assert value_of(found) == shown
