"""Verdicts → cards ("CDS Service Response"): one grouped card a signature, one quiet card a patient. Pure.

What hospitals and doctors wrote is foreign here: escaped in the Markdown of ``detail``, without control characters in
the plain texts.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

from gateway.edges.http.cds_hooks.words import Words
from gateway.recognition.model import Checked, Kind, Shown, State, Summary
from gateway.recognition.published import REASONS
from gateway.recognition.rules import Reason, RuleSet
from gateway.source import Source
from gateway.terminology.systems import BASE

Card = dict[str, Any]

#: "One-sentence, <140-character summary message"; a label of a button.
SUMMARY, LABEL = 139, 80
#: Earlier reports and items that a card names of one line; the others are counted.
REPORTS, NAMES = 6, 12
TOPIC = f"{BASE}/CodeSystem/cds-topic"
#: The card's lines for the plug-in (`gateway.edges.http.widget`).
LINES = "http://huren.example/fhir/cds-hooks/lines"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = (Kind.RECOGNISABLE, Kind.PARTIAL, Kind.ADVISORY)
#: Of a draft order, what its members' orders keep: not its identity, not what belongs to its own code.
_OWN = frozenset(("id", "identifier", "meta", "text", "code", "orderDetail", "requisition", "specimen", "replaces"))


@dataclass(frozen=True, slots=True)
class View:
    """For whom cards are made. ``base``: of links, without a slash; ``on``: today, in ``zone``. ``drafts``: reference →
    the order as the client sent it. ``source``: the ordering hospital. ``key``: of a line's id, the session with which
    its links open; empty where everybody is let in, or brings a session."""

    rules: RuleSet
    base: str
    institution: str
    on: date
    zone: tzinfo
    language: str = "zh"
    drafts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: Source | None = None
    key: Callable[[str], str] = lambda line: ""

    @property
    def words(self) -> Words:
        return Words(self.language)


def order_cards(checked: Iterable[Checked], view: View) -> list[Card]:
    """The one card for all matches of a signature; empty where there is nothing to say.

    Its uuid is that under which the lines that are to be decided were recorded: the same matches, the same card, so
    that a client replaces the one it shows. A suggestion's uuid is the order line's id.
    """
    lines = [one for one in checked if is_shown(one)]
    if not lines:
        return []
    lines.sort(key=lambda one: -one.verdict.kind.rank)  # what can be recognised first; else in the order of the client
    urgent = any(one.interruptive and one.verdict.kind is Kind.RECOGNISABLE for one in lines)
    card: Card = {"uuid": lines[0].card, "summary": _summary(lines, view),
                  "indicator": "warning" if urgent else "info", "detail": _detail(lines, view), "source": _source(view)}
    if suggestions := [made for one in lines if (made := _suggestion(one, view))]:
        card["suggestions"] = suggestions
        card["selectionBehavior"] = "any"
    if any(one.verdict.kind is not Kind.ADVISORY for one in lines) and (reasons := _reasons(lines, view)):
        card["overrideReasons"] = reasons
    card["links"] = [link for one in lines for link in _links(one, view)]
    card["extension"] = {LINES: [reminder(one, view.rules) for one in lines]}
    return [card]


def patient_cards(summary: Summary, view: View, secret: bytes) -> list[Card]:
    """The one quiet card for patient-view, or none."""
    pending = [one for one in summary.pending if one.line]
    if not pending and not summary.total:
        return []
    words = view.words
    said = []
    if summary.total:
        named = [view.rules.name_of(slug, view.language) for slug in summary.institutions]
        said.append(words.say("patient", count=summary.total, hospitals=words.join(named[:3])))
    if pending:
        said.append(words.say("pending", count=len(pending)))
    blocks = [_block(_bullets(summary.results, view))] if summary.results else []
    if summary.total > len(summary.results) and blocks:
        blocks.append(words.say("more", count=summary.total - len(summary.results)))
    blocks += [_block([f"**{words.say('waiting')}**", "", *(f"- {md(_ordered(one, view))}" for one in pending)])] \
        if pending else []
    text = "\n\n".join(blocks)
    card: Card = {"uuid": sealed(secret, text), "summary": clip(words.sentence(said), SUMMARY), "indicator": "info",
                  "detail": text, "source": _source(view)}
    if pending:
        card["links"] = [_report_link(one, view) for one in pending]
        card["extension"] = {LINES: [reminder(one, view.rules) for one in pending]}
    return [card]


# ---------------------------------------------------------------- which, and under which names

def is_shown(one: Checked) -> bool:
    """Whether a card speaks of the line: something covers it, and it is not decided for these results."""
    return bool(one.line) and not one.suppressed and one.verdict.kind in _SHOWN


def sealed(secret: bytes, content: str) -> str:
    """The uuid of a card without order lines: the same content, the same uuid, and `is_sealed` knows it as ours."""
    head = blake2b(content.encode(), key=secret[:64], digest_size=6).digest()
    raw = bytearray(head + blake2b(head, key=secret[:64], digest_size=10, person=b"cds-card").digest())
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80  # RFC 9562 5.8: version 8
    return str(uuid.UUID(bytes=bytes(raw)))


def is_sealed(secret: bytes, card: str) -> bool:
    """Whether `sealed` made this uuid."""
    raw = uuid.UUID(card).bytes
    seal = bytearray(raw[:6] + blake2b(raw[:6], key=secret[:64], digest_size=10, person=b"cds-card").digest())
    seal[6], seal[8] = seal[6] & 0x0F | 0x80, seal[8] & 0x3F | 0x80
    return bytes(seal) == raw


# ---------------------------------------------------------------- texts

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
#: What Markdown could read as markup (GFM 6.1: every ASCII punctuation may have a backslash), and HTML's three.
_MARKS = re.compile(r"[!-/:-@\[-`{-~]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def plain(text: str) -> str:
    """Foreign text on one line, without control characters, and none that turns the direction of writing."""
    return " ".join(_CONTROL.sub(" ", text).split())


def md(text: str) -> str:
    """Foreign text within GitHub-flavoured Markdown: no markup, no HTML, no link comes of it (GFM 6.1, 6.11)."""
    return _MARKS.sub(lambda mark: _HTML.get(mark.group()) or f"\\{mark.group()}", plain(text))


def clip(text: str, limit: int) -> str:
    """At most so many characters, the last of them an ellipsis where there were more."""
    return text if len(text) <= limit else text[:limit - 1].rstrip() + "…"


def _name(code: str, view: View) -> str:
    return view.rules.catalogue.display(code, view.language) or view.rules.catalogue.display(code) or code


def _ordered(one: Checked, view: View) -> str:
    """What was ordered, by the item's name; by the hospital's own where it has no item."""
    return plain(_name(one.order.item, view) if one.order.item else one.order.display or one.order.local)


def _hospital(result: Shown, view: View) -> str:
    return plain((result.institution_en if view.language == "en" else "") or result.institution_zh
                 or result.institution)


def _day(time: int, view: View) -> str:
    return (_EPOCH + timedelta(microseconds=time)).astimezone(view.zone).date().isoformat() if time else ""


def _summary(lines: Sequence[Checked], view: View) -> str:
    words = view.words
    best = [one for one in lines if one.verdict.kind is Kind.RECOGNISABLE]
    named = best or lines
    key = "covered" if best else "related"
    if len(named) == 1:
        [one] = named
        newest = max(one.results, key=lambda result: result.time, default=None)
        where = words.join([_hospital(newest, view), _day(newest.time, view)], words.comma) if newest else ""
        text = words.say(f"{key}_one", item=_ordered(one, view), where=words.brackets(where))
    else:
        text = words.say(f"{key}_many", count=len(named), items=words.join([_ordered(one, view) for one in named]))
    return clip(text, SUMMARY)


def _detail(lines: Sequence[Checked], view: View) -> str:
    words, blocks = view.words, []
    for one in lines:
        head = f"**{md(_ordered(one, view))}** · {words.say(one.verdict.kind.value)}"
        block = [head, "", *_bullets(one.results, view)]
        if one.verdict.kind is Kind.PARTIAL:
            missing = words.join([md(_name(code, view)) for code in one.verdict.missing])
            block.append(f"- {words.say('missing', items=missing)}")
        if reason := view.rules.reason(view.institution, one.verdict.reason, view.on) if one.verdict.reason else None:
            block.append(f"- {words.say('state', reason=md(_reason_text(reason, view)))}")
        blocks.append(_block(block))
    if any(_must_view(one, view) for one in lines if one.verdict.kind is Kind.RECOGNISABLE):
        blocks.append(words.say("must_view"))
    return "\n\n".join(blocks)


def _must_view(one: Checked, view: View) -> bool:
    return one.state == State.REMINDED and view.rules.setting(view.institution, "must_view", one.order.item,
                                                              one.order.department, view.on) == "yes"


def _bullets(results: Sequence[Shown], view: View) -> list[str]:
    """A bullet a report: hospital, day, items, flags; the reports of one line newest first."""
    words = view.words
    groups: dict[tuple[str, str], list[Shown]] = {}
    for result in results:
        groups.setdefault((result.institution, result.report or result.reference), []).append(result)
    ordered = sorted(groups.values(), key=lambda group: -max(result.time for result in group))
    bullets = []
    for group in ordered[:REPORTS]:
        names = list(dict.fromkeys(md((result.name_en if view.language == "en" else "") or result.name_zh
                                      or result.item) for result in group))
        items = words.join(names[:NAMES]) + (words.say("and_more", count=len(names) - NAMES)
                                             if len(names) > NAMES else "")
        flags = dict.fromkeys(flag for result in group for flag in result.flags)
        parts = [md(_hospital(group[0], view)), _day(max(result.time for result in group), view), items,
                 *(f"**{words.say(flag)}**" for flag in flags)]
        bullets.append("- " + " · ".join(part for part in parts if part))
    if len(ordered) > REPORTS:
        bullets.append("- " + words.say("more", count=len(ordered) - REPORTS))
    return bullets


def _block(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _source(view: View) -> dict[str, Any]:
    words = view.words
    return {"label": words.say("source"), "url": f"{view.base}/",
            "topic": {"system": TOPIC, "code": "mutual-recognition", "display": words.say("topic")}}


# ---------------------------------------------------------------- what can be done

def _suggestion(one: Checked, view: View) -> dict[str, Any] | None:
    """Recognise: the order goes. Of a panel covered in part, orders of the missing members come in its place."""
    words, name, reference = view.words, _ordered(one, view), one.order.reference
    if one.verdict.kind is Kind.ADVISORY:
        return None
    actions: list[dict[str, Any]] = []
    if reference:
        actions.append({"type": "delete", "description": words.say("delete", item=name), "resourceId": reference})
    key = "recognise"
    if one.verdict.kind is Kind.PARTIAL:
        created = _members(one, view)
        if not created:
            return None
        actions += created
        key = "recognise_part"
    suggestion: dict[str, Any] = {"label": clip(words.say(key, item=name), LABEL), "uuid": one.line,
                                  "isRecommended": one.verdict.kind is Kind.RECOGNISABLE and not one.verdict.states}
    return suggestion | {"actions": actions} if actions else suggestion


def _members(one: Checked, view: View) -> list[dict[str, Any]]:
    """An order of each missing member under the hospital's own code; none where one of them has no code, or several."""
    draft = view.drafts.get(one.order.reference)
    if not draft or not view.source or not one.verdict.missing or "contained" in draft:
        return []
    kept = {name: value for name, value in draft.items() if name.lstrip("_") not in _OWN}
    actions = []
    for item in one.verdict.missing:
        locals_of = getattr(view.source.codes, "locals_of", None)
        rows = locals_of(item) if locals_of else []
        if len(rows) != 1:
            return []
        concept, _ = view.source.concept(rows[0].local, rows[0].display)
        actions.append({"type": "create", "description": view.words.say("create", item=plain(_name(item, view))),
                        "resource": {**kept, "code": concept, "replaces": [{"reference": one.order.reference}]}})
    return actions


def _reasons(lines: Sequence[Checked], view: View) -> list[dict[str, str]]:
    """The region's reasons as ``overrideReasons``: the preselected first, then others that fit the patient's state."""
    first = [one.verdict.reason for one in lines if one.verdict.reason]
    states = {state for one in lines for state in one.verdict.states}
    rows = view.rules.reasons_for(view.institution, view.on)
    rows.sort(key=lambda row: first.index(row.code) if row.code in first else
              len(first) + states.isdisjoint(row.preselected_by))
    return [{"code": row.code, "system": REASONS, "display": plain(_reason_text(row, view))
             + (view.words.say("needs_text") if row.needs_text else "")} for row in rows]


def _reason_text(reason: Reason, view: View) -> str:
    return (reason.text_en if view.language == "en" else "") or reason.text_zh


def _links(one: Checked, view: View) -> list[dict[str, str]]:
    links = [_report_link(one, view)]
    if any(result.reference.startswith("DiagnosticReport/") for result in one.results):  # an exam, with its images
        links.append({"label": clip(view.words.say("images", item=_ordered(one, view)), LABEL), "type": "absolute",
                      "url": _address(one, view, images="")})
    return links


def _address(one: Checked, view: View, **more: str) -> str:
    """The page of a line. What opens it stands in the fragment, which no browser sends to a server."""
    if session := view.key(one.line):
        more = {"lang": view.language, "session": session} | more
    return f"{view.base}/recognition/view/{one.line}" + (f"#{urlencode(more)}" if more else "")


def _report_link(one: Checked, view: View) -> dict[str, str]:
    return {"label": clip(view.words.say("report", item=_ordered(one, view)), LABEL), "type": "absolute",
            "url": _address(one, view)}


def reminder(one: Checked, rules: RuleSet) -> dict[str, Any]:
    """A line as the plug-in reads it."""
    catalogue, order = rules.catalogue, one.order
    return {"line": one.line, "state": one.state, "verdict": one.verdict.kind.value, "interruptive": one.interruptive,
            "blocking": one.blocking,
            "order": {"item": order.item, "name_zh": catalogue.display(order.item) or order.display or order.local,
                      "name_en": catalogue.display(order.item, "en") or "", "local": order.local,
                      "display": order.display, "department": order.department, "doctor": order.doctor,
                      "reference": order.reference},
            "results": [{"institution_zh": result.institution_zh, "institution_en": result.institution_en,
                         "time": (_EPOCH + timedelta(microseconds=result.time)).isoformat() if result.time else "",
                         "name_zh": result.name_zh, "name_en": result.name_en} for result in one.results]}
