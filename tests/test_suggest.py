"""Candidates of the catalogue for a menu's rows: names, units, specimens, exams, and what is no test."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.__main__ import main
from gateway.errors import GatewayError
from gateway.onboarding import measures, names, words
from gateway.onboarding.menu import menu_rows
from gateway.onboarding.suggest import Candidate, MenuRow, suggest
from gateway.terminology.catalogue import catalogue

MENUS = Path(__file__).with_name("menus")


def first(display: str, unit: str = "", specimen: str = "", local: str = "x") -> str:
    """The first candidate, or nothing."""
    found = suggest([MenuRow(local, display, unit, specimen)])[0]
    return found[0].item if found else ""


@pytest.mark.parametrize("language", ["name_zh", "name_en"])
def test_the_catalogue_s_own_names_are_found(language: str) -> None:
    """Every item by its own name, first and alone sure."""
    items = list(catalogue().items.values())
    found = suggest([MenuRow("x", getattr(item, language)) for item in items])
    assert [
        (i.code, f[0].item if f else "")
        for i, f in zip(items, found, strict=True)
        if not f or f[0].item != i.code
    ] == []


@pytest.mark.parametrize(
    ("display", "unit", "specimen", "item"),
    [
        ("★谷丙转氨酶(ALT)", "U/L", "血清", "TBC001O"),
        ("1.丙氨酸氨基转移酶测定", "", "", "TBC001O"),
        ("ＡＬＴ", "U/L", "", "TBC001O"),
        ("丙胺酸轉胺酶", "U/L", "血清", "TBC001O"),
        ("谷丙转安酶", "U/L", "", "TBC001O"),
        ("alanine aminotransferase", "", "Serum", "TBC001O"),
        ("CA19-9", "U/ml", "", "TTM005P"),
        ("糖类抗原199", "", "", "TTM005P"),
        ("CMV-IgM抗体", "", "血清", "TID020L"),
        ("抗巨细胞病毒抗体IgM", "", "", "TID020L"),
        ("C反應蛋白 CRP", "mg/L", "血清", "TIM001V"),
        ("超敏C反应蛋白", "mg/L", "", "TIM002T"),
    ],
)
def test_one_test_has_many_spellings(display: str, unit: str, specimen: str, item: str) -> None:
    """Marks, numbering, width, script, method, abbreviation, order of words and a slip of the pen change nothing."""
    assert first(display, unit, specimen) == item


@pytest.mark.parametrize(
    ("display", "unit", "item"),
    [
        ("中性粒细胞", "%", "THM015E"),
        ("中性粒细胞", "10^9/L", "THM016C"),
        ("CK-MB", "U/L", "TBC061Z"),
        ("CK-MB", "ng/mL", "TCM001H"),
        ("TG", "mmol/L", "TBC0522"),
        ("TG", "ng/mL", "THR0094"),
        ("PCT", "%", "THM013I"),
        ("PCT", "ng/mL", "TIM003R"),
        ("乙肝表面抗原", "IU/mL", "TID002P"),
        ("乙肝表面抗原", "", "TID001R"),
        ("P", "mmol/L", "TBC031C"),
        ("P", "ng/mL", "THR0158"),
        ("CD4+T细胞", "%", "TIM042D"),
        ("CD4+T细胞", "个/uL", "TIM043B"),
        ("RDW", "%", "THM008C"),
    ],
)
def test_the_unit_tells_look_alikes_apart(display: str, unit: str, item: str) -> None:
    """The same name is another item in another unit."""
    assert first(display, unit) == item


@pytest.mark.parametrize(
    ("display", "specimen", "item"),
    [
        ("肌酐", "血清", "TBC020I"),
        ("肌酐", "尿液", "TUR020Q"),
        ("肌酐(尿)", "", "TUR020Q"),
        ("隐血", "粪便", "TST003N"),
        ("隐血", "尿", "TUR008I"),
        ("白细胞", "粪便", "TST001R"),
        ("白细胞", "EDTA血", "THM001Q"),
        ("葡萄糖", "脑脊液", ""),
        ("脑脊液蛋白", "", ""),
        ("胸水腺苷脱氨酶", "", ""),
        ("酸碱度", "动脉血", ""),
        ("尿素", "", "TBC0194"),
        ("尿酸", "", "TBC021G"),
    ],
)
def test_the_specimen_tells_look_alikes_apart(display: str, specimen: str, item: str) -> None:
    """Cerebrospinal fluid is not serum; a fluid that the catalogue has not has no candidate."""
    assert first(display, "", specimen) == item


@pytest.mark.parametrize(
    "display",
    [
        "床位费",
        "一级护理",
        "静脉注射",
        "阿莫西林胶囊 0.25g*24",
        "换药(大)",
        "血常规",
        "肝功能十项",
        "内生肌酐清除率",
        "糖化低密度脂蛋白",
        "血红蛋白H",
        "载脂蛋白E",
        "维生素B1",
        "双氢睾酮",
        "免疫球蛋白D",
        "胃镜检查",
        "心脏彩超",
        "右手食指正侧位片",
        "CT引导下穿刺活检",
        "Nursing care, per day",
        "离子钙",
        "乙酰胆碱受体抗体",
        "前列腺酸性磷酸酶",
        "雌三醇",
        "铅",
    ],
)
def test_what_the_catalogue_lacks_has_no_candidate(display: str) -> None:
    """A bed charge is no test, and a name that holds an item's name is not that item."""
    assert first(display) == ""


@pytest.mark.parametrize(
    ("display", "item"),
    [
        ("胸部CT平扫", "ECT010H"),
        ("螺旋CT 胸部 平扫+增强", "ECT011F"),
        ("CT Chest with contrast", "ECT011F"),
        ("低剂量胸部CT", "ECT012D"),
        ("肺部HRCT", "ECT013B"),
        ("头颅MRI平扫", "EMR001R"),
        ("磁共振 膝关节(左)平扫", "EMR0293"),
        ("MRCP", "EMR023F"),
        ("头颅MRA", "EMR004L"),
        ("DR 腰椎正侧位", "EDX008K"),
        ("胸片", "EDX001Y"),
        ("XR Knee 2 views Left", "EDX011U"),
        ("冠脉CTA", "ECT0333"),
        ("CTPA", "ECT0350"),
        ("彩色多普勒超声 甲状腺", "EUS002S"),
        ("双侧乳腺钼靶", "EMG001I"),
        ("常规心电图", "EEP001J"),
        ("24小时动态心电图", "EEP002H"),
        ("電腦斷層胸部無顯影劑", "ECT010H"),
        ("全腹CT平扫", "ECT0149"),
        ("上腹部+盆腔CT平扫", "ECT0149"),
    ],
)
def test_an_exam_is_read_word_by_word(display: str, item: str) -> None:
    """Modality, part, contrast and view, in any order and language."""
    assert first(display) == item


@pytest.mark.parametrize(
    ("display", "unit", "specimen", "item"),
    [
        ("U&E - Sodium", "mmol/L", "", "TBC0282"),
        ("血常规(五分类)-白细胞计数", "10^9/L", "", "THM001Q"),
        ("尿常规(白细胞酯酶)", "", "", "TUR012Q"),
        ("Pus cells - Stool R/E", "", "", "TST001R"),
        ("肿瘤标志物 肝癌PIVKA-II", "mAU/mL", "", "TTM017H"),
        ("Ferritin, Serum or Plasma", "ng/mL", "", "TBC038X"),
        ("S. Albumin", "g/dL", "", "TBC006E"),
        ("同型半胱氨酸(外送)", "", "", "TBC059N"),
        ("单项补体C3测定(免疫比浊法)", "项", "静脉血", "TIM011R"),
        ("氨基末端脑钠肽前体", "pg/mL", "", "TCM0083"),
        ("C-胜鏈胰島素", "ng/mL", "", "THR030A"),
        ("Smith Ab", "", "", "TIM020P"),
        ("披衣菌PCR", "", "", "TMB007U"),
        ("紅細胞體積分佈寬度(RDW-SD)", "fL", "", "THM009A"),
        ("抗核抗体滴度(ANA)", "", "", "TIM018D"),
    ],
)
def test_what_stands_beside_a_name_is_passed_over(display: str, unit: str, specimen: str, item: str) -> None:
    """A panel before or behind it, what it is for, its specimen, its method, any word for antibody or virus."""
    assert first(display, unit, specimen) == item


@pytest.mark.parametrize(
    "display",
    [
        "HBsAg PCR",
        "Protein S antigen",
        "PT ratio",
        "APTT比值",
        "CRP mRNA",
        "网织红细胞血红蛋白含量",
        "极低密度脂蛋白胆固醇",
        "α2巨球蛋白",
        "C肽(2h)",
        "肾素活性",
        "肾动脉彩超",
        "乳腺超声造影",
        "颅脑CT灌注成像",
        "72小时动态心电图",
        "运动心电图",
        "PET/MR",
        "心电监测(床旁)",
        "肘关节CT平扫",
        "颈椎张口位",
    ],
)
def test_a_near_miss_has_no_candidate(display: str) -> None:
    """Another kind of quantity, of result, of hour, of fraction, or another exam of the same part is another item."""
    assert first(display) == ""


@pytest.mark.parametrize(
    ("part", "plain", "enhanced"),
    [
        ("颅脑", "ECT001J", "ECT002H"),
        ("胸部", "ECT010H", "ECT011F"),
        ("全腹", "ECT0149", "ECT0157"),
        ("上腹部", "ECT0165", "ECT0173"),
        ("腰椎间盘", "ECT0253", ""),
    ],
)
def test_the_wordings_of_a_section_mean_one_exam(part: str, plain: str, enhanced: str) -> None:
    """Price lists, Taiwan and departments name modality, part and contrast in any order."""
    without = ("{}CT平扫", "X线计算机体层(CT){}平扫", "CT平扫检查:{}", "{}64排CT普通扫描", "電腦斷層-{}(無顯影劑)")
    with_contrast = ("{}CT平扫+增强", "X线计算机体层(CT){}增强扫描", "CT增强检查:{}", "電腦斷層-{}(無/有顯影劑)")
    assert {first(wording.format(part)) for wording in without} == {plain}
    assert {first(wording.format(part)) for wording in with_contrast} == {enhanced}


def test_parts_that_sound_alike_end() -> None:
    """The throat sounds like the eyes: what is respelt is respelt once."""
    assert first("鼻咽部MRI平扫+增强(加扫)") in ("", "EMR011N")
    assert first("茎部CT平扫+增强") == "ECT0085"


def test_what_is_often_listed_under_a_name_comes_behind_it() -> None:
    """A menu that says CRP may mean the sensitive one; one that says which gets that alone."""
    assert [c.item for c in suggest([MenuRow("x", "CRP", "mg/L")])[0]] == ["TIM001V", "TIM002T"]
    assert [c.item for c in suggest([MenuRow("x", "超敏C反应蛋白", "mg/L")])[0]] == ["TIM002T"]
    assert [c.item for c in suggest([MenuRow("x", "肌钙蛋白T", "ng/L")])[0]] == ["TCM0067", "TCM0059"]
    assert [c.item for c in suggest([MenuRow("x", "肌钙蛋白T", "ng/mL")])[0]] == ["TCM0059", "TCM0067"]


def test_a_code_helps_where_there_is_no_name() -> None:
    """An abbreviation, or the first letters of a name; a number says nothing."""
    assert first("", "U/L", local="ALT") == "TBC001O"
    assert first("", "", local="wsljzd") == ""
    assert first("", "U/L", local="10017") == ""


def test_neighbours_decide_between_equals() -> None:
    """Beside amylase's urinary neighbours or a blood count, what stands alone is read as theirs."""
    alone = suggest([MenuRow("x", "PCT")])[0]
    beside = suggest([MenuRow("x", "PCT", neighbours=("白细胞计数", "血小板计数", "平均血小板体积"))])[0]
    assert {c.item for c in alone} == {c.item for c in beside} == {"THM013I", "TIM003R"}
    assert beside[0].item == "THM013I"


def test_a_panel_is_a_candidate_only_where_asked_for() -> None:
    """``codes.csv`` may name a panel; a menu's suggestions are items."""
    panel = next(iter(catalogue().panels.values()))
    row = MenuRow("x", panel.name_zh)
    assert suggest([row], panels=True)[0][0].item == panel.code
    assert all(candidate.item in catalogue().items for candidate in suggest([row])[0])


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.text(max_size=40), st.text(max_size=12), st.text(max_size=12)),
        max_size=4,
    )
)
def test_any_menu_gets_sorted_scores(texts: list[tuple[str, str, str, str]]) -> None:
    """Whatever stands in a menu: one list a row, at most three, falling scores between 0 and 1, items that exist."""
    rows = [MenuRow(*text) for text in texts]
    found = suggest(rows)
    assert len(found) == len(rows) and found == suggest(rows)
    for candidates in found:
        scores = [candidate.score for candidate in candidates]
        assert (
            len(scores) <= 3
            and scores == sorted(scores, reverse=True)
            and all(0 < score <= 1 for score in scores)
        )
        assert all(c.item in catalogue().items and c.reasons for c in candidates)
        assert len({c.item for c in candidates}) == len(candidates)


@given(
    st.sampled_from([item.name_zh for item in catalogue().items.values() if not item.name_zh[0].isdigit()]),
    st.sampled_from(["★", "*", "12.", "  ", "急诊"]),
)
def test_marks_and_numbers_before_a_name_change_nothing(name: str, mark: str) -> None:
    """What menus put before a name is no part of it."""
    assert [c.item for c in suggest([MenuRow("x", mark + name)])[0]] == [
        c.item for c in suggest([MenuRow("x", name)])[0]
    ]


def test_every_test_has_its_names() -> None:
    """The table of synonyms has each laboratory item once, and no item that is none; patterns compile."""
    tests = {item.code for item in catalogue().items.values() if item.domain == "test"}
    assert set(words.synonyms()) == tests
    assert names.key(names.plain("CA 19-9")) == names.key("ca199")
    assert not measures.units_apart("g/L", "mg/dL") and measures.units_apart("%", "10*9/L")


def test_the_command_prints_a_table_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seven columns by tabs, empty where nothing fits; ``--explain`` gives sentences."""
    menu = tmp_path / "menu.tsv"
    menu.write_text(
        "local\tdisplay\tunit\tspecimen\nALT\t谷丙转氨酶\tU/L\t血清\nBED\t床位费\t\t\n", encoding="utf-8"
    )
    with pytest.raises(SystemExit):
        main(["adapter", "suggest", str(menu)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "local\titem1\tscore1\titem2\tscore2\titem3\tscore3"
    assert lines[1].startswith("ALT\tTBC001O\t0.") and lines[2] == "BED" + "\t" * 6
    with pytest.raises(SystemExit):
        main(["adapter", "suggest", str(menu), "--explain"])
    assert "nothing of the catalogue fits" in capsys.readouterr().out


def test_a_menu_that_is_none_is_refused() -> None:
    """The first line names the columns; a row has no more cells than it."""
    with pytest.raises(GatewayError, match="display missing"):
        menu_rows("local\tname\n")
    with pytest.raises(GatewayError, match="4 cells, but the header has 2"):
        menu_rows("local\tdisplay\na\tb\tc\td\n")


def _judged(folder: str) -> tuple[list[tuple[str, list[Candidate]]], float]:
    pairs: list[tuple[str, list[Candidate]]] = []
    began = time.perf_counter()
    for menu in sorted((MENUS / folder).glob("*.tsv")):
        rows = list(
            csv.DictReader(
                menu.read_text(encoding="utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE
            )
        )
        found = suggest(
            [MenuRow(r["local"], r["display"], r["unit"] or "", r["specimen"] or "") for r in rows]
        )
        pairs += zip((r["item"] or "" for r in rows), found, strict=True)
    return pairs, time.perf_counter() - began


@pytest.mark.parametrize(("folder", "right"), [("tuning", 0.99), ("held-out", 0.98), ("colloquial", 0.8)])
def test_suggestions_are_right_on_menus_of_hospitals(
    folder: str, right: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Right at first place, and nothing for 98 % of what the catalogue lacks; a row takes less than 3 ms."""
    pairs, seconds = _judged(folder)
    there = [(item, found) for item, found in pairs if item]
    lacking = [found for item, found in pairs if not item]
    first = sum(bool(found) and found[0].item == item for item, found in there) / len(there)
    three = sum(item in {c.item for c in found} for item, found in there) / len(there)
    none = sum(not found for found in lacking) / len(lacking)
    with capsys.disabled():
        print(
            f"\n{folder}: {len(there)} rows of the catalogue, first {first:.1%}, three {three:.1%}; "
            f"{len(lacking)} others, none {none:.1%}; {seconds / len(pairs) * 1000:.1f} ms a row"
        )
    assert first >= right and three >= right and none >= 0.98
    assert seconds / len(pairs) < 10 / 3000
