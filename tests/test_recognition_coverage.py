"""`gateway.recognition.coverage`: what the edges add up to, and what the shipped edges may never say."""

from __future__ import annotations

from datetime import date

import pytest
from verdict_samples import RULES

from gateway.recognition.coverage import Coverage, Link, Relation
from gateway.recognition.rules import RuleSet
from gateway.terminology import Catalogue, Edge, Item, catalogue

SMALL = Coverage.of(RULES)
SHIPPED = Coverage.of(RuleSet("shipped", date(2024, 1, 1), catalogue()))
FULL = [(catalogue().items[prior], item) for item in catalogue().items.values()
        for prior in sorted(SHIPPED.full(item.code) - {item.code})]
#: What a larger region of the shipped exams holds.
REGIONS = {"abdomen+pelvis": {"abdomen", "pelvis"}}
#: Specimens for which one and the same measurement is equally good.
SAME_SPECIMEN = {frozenset(("血清", "血浆"))}


def coverage(*edges: tuple[str, str, str]) -> Coverage:
    """Of items that these edges name."""
    codes = sorted({code for edge in edges for code in edge[:2]})
    items = [Item(code, "test", "X", "", "") for code in codes]
    return Coverage(RuleSet("x", date(2024, 1, 1), Catalogue(items, (), [Edge(*edge, "") for edge in edges])))


def test_an_item_covers_itself() -> None:
    """Also an item that no edge names."""
    assert frozenset(("SCREEN",)) == SMALL.full("SCREEN")
    assert Relation.FULL is SMALL.relation("SCREEN", "SCREEN")


def test_full_edges_add_up() -> None:
    """Whole abdomen with contrast ⊇ whole abdomen plain ⊇ upper abdomen."""
    assert {"UPPER", "ABDOMEN", "ABDOMEN+"} == SMALL.full("UPPER")
    assert Relation.FULL is SMALL.relation("ABDOMEN+", "UPPER")
    assert Relation.NONE is SMALL.relation("UPPER", "ABDOMEN+")


def test_advisory_edges_do_not_add_up() -> None:
    """Neither before nor after a full edge; where both lead to an item, the full one counts."""
    assert {"ABDOMEN"} == SMALL.advisory("ADRENAL")
    assert Relation.NONE is SMALL.relation("ABDOMEN+", "ADRENAL")
    assert Relation.NONE is coverage(("A", "B", "advisory"), ("B", "C", "full")).relation("A", "C")
    both = coverage(("A", "B", "full"), ("B", "C", "full"), ("A", "C", "advisory"))
    assert Relation.FULL is both.relation("A", "C")
    assert frozenset() == both.advisory("C")


def test_a_cycle_ends() -> None:
    """The loader refuses it; a walk over it comes home all the same."""
    assert {"A", "B", "C"} == coverage(("A", "B", "full"), ("B", "C", "full"), ("C", "A", "full")).full("A")


def test_contradictions_are_said() -> None:
    """An edge that says less than the full edges add up to."""
    found = coverage(("A", "B", "full"), ("B", "C", "full"), ("A", "C", "none"), ("C", "A", "none"))
    assert [("A", "C")] == [(edge.prior, edge.order) for edge in found.contradictions]


def test_candidates_of_an_item() -> None:
    """All that covers or advises; nothing for a code that the catalogue does not know."""
    assert {"ADRENAL", "ABDOMEN"} == SMALL.candidates_for("ADRENAL")
    assert frozenset() == SMALL.candidates_for("UNKNOWN") == SMALL.candidates_for("")


def test_candidates_of_a_panel_are_those_of_its_members() -> None:
    """And each knows which members it concerns."""
    assert {"WBC", "HB", "PLT", "HB-HS"} == SMALL.candidates_for("CBC")
    assert (Link("HB", Relation.FULL),) == SMALL.links("CBC")["HB-HS"]
    assert ("WBC", "HB", "PLT") == SMALL.targets("CBC")


def test_one_coverage_for_a_rule_set() -> None:
    """It is made once, and a changed RuleSet has its own."""
    assert Coverage.of(RULES) is SMALL
    other = RULES.changed(catalogue=Catalogue(RULES.catalogue.items.values()))
    assert frozenset(("UPPER",)) == Coverage.of(other).full("UPPER")


def test_codes_that_nobody_knows_are_not_remembered() -> None:
    """A client cannot fill the memory with invented codes."""
    made = Coverage(RULES)
    for number in range(100):
        made.full(f"invented-{number}"), made.links(f"invented-{number}")
    assert not any(code.startswith("invented") for memory in (made._closures, made._links) for code in memory)


# -------------------------------------------------------------------- the shipped edges


def test_the_shipped_edges_add_up_to_something() -> None:
    """The principles below are asked of all that covers something else."""
    assert len(FULL) >= 27


def test_no_shipped_edge_contradicts_the_others() -> None:
    """No item that somebody found not to cover, or only to advise, covers by a detour."""
    assert () == SHIPPED.contradictions


@pytest.mark.parametrize(("prior", "ordered"), FULL, ids=lambda item: item.code)
def test_shipped_full_coverage_goes_one_way(prior: Item, ordered: Item) -> None:
    """What covers another is more than it: nothing is covered in return."""
    assert ordered.code not in SHIPPED.full(prior.code)


@pytest.mark.parametrize(("prior", "ordered"), FULL, ids=lambda item: item.code)
def test_shipped_full_coverage_stays_within_a_modality_and_a_specimen(prior: Item, ordered: Item) -> None:
    """A CT may advise on a radiograph, never replace it; 24-hour urine is no spot urine."""
    assert (prior.domain, prior.modality, prior.category) == (ordered.domain, ordered.modality, ordered.category)
    assert prior.specimen == ordered.specimen or frozenset((prior.specimen, ordered.specimen)) in SAME_SPECIMEN


@pytest.mark.parametrize(("prior", "ordered"), [pair for pair in FULL if pair[0].domain == "exam"],
                         ids=lambda item: item.code)
def test_shipped_exams_cover_from_the_larger_to_the_smaller(prior: Item, ordered: Item) -> None:
    """Region: the same or a part. Contrast: plain and enhanced covers plain; nothing without contrast covers with."""
    assert prior.body_site == ordered.body_site or ordered.body_site in REGIONS.get(prior.body_site, ())
    assert prior.contrast == ordered.contrast or ("both", "none") == (prior.contrast, ordered.contrast)
    assert prior.sided == ordered.sided


@pytest.mark.parametrize(("prior", "ordered"), [pair for pair in FULL if pair[0].domain == "test"],
                         ids=lambda item: item.code)
def test_shipped_tests_cover_from_quantity_to_quality(prior: Item, ordered: Item) -> None:
    """A quantity answers for a grade; of two quantities only the one of high sensitivity covers."""
    assert "Q" == prior.result_type
    if ordered.result_type == "Q":
        assert "高敏" in prior.name_zh or "超敏" in prior.name_zh
        assert "高敏" not in ordered.name_zh and "超敏" not in ordered.name_zh


def test_a_shipped_screening_study_covers_only_itself() -> None:
    """Low-dose chest CT is no diagnostic chest CT, not even as advice; a diagnostic one answers for it."""
    assert {"ECT012D"} == {code for code in catalogue().items if SHIPPED.relation("ECT012D", code) != Relation.NONE}
    assert {"ECT010H", "ECT011F", "ECT012D"} == SHIPPED.full("ECT012D")


@pytest.mark.parametrize(("prior", "ordered", "relation"), [
    ("TID002P", "TID001R", "full"), ("TID001R", "TID002P", "none"),  # HBsAg: quantity, presence
    ("TCM004B", "TCM003D", "full"), ("TCM003D", "TCM004B", "none"),  # troponin I: high-sensitivity, conventional
    ("TIM001V", "TIM002T", "none"),  # CRP for hs-CRP
    ("ECT0157", "ECT0165", "full"), ("ECT0165", "ECT0149", "none"), ("ECT0149", "ECT0157", "none"),  # abdomen
    ("EDX002W", "EDX001Y", "full"), ("EDX001Y", "EDX002W", "none"),  # two views, one view
    ("ECT010H", "EDX002W", "advisory"), ("EDX002W", "ECT010H", "none"),  # across modalities
    ("TUR022M", "TUR018E", "advisory"), ("TUR018E", "TUR022M", "none"),  # spot ratio, 24-hour urine
    ("TCM0075", "TCM0083", "none"), ("TCM0083", "TCM0075", "none"),  # BNP, NT-proBNP
])
def test_what_the_shipped_catalogue_says(prior: str, ordered: str, relation: str) -> None:
    """The examples of the domain, in both directions."""
    assert relation == SHIPPED.relation(prior, ordered)


def test_shipped_edges_across_modalities_are_never_full() -> None:
    """Asked of the edges themselves, not of what they add up to."""
    items = catalogue().items
    crossing = [edge for edge in catalogue().edges if items[edge.prior].modality != items[edge.order].modality]
    assert crossing and {"full"}.isdisjoint(edge.coverage for edge in crossing)


def test_every_shipped_panel_is_asked_for_by_its_members() -> None:
    """And no candidate is a panel: results are Observations of members."""
    for panel in catalogue().panels.values():
        asked = SHIPPED.candidates_for(panel.code)
        assert set(panel.members) <= asked
        assert asked.isdisjoint(catalogue().panels)
