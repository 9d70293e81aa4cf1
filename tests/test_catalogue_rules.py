"""RuleSet's look-ups: windows, marks, negative lists, prices, settings, reasons; scopes, periods and regions."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.recognition.rules import (
    ALWAYS,
    SETTINGS,
    Institution,
    Negative,
    Period,
    Price,
    Qualification,
    Reason,
    Region,
    RuleSet,
    Setting,
    SettlementRule,
    Window,
)
from gateway.terminology import Catalogue, Item, Panel

DAY = date(2026, 11, 22)
HB, K, CT = "THM003M", "TBC0274", "ECT0149"


def rules(**tables: object) -> RuleSet:
    """A small version: a country, two provinces, a city in the first; hospitals a and b in the city, c in the other."""
    items = [Item(HB, "test", "HM", "血红蛋白", "Hb", validity_days=3, panels=("P-CBC",)),
             Item(K, "test", "BC", "钾", "K", validity_days=3), Item(CT, "exam", "CT", "全腹部CT平扫", "CT",
                                                                     validity_days=90),
             Item("EUS001U", "exam", "US", "腹部超声", "US")]
    regions = [Region("CN", "", "全国", "China", "全国HR"), Region("33", "CN", "浙江", "Zhejiang", "浙江省HR"),
               Region("3301", "33", "杭州", "Hangzhou", "杭州市HR"), Region("31", "CN", "上海", "Shanghai", "上海市HR")]
    hospitals = [Institution("a", "甲", "A", "3301", 3), Institution("b", "乙", "", "3301", 2),
                 Institution("c", "丙", "C", "31", 3)]
    given = RuleSet("t", date(2026, 1, 1), Catalogue(items, [Panel("P-CBC", "血常规", "CBC", (HB,))]),
                    regions={r.code: r for r in regions}, institutions={h.slug: h for h in hospitals})
    return given.changed(**tables)


def days(count: int) -> timedelta:
    return timedelta(days=count)


def test_the_chain_of_a_region_ends_at_the_top() -> None:
    """From the narrowest; an unknown region has none; a circle that slipped in does not hang."""
    assert rules().chain("3301") == ("3301", "33", "CN")
    assert rules().chain("CN") == ("CN",)
    assert rules().chain("9") == ()
    circle = {"x": Region("x", "y", "x", "x"), "y": Region("y", "x", "y", "y")}
    assert rules(regions=circle).chain("x") == ("x", "y")


def test_scopes_go_from_the_department_to_the_country() -> None:
    """Department, hospital, then its regions; an unknown hospital is its own scope only."""
    assert rules().scopes("a", "外科") == ("a/外科", "a", "3301", "33", "CN")
    assert rules().scopes("a") == ("a", "3301", "33", "CN")
    assert rules().scopes("nobody") == ("nobody",)


def test_names_fall_back() -> None:
    """English to Chinese, an unknown hospital to its slug."""
    r = rules()
    assert [r.name_of("a"), r.name_of("a", "en"), r.name_of("b", "en"), r.name_of("x")] == ["甲", "A", "乙", "x"]
    assert (r.level_of("a"), r.level_of("x"), r.region_of("x")) == (3, 0, "")


@pytest.mark.parametrize(("windows", "item", "setting", "expected"), [
    ((), HB, "", 3),  # the item's own proposal
    ((), "EUS001U", "", 0),  # nothing says how long: nothing is recognised
    ((), "unknown", "", 0),
    ((Window("3301", "*", days(30)),), HB, "", 3),  # the smallest counts: a region caps, it does not extend
    ((Window("3301", "*", days(30)),), CT, "", 30),
    ((Window("3301", "*", days(30)),), "EUS001U", "", 30),
    ((Window("3301", "*", days(30)), Window("3301", "CT", days(60))), CT, "", 60),  # narrower selector of one scope
    ((Window("3301", "CT", days(60)), Window("3301", CT, days(10))), CT, "", 10),
    ((Window("3301", "CT", days(10)), Window("3301", CT, days(60))), CT, "", 60),
    ((Window("33", "*", days(20)), Window("3301", CT, days(60))), CT, "", 20),  # never more than the region above
    ((Window("a", CT, days(7)), Window("CN", CT, days(60))), CT, "", 7),  # a hospital shortens
    ((Window("a", CT, days(70)), Window("CN", CT, days(60))), CT, "", 60),  # and does not extend
    ((Window("b", CT, days(7)),), CT, "", 90),  # another hospital's
    ((Window("31", CT, days(7)),), CT, "", 90),  # another region's
    ((Window("3301", CT, timedelta(hours=12), "IMP"),), CT, "IMP", 0.5),  # care setting
    ((Window("3301", CT, timedelta(hours=12), "IMP"),), CT, "AMB", 90),
    ((Window("3301", CT, timedelta(hours=12), "IMP"),), CT, "", 90),
    ((Window("3301", CT, days(5), "", Period(None, date(2026, 11, 21))),), CT, "", 90),  # ended yesterday
    ((Window("3301", CT, days(5), "", Period(date(2026, 11, 23), None)),), CT, "", 90),  # begins tomorrow
    ((Window("3301", CT, days(5), "", Period(DAY, DAY)),), CT, "", 5),
])
def test_window(windows: tuple[Window, ...], item: str, setting: str, expected: float) -> None:
    """The smallest of the proposal and of what regions, hospital and care setting say on the day."""
    assert rules(windows=windows).window("a", setting, item, DAY) == timedelta(days=expected)


def test_the_longest_window_bounds_every_window() -> None:
    """What is older than it is of no use for any item."""
    assert rules().longest_window == days(90)
    assert rules(windows=(Window("CN", "*", days(200)),)).longest_window == days(200)


def test_the_first_and_the_last_day_of_a_period_are_in_it() -> None:
    """To the day, at both ends; a period without ends is always."""
    period = Period(date(2026, 1, 1), date(2026, 6, 30))
    held = {day: period.holds(day) for day in (date(2025, 12, 31), date(2026, 1, 1), date(2026, 6, 30),
                                               date(2026, 7, 1))}
    assert list(held.values()) == [False, True, True, False]
    assert ALWAYS.holds(date.min) and ALWAYS.holds(date.max)


_DAYS = st.one_of(st.none(), st.dates(date(2026, 1, 1), date(2026, 1, 12)))
_PERIODS = st.tuples(_DAYS, _DAYS).filter(lambda p: not (p[0] and p[1]) or p[0] <= p[1]).map(lambda p: Period(*p))


@given(_PERIODS, _PERIODS)
def test_periods_meet_where_a_day_is_in_both(one: Period, other: Period) -> None:
    """``meets`` is what counting the days would say, and is the same from both sides."""
    shared = any(one.holds(day) and other.holds(day) for day in (date(2025, 12, 1) + timedelta(days=n)
                                                                 for n in range(80)))
    assert one.meets(other) == other.meets(one) == shared


H1 = Period(date(2026, 1, 1), date(2026, 6, 30))


@pytest.mark.parametrize(("rows", "issuer", "orderer", "item", "on", "code"), [
    ((), "a", "b", HB, DAY, "NO_MARK"),
    ((Qualification("a", HB, "3301"),), "a", "b", HB, DAY, ""),
    ((Qualification("a", HB, "3301"),), "a", "b", K, DAY, "NO_MARK"),  # another item
    ((Qualification("b", HB, "3301"),), "a", "b", HB, DAY, "NO_MARK"),  # another hospital
    ((Qualification("a", "HM", "3301"),), "a", "b", HB, DAY, ""),  # its category
    ((Qualification("a", "HM", "3301"),), "a", "b", CT, DAY, "NO_MARK"),
    ((Qualification("a", "*", "3301"),), "a", "b", CT, DAY, ""),
    ((Qualification("a", "*", "CN"),), "a", "c", CT, DAY, ""),  # the whole country
    ((Qualification("a", "*", "33"),), "a", "b", CT, DAY, ""),  # the orderer is in the province
    ((Qualification("a", "*", "3301"),), "a", "c", CT, DAY, "OUT_OF_SCOPE"),
    ((Qualification("a", "*", "3301"),), "a", "nobody", CT, DAY, "OUT_OF_SCOPE"),
    ((Qualification("a", "*", "3301"), Qualification("a", CT, "CN")), "a", "c", CT, DAY, ""),
    ((Qualification("a", "*", "CN", H1),), "a", "b", CT, date(2026, 6, 30), ""),
    ((Qualification("a", "*", "CN", H1),), "a", "b", CT, date(2026, 7, 1), "NO_MARK"),
    ((Qualification("a", "*", "CN", H1),), "a", "b", CT, date(2025, 12, 31), "NO_MARK"),
])
def test_qualified(rows: tuple[Qualification, ...], issuer: str, orderer: str, item: str, on: date, code: str) -> None:
    """Institution × item × region on the day of the exam, and the orderer inside the region."""
    found, said = rules(qualifications=rows).qualified(issuer, orderer, item, on)
    assert (said, found is None) == (code, bool(code))


@pytest.mark.parametrize(("row", "issuer", "orderer", "item", "excluded"), [
    (Negative("3301", "a", HB), "a", "b", HB, True),
    (Negative("3301", "a", HB), "c", "b", HB, False),
    (Negative("3301", "*", HB), "c", "b", HB, True),  # whoever made it
    (Negative("33", "*", "HM"), "a", "b", HB, True),  # a region above the orderer's, by category
    (Negative("31", "*", HB), "a", "b", HB, False),  # the list of another region
    (Negative("31", "*", HB), "a", "c", HB, True),
    (Negative("3301", "*", HB, "", H1), "a", "b", HB, False),  # ended
    (Negative("3301", "*", K), "a", "b", HB, False),
])
def test_negative(row: Negative, issuer: str, orderer: str, item: str, excluded: bool) -> None:
    """A list counts where the orderer lies inside its region, on the day."""
    assert (rules(negatives=(row,)).negative(issuer, orderer, item, DAY) is not None) == excluded


def price(scope: str, item: str, yuan: str, period: Period = ALWAYS) -> Price:
    return Price(scope, item, Decimal(yuan), Decimal("0.7"), period)


@pytest.mark.parametrize(("rows", "item", "expected"), [
    ((), HB, None),
    ((price("CN", HB, "5.00"),), HB, "5.00"),
    ((price("CN", HB, "5.00"), price("3301", HB, "4.00")), HB, "4.00"),  # narrower scope wins
    ((price("3301", "*", "9.00"), price("CN", HB, "5.00")), HB, "9.00"),  # before narrower selector
    ((price("3301", "HM", "9.00"), price("3301", HB, "5.00")), HB, "5.00"),
    ((price("a", HB, "1.00"), price("b", HB, "2.00")), HB, "1.00"),
    ((price("CN", HB, "5.00", H1), price("CN", HB, "6.00", Period(date(2026, 7, 1), None))), HB, "6.00"),
    ((price("CN", "P-CBC", "20.00"),), "P-CBC", "20.00"),
    ((price("CN", "HM", "20.00"),), "P-CBC", None),  # a panel has no category
])
def test_price(rows: tuple[Price, ...], item: str, expected: str | None) -> None:
    """The narrowest scope's price of the day, exact."""
    found = rules(prices=rows).price("a", item, DAY)
    assert (found.price if found else None) == (Decimal(expected) if expected else None)


def test_setting_narrower_scope_and_item_win() -> None:
    """Department before hospital before region; the default where nothing is said."""
    r = rules(settings=(Setting("CN", "*", "undecided", "deny"), Setting("a", "*", "undecided", "allow"),
                        Setting("a/外科", "*", "undecided", "deny"), Setting("a", CT, "blocking", "yes")))
    assert r.setting("a", "undecided", department="外科", on=DAY) == "deny"
    assert r.setting("a", "undecided", department="内科", on=DAY) == "allow"
    assert r.setting("b", "undecided", on=DAY) == "deny"
    assert r.setting("nobody", "undecided", on=DAY) == SETTINGS["undecided"][0] == "allow"
    assert r.setting("a", "blocking", CT, on=DAY) == "yes"
    assert r.setting("a", "blocking", HB, on=DAY) == "no"


def reason(region: str, code: str, counts: str = "no", period: Period = ALWAYS) -> Reason:
    return Reason(region, code, f"{region} {code}", f"{region} {code} en", counts, period=period)


def test_reasons_narrower_scope_wins() -> None:
    """A city's row replaces the country's of its code, in the country's order; other regions' rows do not count."""
    r = rules(reasons=(reason("CN", "R1"), reason("CN", "R6", "reviewed"), reason("3301", "R6", "yes"),
                       reason("31", "R7"), reason("CN", "R8", "no", H1)))
    assert [(x.code, x.region) for x in r.reasons_for("a", DAY)] == [("R1", "CN"), ("R6", "3301")]
    assert [(x.code, x.region) for x in r.reasons_for("c", DAY)] == [("R1", "CN"), ("R6", "CN"), ("R7", "31")]
    assert r.reasons_for("nobody", DAY) == []
    assert r.reason("a", "R8", DAY) is None
    assert r.reason("a", "R8", date(2026, 6, 30)) is not None


def test_settlement_rule_of_the_day() -> None:
    """The narrowest region's rule of the day."""
    half = SettlementRule("3301", "v1", Decimal("0.5"), ("basic",), ("*",), H1)
    later = SettlementRule("3301", "v2", Decimal("0.6"), ("basic",), ("*",), Period(date(2026, 7, 1), None))
    r = rules(settlements=(later, half))
    assert r.settlement_rule("a", date(2026, 6, 30)) is half
    assert r.settlement_rule("a", date(2026, 7, 1)) is later
    assert r.settlement_rule("c", DAY) is None


def test_core_members_default_to_all() -> None:
    """A panel without core members needs all of them."""
    assert rules().core_members("P-CBC") == {HB}
    assert rules(core={"P-CBC": frozenset({K})}).core_members("P-CBC") == {K}


@given(st.lists(st.tuples(st.sampled_from(["CN", "33", "3301", "a", "31", "b"]), st.sampled_from(["*", "CT", CT, HB]),
                          st.integers(1, 100), st.sampled_from(["", "IMP", "AMB"])), max_size=6, unique_by=lambda w: (
                              w[0], w[1], w[3])),
       st.sampled_from(["", "IMP", "AMB"]))
def test_no_window_is_longer_than_what_any_one_scope_allows(rows: list[tuple[str, str, int, str]],
                                                            setting: str) -> None:
    """Whatever a hospital writes, the country's word and the item's proposal bound it."""
    windows = tuple(Window(scope, item, days(count), care) for scope, item, count, care in rows)
    found = rules(windows=windows).window("a", setting, CT, DAY)
    assert found <= days(90)
    for scope in ("a", "3301", "33", "CN"):
        own = {w.item: w.length for w in windows if w.scope == scope and w.setting == ""}
        bound = own.get(CT) or own.get("CT") or own.get("*")
        assert bound is None or found <= bound
