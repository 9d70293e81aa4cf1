"""Every difference between our FHIR and that of another converter for the same public messages has a verdict."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests import differential
from tests.differential import CORPUS, Difference, by_rule, compare, facts_of, rules, summary

if not CORPUS.is_dir():
    pytest.skip("the folder of public messages is not beside the repository", allow_module_level=True)

VERDICTS = {"ours", "theirs", "both", "neither"}

#: Messages that the other converter takes and we refuse, and why that is right.
REFUSED = {
    "unsupported MSH-9 VXU^V04": 4,  # vaccinations
    "unsupported MSH-9 BAR^P01": 2,  # billing accounts
    "unsupported MSH-9 BAR^P02": 2,
    "unsupported MSH-9 BAR^P12": 2,
    "unsupported MSH-9 DFT^P11": 2,  # a charge by account; P03 is taken
    "unsupported MSH-9 RDE^O11": 2,  # medicines
    "unsupported MSH-9 RDE^O25": 2,
    "unsupported MSH-9 RDS^O13": 2,
    "unsupported MSH-9 REF^I12": 2,  # referrals between doctors
    "unsupported MSH-9 REF^I14": 2,
    "invalid ORC-2 OMG^O19": 2,  # orders without any number: nothing could name them again
    "invalid ORC-2 OML^O21": 1,
    "unsupported ODS ORM^O01": 1,  # an order of a diet alone
    "unsupported RQ1 ORM^O01": 1,  # of supplies
    "unsupported RXO ORM^O01": 1,  # of a medicine
}


@pytest.fixture(scope="module")
def found() -> tuple[list[Difference], dict[str, str]]:
    """The comparison, made once."""
    return differential.differences()


def test_every_difference_has_a_verdict(found: tuple[list[Difference], dict[str, str]]) -> None:
    """No place differs that no rule names; the figures are printed."""
    judged = by_rule(found[0], rules())
    count = summary(judged)
    print(f"{sum(what == 'compared' for what in found[1].values())} messages, {len(found[0])} differences at "
          f"{count.total()} places: {dict(count.most_common())}")
    assert sorted(judged.get(None, ())) == []
    assert found[0], "nothing differs: the comparison compares nothing"


def test_no_rule_is_stale(found: tuple[list[Difference], dict[str, str]]) -> None:
    """Each pattern of each rule names a difference that no rule before it names; each verdict is explained."""
    known = rules()
    used: set[tuple[int, str]] = set()
    for one in found[0]:
        for at, rule in enumerate(known):
            if patterns := rule.patterns(one):
                used.update((at, pattern) for pattern in patterns)
                break
    stale = [(rule.why[:60], pattern) for at, rule in enumerate(known) for pattern in rule.place.split()
             if (at, pattern) not in used]
    assert stale == []
    assert all(rule.right in VERDICTS and rule.why.endswith((".", ")")) for rule in known)


def test_what_we_refuse_is_what_we_do_not_take(found: tuple[list[Difference], dict[str, str]]) -> None:
    """The table above is exactly what we refuse of what the other converter takes."""
    assert Counter(what for what in found[1].values() if what != "compared") == REFUSED


def test_the_manual_tells_these_figures(found: tuple[list[Difference], dict[str, str]]) -> None:
    """gateway/hl7v2/README.md: messages exactly; differences, places and verdicts to a twentieth."""
    manual = (Path(__file__).parents[1] / "gateway" / "hl7v2" / "README.md").read_text(encoding="utf-8")
    told = re.search(r"(\d+) public messages have .*?We take (\d+) of them.*?They differ ([\d,]+) times, at (\d+) "
                     r"places: \*\*ours is right at (\d+), both at (\d+), theirs at (\d+)", manual, re.DOTALL)
    assert told is not None
    messages, taken, times, places, *verdicts = (int(number.replace(",", "")) for number in told.groups())
    assert (messages, taken) == (len(found[1]), sum(what == "compared" for what in found[1].values()))
    count = summary(by_rule(found[0], rules()))
    for said, real in zip((times, places, *verdicts), (len(found[0]), count.total(), count["ours"], count["both"],
                                                       count["theirs"]), strict=True):
        assert abs(said - real) <= real / 20


# ---------------------------------------------------------------- the comparison itself

def test_a_place_is_the_highest_that_the_other_leaves_out() -> None:
    """What only one says is one place, however much stands below it; values are compared where both say something."""
    theirs = facts_of([{"resourceType": "Patient", "name": [{"family": "Li"}], "contact": [
        {"name": {"family": "Li", "given": ["A"]}}]}, {"resourceType": "Device", "id": "1", "status": "active"}])
    mine = facts_of([{"resourceType": "Patient", "name": [{"family": "Lǐ", "given": ["Na"]}]}])
    assert {(one.kind, one.place) for one in compare("m", theirs, mine)} == {
        ("theirs", "Patient.contact"), ("theirs", "Device"), ("value", "Patient.name.family"),
        ("ours", "Patient.name.given")}


def test_saying_more_is_told_from_saying_otherwise() -> None:
    """A list that holds the other is `more`; ids, order, zones and trailing zeros of numbers make no difference."""
    one = facts_of([{"resourceType": "Observation", "id": "a", "issued": "2024-01-01T08:00:00+08:00", "code": {
        "coding": [{"code": "1"}, {"code": "2"}]}, "valueQuantity": {"value": 1.50},
        "subject": {"reference": "Patient/1"}}])
    other = facts_of([{"resourceType": "Observation", "id": "b", "issued": "2024-01-01T00:00:00Z", "code": {
        "coding": [{"code": "2"}]}, "valueQuantity": {"value": 1.5}, "subject": {"reference": "Patient/2"}}])
    assert [(d.kind, d.place, d.theirs) for d in compare("m", one, other)] == [
        ("theirs-more", "Observation.code.coding.code", "1")]
    assert [d.kind for d in compare("m", other, one)] == ["ours-more"]
    assert not list(compare("m", one, one))
