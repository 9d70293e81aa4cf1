"""The catalogue's tables: what they make, and every refusal with its table and line."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.iso7064 import mod_37_36

from bench import catalogue as bench
from gateway.recognition.consistency import cycles, reach
from gateway.recognition.rules import Period, RuleSet
from gateway.recognition.tables import TABLES, Faults, Refused, read_tables, ruleset_from_tables
from gateway.recognition.versions import shipped, shipped_tables
from gateway.terminology import catalogue
from tests.catalogue_samples import head, small

ROOT = Path(__file__).parents[1]
EDITORS = ROOT.parent / "shared" / "catalogue"


def refusals(files: dict[str, bytes], *earlier: RuleSet) -> list[tuple[str, str]]:
    """Place and sentence of everything that is wrong."""
    try:
        ruleset_from_tables(files, earlier, institutions=())
    except Refused as error:
        return [(issue.where, issue.message) for issue in error.issues]
    return []


def test_small_tables_are_read() -> None:
    """Every table ends in its values."""
    rules = ruleset_from_tables(small(), institutions=())
    assert (rules.version, rules.effective, rules.title) == ("t1", date(2026, 12, 1), "small")
    assert rules.catalogue.items["THM001Q"].loinc == "6690-2"
    assert rules.catalogue.panels["P-CBC"].members == ("THM001Q", "THM002O")
    assert rules.core_members("P-CBC") == {"THM001Q"}
    assert [edge.coverage for edge in rules.catalogue.edges] == ["full", "full", "none"]
    assert rules.chain("3301") == ("3301", "33", "CN")
    assert (rules.institutions["a"].level, rules.institutions["b"].level) == (3, 0)
    assert [window.length for window in rules.windows] == [timedelta(days=30), timedelta(hours=36)]
    assert rules.qualifications[0].period == Period(date(2026, 1, 1), date(2026, 12, 31))
    assert [reason.preselected_by for reason in rules.reasons] == [("STATE_AFTER_SURGERY", "STATE_AFTER_ADMISSION"), ()]
    price = rules.price("a", "ECT0149", date(2026, 8, 1))
    assert price is not None and (str(price.price), price.fund) == ("300", Decimal("0.7"))
    assert rules.setting("a", "undecided") == "deny"
    assert rules.setting("a", "blocking", "ECT0149", "外科") == "yes"
    assert rules.settlements[0].share == Decimal("0.50")


#: (change of the small tables, place, a part of the sentence)
_REFUSED: list[tuple[dict[str, str], str, str]] = [
    # catalogue.toml
    ({"catalogue": "=>-"}, "catalogue.toml", "there is no catalogue.toml"),
    ({"catalogue": 'version = "t1"=>version = "t 1"'}, "catalogue.toml", "version must be"),
    ({"catalogue": "2026-12-01=>2026-13-01"}, "catalogue.toml", "no TOML"),
    ({"catalogue": '2026-12-01=>"soon"'}, "catalogue.toml", "effective must be the day"),
    ({"catalogue": 'effective=>efective'}, "catalogue.toml", "did you mean 'effective'"),
    ({"catalogue": 'title = "small"=>base = "nowhere"'}, "catalogue.toml", "base 'nowhere' is no version"),
    # items
    ({"items": "ECT0149=>ECT0148"}, "items.tsv:2", "check character of ECT0148 is wrong; for ECT014 it is 9"),
    ({"items": "THM002O=>THM001Q"}, "items.tsv:6", "THM001Q stands twice; the first is items.tsv:5"),
    ({"items": "ECT0149=>ect0149"}, "items.tsv:2", "no unified item code"),
    ({"items": "ECT0149|exam=>ECT0149|test"}, "items.tsv:2", "does not fit its domain and category"),
    ({"items": "exam|CT|全=>exam|MR|全"}, "items.tsv:2", "does not fit its domain and category"),
    ({"items": "exam|CT|全=>xray|CT|全"}, "items.tsv:2", "domain must be one of exam, test"),
    ({"items": "CT whole abdomen|30=>CT whole abdomen|thirty"}, "items.tsv:2", "default_validity_days must be a whole"),
    ({"items": "CT whole abdomen|30=>CT whole abdomen|-1"}, "items.tsv:2", "default_validity_days must be a whole"),
    ({"items": "白细胞计数|White cells=>|White cells"}, "items.tsv:5", "name_zh is empty"),
    ({"items": "6690-2|read=>6690-2|"}, "items.tsv:5", "loinc and loinc_confidence go together"),
    ({"items": "6690-2|read=>6690-2|surely"}, "items.tsv:5", "loinc_confidence must be one of"),
    ({"items": "P-CBC||=>||"}, "panels.tsv:2", "has the member THM002O, whose parent_panel does not name P-CBC"),
    ({"items": "=>-"}, "items.tsv", "there is no items.tsv"),
    # headers and lines
    ({"items": "domain=>domian"}, "items.tsv:1", "unknown column 'domian'; did you mean 'domain'?"),
    ({"prices": "fund|=>"}, "prices.tsv:1", "column 'fund' is missing"),
    ({"items": "name_zh|name_en=>name_zh|name_zh"}, "items.tsv:1", "column 'name_zh' stands twice"),
    ({"settings": "deny=>deny|1|2"}, "settings.tsv:2", "this line has 6 cells, the header 4"),
    # panels
    ({"panels": "P-CBC=>CBC"}, "panels.tsv:2", "no panel code"),
    ({"panels": "THM002O|2=>THM999X|2"}, "panels.tsv:2", "member THM999X is no item"),
    ({"panels": "THM002O|2=>THM002O|3"}, "panels.tsv:2", "member_count"),
    ({"panels": "THM001Q;THM002O|2=>THM001Q;THM001Q|"}, "panels.tsv:2", "members names THM001Q twice"),
    ({"panels": "|THM001Q|N=>|ECT0149|N"}, "panels.tsv:2", "core names ECT0149, which is no member"),
    ({"panels": "|N=>|maybe"}, "panels.tsv:2", "same_session must be Y or N"),
    ({"panels": "+P-CBC|血|C|THM001Q;THM002O"}, "panels.tsv:3", "P-CBC stands twice"),
    # coverage
    ({"coverage_edges": "ECT0149|全腹部CT平扫|ECT0165=>ECT0999|全腹部CT平扫|ECT0165"}, "coverage-edges.tsv:2",
     "prior_code ECT0999 is no item"),
    ({"coverage_edges": "|上腹部CT平扫|full=>|下腹部CT平扫|full"}, "coverage-edges.tsv:2", "order_name is not"),
    ({"coverage_edges": "full=>partly"}, "coverage-edges.tsv:2", "coverage must be one of full, advisory, none"),
    ({"coverage_edges": "region contains=>"}, "coverage-edges.tsv:2", "reason is empty"),
    ({"coverage_edges": "none=>full"}, "coverage-edges.tsv:2",
     "full coverage goes in a circle: ECT0149 → ECT0165 → ECT0149"),
    ({"coverage_edges": "+ECT0149||ECT0149||full|itself"}, "coverage-edges.tsv:5", "circle: ECT0149 → ECT0149"),
    ({"coverage_edges": "+ECT0157||ECT0165||none|other"}, "coverage-edges.tsv:5",
     "ECT0157 does not cover ECT0165 (none), but full edges say that it does: ECT0157 → ECT0149 → ECT0165"),
    ({"coverage_edges": "+ECT0149||ECT0165||advisory|x"}, "coverage-edges.tsv:5", "ECT0149 → ECT0165 stands twice"),
    # regions, institutions
    ({"regions": "33|CN=>33|XX"}, "regions.tsv:3", "parent XX is no region"),
    ({"regions": "CN||=>CN|3301|"}, "regions.tsv:2", "regions lie in a circle: CN → 3301 → 33 → CN"),
    ({"regions": "+33|CN|又|again|"}, "regions.tsv:5", "33 stands twice"),
    ({"regions": "3301|33=>杭州|33"}, "regions.tsv:4", "a region's code"),
    ({"institutions": "A|3301=>A|9999"}, "institutions.tsv:2", "region 9999 is not in regions.tsv"),
    ({"institutions": "3301|3=>3301|4"}, "institutions.tsv:2", "level must be 1, 2 or 3"),
    ({"institutions": "a|甲=>A B|甲"}, "institutions.tsv:2", "must be a slug"),
    # windows
    ({"windows": "*|30=>*|0"}, "windows.tsv:2", "longer than nothing"),
    ({"windows": "*|30=>*|-3"}, "windows.tsv:2", "days must be a whole number"),
    ({"windows": "3301|*=>7777|*"}, "windows.tsv:2", "scope 7777 is no region and no institution"),
    ({"windows": "3301|*=>3301|XX"}, "windows.tsv:2", "XX is no item, panel or category"),
    ({"windows": "IMP=>WARD"}, "windows.tsv:3", "setting 'WARD' is no class of encounter"),
    ({"windows": "2026-01-01=>2026-02-30"}, "windows.tsv:3", "valid_from must be a day"),
    ({"windows": "2026-01-01=>20260101"}, "windows.tsv:3", "valid_from must be a day"),
    ({"windows": "+3301|*|20||||"}, "windows.tsv:4", "the same as windows.tsv:2"),
    # qualifications, negative lists
    ({"qualifications": "a|*|33=>z|*|33"}, "qualifications.tsv:2", "institution z is neither"),
    ({"qualifications": "a|*|33=>*|*|33"}, "qualifications.tsv:2", "belongs to one institution"),
    ({"qualifications": "a|*|33=>a|*|44"}, "qualifications.tsv:2", "region 44 is not in regions.tsv"),
    ({"qualifications": "a|*|33=>a|THM009A|33"}, "qualifications.tsv:2", "THM009A is no item"),
    ({"qualifications": "2026-12-31=>2025-12-31"}, "qualifications.tsv:2", "valid_to is before valid_from"),
    ({"negative": "3301|*|ECT0157=>3301|z|ECT0157"}, "negative.tsv:2", "institution z is neither"),
    ({"negative": "3301|*|ECT0157=>99|*|ECT0157"}, "negative.tsv:2", "region 99 is not in regions.tsv"),
    # reasons
    ({"reasons": "no|N|N|STATE_AFTER_SURGERY=>no|N|N|STATE_TIRED"}, "reasons.tsv:2", "STATE_TIRED is no state"),
    ({"reasons": "changed|no=>changed|perhaps"}, "reasons.tsv:2", "counts must be one of yes, no, reviewed"),
    ({"reasons": "CN|R1=>CN|r 1"}, "reasons.tsv:2", "a reason's code"),
    ({"reasons": "CN|R6=>CN|R1"}, "reasons.tsv:3", "the same as reasons.tsv:2 (CN, R1)"),
    ({"reasons": "其他|Other=>|Other"}, "reasons.tsv:3", "text_zh is empty"),
    # prices
    ({"prices": "320.00=>3.2e2"}, "prices.tsv:2", "price must be a decimal"),
    ({"prices": "320.00=>NaN"}, "prices.tsv:2", "price must be a decimal"),
    ({"prices": "320.00=>-1"}, "prices.tsv:2", "price must be a decimal"),
    ({"prices": "320.00=>320.005"}, "prices.tsv:2", "at most 2 decimal places"),
    ({"prices": "320.00=>３20"}, "prices.tsv:2", "price must be a decimal"),
    ({"prices": "0.70=>1.01"}, "prices.tsv:2", "fund must be between 0 and 1"),
    ({"prices": "2026-06-30=>2026-07-01"}, "prices.tsv:3", "the same as prices.tsv:2 (3301, CT) at an overlap"),
    # settings, settlement
    ({"settings": "undecided=>undecidet"}, "settings.tsv:2", "unknown setting 'undecidet'"),
    ({"settings": "deny=>perhaps"}, "settings.tsv:2", "undecided must be one of allow, deny"),
    ({"settings": "a/外科=>a/"}, "settings.tsv:3", "names no department"),
    ({"settings": "a/外科=>z/外科"}, "settings.tsv:3", "institution z is neither"),
    ({"settlement": "0.50=>1.50"}, "settlement.tsv:2", "share must be between 0 and 1"),
    ({"settlement": "0.50=>1E-1"}, "settlement.tsv:2", "share must be a decimal"),
    ({"settlement": "basic=>"}, "settlement.tsv:2", "at least one each"),
    ({"settlement": "+3301|v2|0.4|basic|*|2026-05-01"}, "settlement.tsv:3", "the same as settlement.tsv:2"),
    ({"settlement": "+3301|v1|0.4|basic|*|2026-05-01"}, "settlement.tsv:3", "3301 → v1 stands twice"),
]


@pytest.mark.parametrize(("change", "where", "sentence"), _REFUSED,
                         ids=[f"{where}-{number}" for number, (_, where, _) in enumerate(_REFUSED)])
def test_each_fault_is_refused_with_its_line(change: dict[str, str], where: str, sentence: str) -> None:
    """The place is the table and line that must be corrected, and the sentence says what is wrong."""
    found = refusals(small(**change))
    assert any(place == where and sentence in said for place, said in found), found


def test_every_table_has_its_refusals() -> None:
    """No table went untested."""
    assert {where.partition(":")[0] for _, where, _ in _REFUSED} == {*TABLES, "catalogue.toml"}


def test_every_fault_is_told_at_once() -> None:
    """An editor corrects a table once, not once for each fault."""
    found = refusals(small(items="ECT0149=>ECT0148", prices="320.00=>NaN", windows="*|30=>*|0",
                           reasons="CN|R6=>CN|R1"))
    assert {"items.tsv:2", "prices.tsv:2", "windows.tsv:2", "reasons.tsv:3"} <= {where for where, _ in found}


def test_an_unknown_table_is_refused() -> None:
    """A misspelt file would otherwise be silently left out."""
    [(where, said)] = refusals(small() | {"price.tsv": b"scope\n"})
    assert (where, said) == ("price.tsv", "this is no table of the catalogue; did you mean 'prices.tsv'?")


def test_other_encodings_are_refused_with_their_line() -> None:
    """A table saved in a Chinese code page is no UTF-8."""
    files = small()
    files["regions.tsv"] = files["regions.tsv"].decode().encode("gb18030")
    assert ("regions.tsv:2", "this is not UTF-8; save the table as UTF-8") in refusals(files)


def test_what_spreadsheets_write_is_read() -> None:
    """A byte order mark, CR LF, spaces around cells, empty lines and missing empty cells at the end change nothing."""
    plain = ruleset_from_tables(small(), institutions=())
    files = {name: raw if name.endswith(".toml") else
             b"\xef\xbb\xbf" + raw.replace(b"\t", b" \t").replace(b"\t\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n\r\n"
             for name, raw in small().items()}
    assert ruleset_from_tables(files, institutions=()).changed(catalogue=plain.catalogue) == plain


def test_any_institution_may_be_named_where_none_are_given() -> None:
    """A stored version is read again after a hospital has left the gateway."""
    files = small(qualifications="a|*|33=>z|*|33")
    assert ruleset_from_tables(files).qualifications[0].institution == "z"
    with pytest.raises(Refused):
        ruleset_from_tables(files, institutions=("y",))
    assert ruleset_from_tables(files, institutions=("z",)).qualifications[0].institution == "z"


# ---------------------------------------------------------------------------------------------------- versions

def test_a_base_gives_the_tables_that_are_missing() -> None:
    """A change of one table needs only that table."""
    first = ruleset_from_tables(small())
    files = small(catalogue=head("t2", date(2027, 1, 1), "t1"), windows="*|30=>*|14")
    files = {name: files[name] for name in ("catalogue.toml", "windows.tsv")}
    second = ruleset_from_tables(files, [first])
    assert second.windows[0].length == timedelta(days=14)
    assert second.changed(windows=first.windows, version="t1", effective=first.effective,
                          catalogue=first.catalogue) == first
    assert second.catalogue.items == first.catalogue.items


def test_a_table_that_is_there_replaces_the_base_s_whole() -> None:
    """An empty table of a version takes the base's rows away."""
    first = ruleset_from_tables(small())
    files = {"catalogue.toml": small(catalogue=head("t2", date(2027, 1, 1), "t1"))["catalogue.toml"],
             "negative.tsv": b"region\tinstitution\titem\n"}
    assert ruleset_from_tables(files, [first]).negatives == ()


@pytest.mark.parametrize(("change", "part"), [("3|全血(EDTA)||P-CBC|6690=>3|尿液||P-CBC|6690", "specimen"),
                                              ("30||abdomen+pelvis=>30||chest", "body_site")])
def test_a_code_is_never_used_again(change: str, part: str) -> None:
    """A code that meant something else in any earlier version is refused, also after versions without it."""
    first = ruleset_from_tables(small())
    files = small(catalogue=head("t2", date(2027, 1, 1)), items=change)
    [(where, said)] = refusals(files, first)
    assert where == ("items.tsv:5" if part == "specimen" else "items.tsv:2")
    assert f"meant something else in version t1 ({part}); a code is never used again" in said


def test_a_name_may_be_corrected() -> None:
    """Names, units and windows of an item may change from version to version: its meaning is the same."""
    first = ruleset_from_tables(small())
    assert refusals(small(catalogue=head("t2", date(2027, 1, 1)), items="White cells|3=>Leukocytes|5"), first) == []


def test_an_item_that_the_base_s_coverage_needs_may_not_vanish() -> None:
    """Taking over a table does not take over a contradiction."""
    first = ruleset_from_tables(small())
    files = small(catalogue=head("t2", date(2027, 1, 1), "t1"),
                  items="ECT0165|exam|CT|上腹部CT平扫|CT upper abdomen|30||abdomen|||\n=>")
    del files["coverage-edges.tsv"]
    assert "items.tsv" in {where for where, _ in refusals(files, first)}


# ---------------------------------------------------------------------------------------------------- shipped

def test_the_shipped_version_agrees_with_itself() -> None:
    """427 items, and windows, reasons, settings, prices and the settlement rule of the demonstration."""
    rules = shipped()
    assert (len(rules.catalogue.items), len(rules.catalogue.panels), len(rules.catalogue.edges)) == (427, 45, 44)
    assert rules.version == catalogue().version
    assert rules.chain("330100") == ("330100", "330000", "CN")
    assert [rules.regions[code].mark for code in rules.chain("330100")] == ["杭州市HR", "浙江省HR", "全国HR"]
    assert {reason.code for reason in rules.reasons} == {"R1", "R2", "R3", "R4", "R5", "R6", "R98", "R99"}
    assert all(any(price.item in rules.selectors(code) for price in rules.prices)
               for code in (*rules.catalogue.items, *rules.catalogue.panels))
    assert "P-OGT" in rules.same_session


def test_the_shipped_tables_are_those_of_the_editors() -> None:
    """Items, panels and edges come back from the published JSON as they went in, and read as they are published."""
    files = shipped_tables()
    given = read_tables(files, Faults())
    published = catalogue()
    assert {row.value.code: row.value for row in given.of("items.tsv")} == dict(published.items)
    assert {row.value.code: row.value for row in given.of("panels.tsv")} == dict(published.panels)
    assert {row.value for row in given.of("coverage-edges.tsv")} == set(published.edges)
    if not EDITORS.is_dir():
        pytest.skip("no tables of the catalogue beside the repository")
    assert files["items.tsv"] == (EDITORS / "items.tsv").read_bytes()
    assert sorted(files["coverage-edges.tsv"].splitlines()) == sorted(
        (EDITORS / "coverage-edges.tsv").read_bytes().splitlines())


def test_the_second_version_has_443_items() -> None:
    """Sixteen more, with codes that continue the serials; everything else is the first's."""
    first = shipped()
    second = ruleset_from_tables(bench.tables(date(2026, 12, 1)), [first])
    new = second.catalogue.items.keys() - first.catalogue.items.keys()
    assert (len(second.catalogue.items), len(new)) == (443, 16)
    assert all(mod_37_36.is_valid(code) for code in new)
    assert second.reasons == first.reasons and second.prices == first.prices


# ---------------------------------------------------------------------------------------------------- rules

_NODES = st.sampled_from("abcdefg")
_GRAPHS = st.dictionaries(_NODES, st.lists(_NODES, max_size=4, unique=True), max_size=7)


@given(_GRAPHS)
def test_a_cycle_is_found_exactly_where_one_can_return(graph: dict[str, list[str]]) -> None:
    """`cycles` against reachability: it finds one if, and only if, a node reaches itself; and each is a real one."""
    found = cycles(graph)
    assert bool(found) == any(reach({**graph, "start": graph.get(node, [])}, "start", node) for node in graph)
    for cycle in found:
        assert cycle[0] == cycle[-1]
        assert all(after in graph.get(before, ()) for before, after in zip(cycle, cycle[1:], strict=False))


@given(st.text(alphabet="ECTHM0123456789QOX", min_size=6, max_size=8))
def test_a_wrong_check_character_never_passes(code: str) -> None:
    """Whatever stands in the place of a code: it is refused, or its check character is right."""
    found = refusals(small(items=f"ECT0157|exam=>{code}|exam", coverage_edges="ECT0157=>ECT0149"))
    assert mod_37_36.is_valid(code) or any(where == "items.tsv:4" for where, _ in found)


@given(st.binary(max_size=300), st.sampled_from(list(TABLES)))
def test_whatever_a_table_holds_is_read_or_refused(raw: bytes, name: str) -> None:
    """Never another exception than a refusal with a place in that table or in one that depends on it."""
    for found in (refusals(small() | {name: raw}), refusals(small() | {name: small()[name] + raw})):
        assert all(where.partition(":")[0] in (*TABLES, "catalogue.toml") for where, _ in found)
