"""Cards from hand-made verdicts: what stands in them, what never does."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapter import Adapter, load_all
from gateway.config import Settings
from gateway.edges.http.cds_hooks import cards
from gateway.edges.http.cds_hooks.cards import View, clip, is_sealed, md, order_cards, patient_cards, plain, sealed
from gateway.recognition.model import Checked, Kind, Order, Shown, Summary, Verdict
from gateway.recognition.versions import Rulebook

ADAPTERS: list[Adapter] = load_all(Settings().adapter_folders).all
RULES = Rulebook("Asia/Shanghai", ADAPTERS).at(1_770_000_000_000_000)
ORDERER = "hz-demo-2"
SOURCE = next(a.source for a in ADAPTERS if a.source.institution == ORDERER)
#: 2026-02-01T23:30:00+08:00
EVENING = 1_769_959_800_000_000
VIEW = View(RULES, "https://huren.example", ORDERER, date(2026, 2, 2), ZoneInfo("Asia/Shanghai"), source=SOURCE)
HB, ALT, CT = "THM003M", "TBC001O", "ECT010H"


def shown(item: str = HB, reference: str = "Observation/o1", **more: Any) -> Shown:
    """An earlier result."""
    names = RULES.catalogue
    return replace(Shown(reference, "r1", item, names.display(item) or item, names.display(item, "en") or item,
                         "hz-demo-1", "演示第一人民医院", "Demo First People's Hospital", EVENING), **more)


def checked(kind: Kind = Kind.RECOGNISABLE, item: str = HB, line: str = "11111111-1111-5111-8111-111111111111",
            results: tuple[Shown, ...] | None = None, verdict: dict[str, Any] | None = None, **more: Any) -> Checked:
    """The answer for one order line."""
    order = Order(ORDERER, f"N-{line[:1]}", item, "HGB", "血红蛋白", doctor="dr-li",
                  reference=f"ServiceRequest/s{line[:1]}")
    made = Verdict(kind, order, **(verdict or {}))
    return Checked(order, made, (shown(item),) if results is None else results, line, **({
        "state": "reminded", "card": "22222222-2222-5222-8222-222222222222",
        "interruptive": kind is Kind.RECOGNISABLE} | more))


def one(*lines: Checked, view: View = VIEW) -> dict[str, Any]:
    """The one card."""
    [card] = order_cards(lines, view)
    return card


@pytest.mark.parametrize("line", [
    checked(Kind.NOT, results=()), checked(suppressed=True), checked(line="", state="")])
def test_nothing_to_say(line: Checked) -> None:
    """Not covered, decided before, not recorded: no card."""
    assert order_cards([line], VIEW) == [] == order_cards([], VIEW)


def test_only_what_can_be_recognised_interrupts() -> None:
    """A flag or a missing member is told quietly, beside what interrupts or alone."""
    quiet = checked(Kind.ADVISORY, results=(shown(flags=("FLAG_CRITICAL",)),), interruptive=False)
    assert one(quiet)["indicator"] == "info" and not {"suggestions", "overrideReasons"} & one(quiet).keys()
    assert "危急值" in one(quiet)["detail"] and one(quiet)["summary"].startswith("外院有相关结果供参考")
    loud = checked(line="33333333-3333-5333-8333-333333333333", item=ALT, card="cccccccc-cccc-5ccc-8ccc-cccccccccccc")
    both = one(quiet, loud)
    assert both["indicator"] == "warning" and both["uuid"] == loud.card and len(both["suggestions"]) == 1
    assert one(checked(interruptive=False))["indicator"] == "info"


def test_the_day_is_the_local_one() -> None:
    """23:30 in Shanghai is that day there, and the next nowhere."""
    assert "2026-02-01" in one(checked())["summary"] and "2026-02-01" in one(checked())["detail"]


def test_a_panel_of_one_report_is_one_bullet() -> None:
    """Twenty results of one report are named together; those beyond the limit are counted."""
    many = tuple(shown(item, f"Observation/{n}") for n, item in enumerate(sorted(RULES.catalogue.items)[:30]))
    detail = one(checked(results=many))["detail"]
    assert detail.count("\n- ") == 1 and f"另有 {30 - cards.NAMES} 项" in detail
    other = tuple(shown(reference=f"Observation/{n}", report=f"r{n}", time=EVENING - n) for n in range(9))
    assert one(checked(results=other))["detail"].count("演示第一人民医院") == cards.REPORTS


def test_images_have_their_link() -> None:
    """An exam's result is a report with images; a test's is not."""
    assert [link["url"].endswith("#images=") for link in one(checked())["links"]] == [False]
    exam = checked(item=CT, results=(shown(CT, "DiagnosticReport/r1"),))
    assert [link["url"].endswith("#images=") for link in one(exam)["links"]] == [False, True]
    assert all(link["url"].startswith("https://huren.example/recognition/view/") for link in one(exam)["links"])


def test_an_order_without_an_id_cannot_be_removed() -> None:
    """The suggestion stays, so that it can be accepted; it has no action."""
    line = checked()
    bare = replace(line, order=replace(line.order, reference=""))
    [suggestion] = one(bare)["suggestions"]
    assert "actions" not in suggestion and suggestion["uuid"] == line.line


def partial(*missing: str) -> Checked:
    """A panel of which members are missing."""
    return checked(Kind.PARTIAL, "P-ELE", results=(shown("TBC0274"),), verdict={"missing": missing}, interruptive=False)


def test_a_part_is_ordered_only_where_every_member_has_one_code() -> None:
    """A member that the hospital has no code of, or a draft with parts of its own, makes no suggestion."""
    draft = {"resourceType": "ServiceRequest", "id": "s1", "identifier": [{"value": "1"}], "status": "draft",
             "intent": "order", "subject": {"reference": "Patient/p"}, "code": {"text": "x"}, "priority": "urgent"}
    view = replace(VIEW, drafts={"ServiceRequest/s1": draft})
    [suggestion] = one(partial("TBC0282", "TBC029Z"), view=view)["suggestions"]
    delete, *created = suggestion["actions"]
    assert delete["resourceId"] == "ServiceRequest/s1"
    assert [make["resource"]["code"]["coding"][-1] for make in created] == [
        {"system": SOURCE.code_system, "code": code, "display": name} for code, name in (("NA", "钠"), ("CL", "氯"))]
    assert created[0]["resource"] == {
        "resourceType": "ServiceRequest", "status": "draft", "intent": "order", "subject": draft["subject"],
        "priority": "urgent", "code": created[0]["resource"]["code"], "replaces": [{"reference": "ServiceRequest/s1"}]}
    assert "suggestions" not in one(partial("TBC0282", "TBC055V"), view=view)  # no row for the second
    assert "suggestions" not in one(partial("TBC0282"), view=VIEW)  # the draft is not at hand
    contained = replace(VIEW, drafts={"ServiceRequest/s1": draft | {"contained": []}})
    assert "suggestions" not in one(partial("TBC0282"), view=contained)
    assert "尚缺项目：" in one(partial("TBC0282"))["detail"]


def test_reasons_that_need_words_say_so() -> None:
    """Each has its display ("CDS Services MUST provide a human readable text")."""
    reasons = {row["code"]: row["display"] for row in one(checked())["overrideReasons"]}
    assert reasons["R6"].endswith("（请在备注中说明）") and not reasons["R1"].endswith("）")
    english = one(checked(), view=replace(VIEW, language="en"))
    assert all(row["display"].isascii() for row in english["overrideReasons"])


def test_the_preselected_reason_stands_first() -> None:
    """And what fits the same state comes before the rest."""
    line = checked(verdict={"reason": "R3", "states": ("STATE_BEFORE_SURGERY", "STATE_EMERGENCY")})
    assert [row["code"] for row in one(line)["overrideReasons"]][:3] == ["R3", "R4", "R1"]
    assert one(line)["suggestions"][0]["isRecommended"] is False


def test_a_patient_without_anything_has_no_card() -> None:
    """And with something one, quiet, whose uuid is ours to know."""
    assert patient_cards(Summary(), VIEW, b"secret") == []
    summary = Summary((checked(),), (shown(),), 3, ("hz-demo-1", "hz-demo-3"))
    [card] = patient_cards(summary, VIEW, b"secret")
    assert card["indicator"] == "info" and "3" in card["summary"] and "1 条互认提醒待处理" in card["summary"]
    assert is_sealed(b"secret", card["uuid"]) and not is_sealed(b"other", card["uuid"])
    assert [card] == patient_cards(summary, VIEW, b"secret")
    assert len(card["links"]) == 1 and "另有 2 项" in card["detail"]


@given(st.text(), st.binary(min_size=1, max_size=64))
def test_a_seal_is_a_uuid_that_only_its_secret_makes(content: str, secret: bytes) -> None:
    """Version 8 (RFC 9562 5.8); one bit changed, and it is not ours."""
    made = sealed(secret, content)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)
    assert is_sealed(secret, made) and made == sealed(secret, content)
    assert not is_sealed(secret, made[:-1] + ("0" if made[-1] != "0" else "1"))
    assert not is_sealed(secret + b"x", made) or len(secret) == 64


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_escaped_text_is_only_text(text: str) -> None:
    """No mark of Markdown without its backslash, no tag, no line of its own, nothing that cannot be seen."""
    safe = md(text)
    bare = re.sub(r"\\[!-/:-@\[-`{-~]|&(?:amp|lt|gt);", "", safe)
    assert not re.search(r"[!-/:-@\[-`{-~\n\r\x00-\x1f\u202a-\u202e\u2066-\u2069]", bare)
    assert plain(text) == plain(plain(text))


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", "[x](javascript:alert(1))", "www.evil.example",
                                  "a@b.cn", "https://evil.example", "**x**", "| a | b |", "# x",
                                  "\n\n- [ ] x", "&lt;b&gt;", "`x`"])
def test_foreign_text_makes_no_markup(evil: str) -> None:
    """A hospital's name, an item's and a display: each passes through the same gate."""
    line = checked(results=(shown(institution_zh=evil, name_zh=evil, flags=()),))
    bare = checked(item="", results=(shown(institution_zh=evil),))
    bare = replace(bare, order=replace(bare.order, item="", display=evil))
    for detail in (one(line)["detail"], one(bare)["detail"]):
        assert "<" not in detail and ">" not in detail.replace("&gt;", "")
        text = re.sub(r"\\[!-/:-@\[-`{-~]|&(?:amp|lt|gt);", "", detail)
        assert not re.search(r"\]\(|www\.|://|@|`|\|", text)


@given(st.lists(st.sampled_from(sorted(RULES.catalogue.items)), min_size=1, max_size=40), st.sampled_from(["zh", "en"]))
def test_a_card_keeps_its_limits(items: list[str], language: str) -> None:
    """However many orders: a summary below 140 characters, labels of at most 80, one card."""
    lines = [checked(item=item, line=f"{n:08d}-1111-5111-8111-111111111111") for n, item in enumerate(items)]
    card = one(*lines, view=replace(VIEW, language=language))
    assert 0 < len(card["summary"]) < 140 and len(card["suggestions"]) == len(items)
    assert all(len(row["label"]) <= 80 for row in (*card["suggestions"], *card["links"]))


def test_what_is_too_long_ends_in_an_ellipsis() -> None:
    """And what fits is left as it is."""
    assert clip("x" * 80, 80) == "x" * 80 and clip("x" * 81, 80) == "x" * 79 + "…"
