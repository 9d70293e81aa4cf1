"""The plug-in in a real browser: a reminder, a report, a decision; by mouse and by keyboard; when things go wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import asked, chromium, complaints, names, size, until
from widget_server import REASONS, Fake, exam, lab, serving

from gateway.edges.http.widget import squeezed

pytestmark = pytest.mark.long
#: A workstation of another origin, under a policy that allows the gateway's script and data and nothing else.
PAGE = """<!doctype html><html lang="{lang}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Workstation</title><h1>Orders</h1><button id="sign">Sign</button><p id="last">Next patient</p>
<script type="module" src="{gateway}/recognition/widget.js"></script>
<huren-recognition base="{gateway}" institution="hz-demo-2" doctor="D-7" {more}></huren-recognition></html>"""
CHECK = """const done = arguments[0], widget = document.querySelector("huren-recognition");
window.heard = window.heard || [];
for (const name of ["huren-reminded", "huren-decided", "huren-conflict", "huren-failed", "huren-closed"])
  if (!window.listening) document.addEventListener(name, event => window.heard.push([name, event.detail]));
window.listening = true;
customElements.whenDefined("huren-recognition").then(() => widget.check({patient: {resourceType: "Patient", id: "p1"},
  draftOrders: [{resourceType: "ServiceRequest", id: "o1"}]})).then(done);"""
INSIDE = "document.querySelector('huren-recognition').shadowRoot"


@dataclass
class Station:
    """A browser at a workstation's page, and the gateway that it talks to."""

    chrome: Any
    fake: Fake
    gateway: str
    station: str
    page: Fake
    clicks: int = 0

    def open(self, *lines: dict[str, Any], lang: str = "en", more: str = 'poll="0"') -> Any:
        """The workstation's page; the orders that are signed next have these lines."""
        self.fake.lines = {line["line"]: line for line in lines}
        self.fake.signed = list(self.fake.lines)
        self.page.page = PAGE.format(lang=lang, gateway=self.gateway, more=more)
        self.chrome.get(self.station)
        return self

    def sign(self) -> dict[str, Any]:
        """The orders are signed: what ``check`` resolves to."""
        answer: dict[str, Any] = self.chrome.execute_async_script(CHECK)
        return answer

    def script(self, code: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(code.replace("INSIDE", INSIDE), *arguments)

    def find(self, selector: str) -> Any:
        """An element of the plug-in that can be seen, or None."""
        return self.script("const e = INSIDE.querySelector(arguments[0]); "
                           "return e && e.checkVisibility() ? e : null", selector)

    def click(self, selector: str) -> None:
        """A real click in the middle of the element, counted."""
        until(lambda: (e := self.find(selector)) and e.is_enabled() and e).click()
        self.clicks += 1

    def press(self, *keys: str) -> None:
        """Keys, as names of `selenium.webdriver.common.keys` or characters; ``Alt+x`` together."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            chain = ActionChains(self.chrome)
            *held, last = key.split("+")
            for one in held:
                chain.key_down(getattr(Keys, one.upper()))
            chain.send_keys(getattr(Keys, last.upper(), last))
            for one in held:
                chain.key_up(getattr(Keys, one.upper()))
            chain.perform()

    def text(self, selector: str = "dialog") -> str:
        return str(self.script("return INSIDE.querySelector(arguments[0])?.innerText || ''", selector))

    def focus(self) -> str:
        """What has the focus: ``data-do``, reason, class or id."""
        return str(self.script("const e = INSIDE.activeElement || document.activeElement; "
                               "return e.dataset.do || e.dataset.reason || e.id || e.className || e.tagName"))

    def shown(self, selector: str) -> None:
        until(lambda: self.find(selector))

    def gone(self, selector: str) -> None:
        until(lambda: not self.find(selector))

    def heard(self, name: str) -> list[Any]:
        return [detail for kind, detail in self.script("return window.heard || []") if kind == name]

    def taken(self, action: str) -> list[dict[str, Any]]:
        return [one for one in self.fake.taken if one["action"] == action]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests here."""
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def station(chrome: Any) -> Iterator[Station]:
    """The gateway and the workstation on two origins; at the end nothing went elsewhere and nothing complained."""
    gateway, page = Fake(), Fake()
    with serving(gateway) as address, serving(page) as workstation:
        size(chrome, 1280)
        asked(chrome), complaints(chrome)
        yield Station(chrome, gateway, address, workstation, page)
        elsewhere = [url for url in asked(chrome) if not url.startswith((address, workstation, "data:", "blob:"))]
        assert elsewhere == []
        assert [line for line in complaints(chrome) if "net::ERR" not in line and "status of 4" not in line] == []
        chrome.get("about:blank")


def test_it_is_small() -> None:
    """Under 30 KB as it is served, before compression; no evaluation of text, no inline handler, no foreign address."""
    served = squeezed().decode()
    assert len(served.encode()) < 30_000
    assert not re.search(r"\beval\b|new Function|innerHTML|insertAdjacentHTML|document\.write|\.onclick\s*=", served)
    assert set(re.findall(r"https?://[a-z.]+", served)) == {"http://www.w", "http://huren.example"}


def test_two_clicks_recognise(station: Station) -> None:
    """Signed, reminded, opened, recognised: two clicks; the workstation hears which order may go."""
    answer = station.open(lab()).sign()
    assert [r["line"] for r in answer["reminders"]] == ["L1"]
    said = station.text("section")
    assert "Complete blood count" in said and "Demo First People's Hospital" in said
    station.click("[data-do=open]")
    station.click("[data-do=recognise]")
    station.gone("dialog[open]")
    assert station.clicks == 2
    assert [one["action"] for one in station.fake.taken] == ["view", "recognise"]
    assert {one["doctor"] for one in station.fake.taken} == {"D-7"} == {one["doctor"] for one in station.fake.taken}
    [decided] = station.heard("huren-decided")
    assert (decided["line"], decided["state"], decided["reference"], decided["number"]) == (
        "L1", "recognised", "ServiceRequest/L1", "P-L1")
    assert decided["decision"] in station.text("section")


def test_the_call_is_cds_hooks(station: Station) -> None:
    """``check`` posts order-sign with a fresh UUID, the user, the patient and a Bundle of the drafts."""
    station.open(lab()).sign()
    station.sign()
    first, second = station.fake.requests
    assert first["hook"] == "order-sign" and first["context"]["userId"] == "Practitioner/D-7"
    assert first["context"]["patientId"] == first["prefetch"]["patient"]["id"] == "p1"
    assert first["context"]["draftOrders"]["resourceType"] == "Bundle"
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}", first["hookInstance"])
    assert first["hookInstance"] != second["hookInstance"]
    assert len(station.heard("huren-reminded")) == 1  # what waits already is not told again


def test_three_clicks_do_not_recognise(station: Station) -> None:
    """Opened, "do not recognise", a reason: three clicks; the suggested reason stands first and has the focus."""
    station.open(lab()).sign()
    station.click("[data-do=open]")
    station.click("[data-do=refuse]")
    reasons = station.script("return [...INSIDE.querySelectorAll('[data-reason]')].map(b => b.dataset.reason)")
    assert reasons == ["R4", "R1", "R6"] and station.focus() == "R4"
    station.click("[data-reason=R1]")
    station.gone("dialog[open]")
    assert station.clicks == 3
    [refused] = station.taken("not_recognise")
    assert (refused["reason"], refused["explained"]) == ("R1", False)


def test_a_reason_that_needs_a_text_asks_for_it(station: Station) -> None:
    """Nothing is sent before there is a text; it goes with the decision, and so does "the patient was told"."""
    station.open(lab()).sign()
    station.click("[data-do=open]")
    station.click("[data-do=refuse]")
    station.click(".told input")
    station.click("[data-reason=R6]")
    station.click("[data-do=confirm]")
    assert station.taken("not_recognise") == [] and station.focus() == "TEXTAREA"
    station.press(*"second opinion")
    station.click("[data-do=confirm]")
    station.gone("dialog[open]")
    [refused] = station.taken("not_recognise")
    assert (refused["reason"], refused["text"], refused["explained"]) == ("R6", "second opinion", True)


def test_where_the_patient_must_be_told_it_asks(station: Station) -> None:
    """With the setting ``explained`` a reason alone is not sent."""
    station.open(lab(explained=True)).sign()
    station.click("[data-do=open]")
    station.click("[data-do=refuse]")
    station.click("[data-reason=R1]")
    station.shown("[role=alert]")
    assert station.taken("not_recognise") == [] and "told" in station.text("[role=alert]")
    station.click(".told input")
    station.click("[data-reason=R1]")
    station.gone("dialog[open]")
    assert station.taken("not_recognise")[0]["explained"] is True


def test_the_keyboard_alone(station: Station) -> None:
    """Alt+R opens, Tab stays inside, Esc leaves and the focus returns; Alt+N and Enter refuse, Alt+Y recognises."""
    station.open(lab(), exam()).sign()
    station.script("document.querySelector('#sign').focus()")
    station.press("Alt+r")
    station.shown("[data-do=recognise]")
    seen = []
    for _ in range(12):
        station.press("Tab")
        seen.append(station.focus())
    assert {"close", "recognise", "refuse"} <= set(seen) and "sign" not in seen and "BODY" not in seen
    station.press("Escape")
    station.gone("dialog[open]")
    assert station.focus() == "sign" and station.fake.lines["L1"]["state"] == "viewed"
    station.press("Alt+r")
    station.shown("[data-do=recognise]")
    station.press("Alt+n")
    until(lambda: station.focus() == "R4")
    station.press("Enter")
    until(lambda: "CT whole abdomen" in station.text("h2"))  # the next order
    station.shown("[data-do=recognise]")
    station.press("Alt+y")
    station.gone("dialog[open]")
    assert [one["state"] for one in station.fake.lines.values()] == ["not_recognised", "recognised"]
    assert station.focus() == "sign"


def test_blocking_cannot_be_left(station: Station) -> None:
    """A blocking item opens by itself and has no way out but a decision: no close button, no Esc, no Tab."""
    station.open(lab(blocking=True)).sign()
    station.shown("[data-do=recognise]")
    assert not station.find("[data-do=close]") and "decision is needed" in station.text()
    station.press("Escape", "Escape", "Escape")
    for _ in range(9):
        station.press("Tab")
        assert station.script("return !!INSIDE.activeElement")
    assert station.find("dialog[open]")
    station.script("INSIDE.querySelector('dialog').close()")
    station.shown("dialog[open]")
    station.click("[data-do=recognise]")
    station.gone("dialog[open]")


def test_blocking_does_not_break_in_from_elsewhere(station: Station) -> None:
    """A blocking reminder of an order that came another way waits in the corner, without a "later"."""
    station.open(lab(blocking=True), more='patient="p1" poll="0.2"')
    station.fake.waiting = ["L1"]
    station.shown("[data-do=open]")
    assert not station.find("dialog[open]") and not station.find("[data-do=later]")


def test_at_most_one_reminder_and_advisory_is_quiet(station: Station) -> None:
    """Several orders share one reminder; what is advisory alone is a small button that interrupts nobody."""
    station.open(lab(), exam()).sign()
    assert station.script("return INSIDE.querySelectorAll('section.corner').length") == 1
    assert "and 1 more" in station.text("section")
    station.click("[data-do=later]")
    station.shown(".pill")
    station.open(exam(verdict="ADVISORY", interruptive=False, codes=["FLAG_IMAGES"])).sign()
    station.shown(".pill")
    assert station.text("[role=status]") == "" and not station.find("dialog[open]")
    station.click("[data-do=open]")
    station.shown("[data-do=recognise]")
    assert "images not available" in station.text("header")


def test_the_report_beside_the_order(station: Station) -> None:
    """Values with unit, range, flag as arrow and word, trend with its numbers; images and the viewer's link."""
    station.open(lab(), exam(reasons=REASONS)).sign()
    station.click("[data-do=open]")
    station.shown("table")
    shown = station.text()
    for piece in ("12.10", "10*9/L", "3.5–9.5", "↑ high", "↓ low", "7.4 → 9.90 → 12.10", "XCG", "P-L1",
                  "Rest of the report (1)"):
        assert piece in shown, piece
    trend = station.script("return INSIDE.querySelector('svg').getAttribute('aria-label')")
    assert "2026-10-02 7.4 First Hospital" in trend
    station.click("[data-do=recognise]")
    station.shown(".thumbs canvas")
    assert "肝右叶囊肿" in station.text() and "边界清" in station.text()
    link = station.script("return INSIDE.querySelector('[data-do=viewer]').href")
    assert link.startswith(f"{station.gateway}/recognition/view/L2#lang=en")
    data = "const c = INSIDE.querySelector('canvas'); return c.getContext('2d').getImageData(60, 20, 1, 1).data[0]"
    assert station.script(data) > 50


def test_a_colleague_was_first(station: Station) -> None:
    """Two doctors: the second sees who decided and when, nothing of hers is recorded, and she may revoke."""
    station.open(lab()).sign()
    station.click("[data-do=open]")
    station.shown("[data-do=recognise]")
    station.fake.decide({"action": "not_recognise", "line": "L1", "doctor": "D-9", "reason": "R1"}, colleague=True)
    station.click("[data-do=recognise]")
    station.shown("[data-do=revoke]")
    assert "colleague decided first" in station.text("[role=alert]") and "Decided by D-9" in station.text()
    assert station.heard("huren-decided") == [] and station.heard("huren-conflict")[0]["state"] == "not_recognised"
    station.click("[data-do=revoke]")
    station.shown("[data-do=recognise]")
    assert station.heard("huren-decided")[0]["action"] == "revoke"


def test_a_bill_was_first(station: Station) -> None:
    """A conflict that is no colleague's is told in the gateway's own words, and nothing is called decided."""
    station.open(lab(billed=True)).sign()
    station.fake.refuse["recognise"] = (409, "this order line is billed; cancel the bill first")
    station.click("[data-do=open]")
    station.click("[data-do=recognise]")
    station.shown("[role=alert]")
    assert "cancel the bill first" in station.text("[role=alert]") and "already billed" in station.text("header")
    assert "colleague" not in station.text() and station.find("[data-do=recognise]")


def test_revoke(station: Station) -> None:
    """From the note of a decision one opens it again and revokes it; then both ways are open again."""
    station.open(lab()).sign()
    station.click("[data-do=open]")
    station.click("[data-do=recognise]")
    station.click("[data-do=reopen]")
    station.click("[data-do=revoke]")
    station.shown("[data-do=recognise]")
    assert station.taken("revoke")[0]["decision"] and station.fake.lines["L1"]["state"] == "viewed"
    station.click("[data-do=recognise]")
    station.gone("dialog[open]")
    assert station.fake.lines["L1"]["state"] == "recognised"


def test_the_gateway_goes_away_in_between(station: Station) -> None:
    """Never a false "done": it says that nothing is confirmed; the retry is the same action, done once."""
    station.open(lab()).sign()
    station.click("[data-do=open]")
    station.shown("[data-do=recognise]")
    until(lambda: station.taken("view"))
    station.fake.broken.add("/recognition")
    station.click("[data-do=recognise]")
    station.shown("[data-do=retry]")
    assert "not confirmed" in station.text("[role=alert]") and station.heard("huren-decided") == []
    assert station.find("dialog[open]") and station.focus() == "retry"
    station.click("[data-do=retry]")
    station.shown("[data-do=retry]")
    station.fake.broken.clear()
    station.click("[data-do=retry]")
    station.gone("dialog[open]")
    assert len(station.taken("recognise")) == 1 and station.fake.lines["L1"]["state"] == "recognised"


def test_an_answer_is_lost(station: Station) -> None:
    """It was recorded and the answer cut off: nothing is said to be done or undone, and the retry finds it."""
    station.open(lab()).sign()
    station.click("[data-do=open]")
    until(lambda: station.taken("view"))
    station.fake.deaf = 2  # the browser itself asks once more where a kept connection ends
    station.click("[data-do=recognise]")
    station.shown("[data-do=retry]")
    assert "not confirmed" in station.text("[role=alert]") and station.fake.lines["L1"]["state"] == "recognised"
    station.click("[data-do=retry]")
    station.gone("dialog[open]")
    assert len(station.taken("recognise")) == 1 and len(station.heard("huren-decided")) == 1


def test_the_gateway_is_away_at_signing(station: Station) -> None:
    """``check`` resolves all the same: the order is not held up; the retry finds the reminder."""
    station.open(lab())
    station.fake.broken.add("/cds-services")
    assert station.sign()["failed"] is True
    assert "not held up" in station.text("section")
    station.fake.broken.clear()
    station.click("[data-do=retry]")
    station.shown("[data-do=open]")


def test_a_refusal_is_shown_in_its_own_words(station: Station) -> None:
    """What the gateway refuses is said as it says it; the dialog stays."""
    station.open(lab()).sign()
    station.fake.refuse["recognise"] = (422, "the report must be opened first")
    station.click("[data-do=open]")
    station.click("[data-do=recognise]")
    station.shown("[role=alert]")
    assert "the report must be opened first" in station.text("[role=alert]") and station.find("dialog[open]")


def test_orders_that_came_another_way(station: Station) -> None:
    """With a patient the plug-in looks by itself for reminders, and forgets those that are settled elsewhere."""
    station.open(lab(), more='patient="p1" poll="0.2"')
    station.fake.waiting = ["L1"]
    station.shown("[data-do=open]")
    paths = {path for _, path, _ in station.fake.seen if "reminders" in path}
    assert paths == {"/recognition/reminders?institution=hz-demo-2&patient=p1&doctor=D-7"}
    station.fake.waiting = []
    station.gone("[data-do=open]")


def test_a_session_that_ends_is_told_and_can_be_replaced(station: Station) -> None:
    """While it looks for reminders: the page hears 401, sets a new session, and the reminder comes."""
    station.open(lab(), more='patient="p1" poll="0.2"')
    station.script("""document.addEventListener("huren-failed", event => { window.told = event.detail;
        document.querySelector("huren-recognition").session = "new"; });
        document.querySelector("huren-recognition").session = "old";""")
    station.fake.waiting = ["L1"]
    station.shown("[data-do=open]")
    assert station.script("return window.told") == {"what": "refresh", "status": 401}


def test_the_session_is_sent_and_need_not_stand_in_the_page(station: Station) -> None:
    """As a property: every call carries it, the document does not, and the viewer gets it in the fragment."""
    station.open(exam())
    station.script("document.querySelector('huren-recognition').session = 'secret-7'")
    station.sign()
    station.click("[data-do=open]")
    station.shown(".thumbs canvas")
    calls = [sent for method, path, sent in station.fake.seen if method != "OPTIONS" and "widget.js" not in path]
    assert len(calls) >= 4 and set(calls) == {"Bearer secret-7"}
    assert "secret-7" not in station.script("return document.documentElement.outerHTML")
    assert "session=secret-7" in station.script("return INSIDE.querySelector('[data-do=viewer]').hash")
    assert not any("secret-7" in path for _, path, _ in station.fake.seen)


def test_one_tag_does_both(station: Station) -> None:
    """The script's address may name institution and doctor: then it places the element itself."""
    station.open(lab())
    station.page.page = (f'<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>x</title><body>'
                         f'<script type="module" src="{station.gateway}/recognition/widget.js?institution=hz-demo-2&'
                         f'doctor=D-7&poll=0"></script></body>')
    station.fake.page = station.page.page
    station.chrome.get(station.station)
    until(lambda: station.script("return !!document.querySelector('huren-recognition')?.shadowRoot"))
    assert len(station.sign()["reminders"]) == 1


@pytest.mark.parametrize(("lang", "words"), [("zh-CN", ("其他医院已有结果", "互认此结果", "外院结果",
                                                        "白细胞计数", "偏高")),
                                             ("en", ("Another hospital", "Recognise", "earlier result",
                                                     "White blood cells", "high"))])
def test_both_languages_follow_the_page(station: Station, lang: str, words: tuple[str, ...]) -> None:
    """The page's language is the plug-in's, its own attribute wins, and every text is in that language."""
    station.open(lab(), lang=lang).sign()
    shown = station.text("section.corner")
    station.click("[data-do=open]")
    station.shown("table")
    shown += station.text()
    assert all(word in shown for word in words)
    other = "en" if lang == "zh-CN" else "zh"
    station.script("document.querySelector('huren-recognition').setAttribute('lang', arguments[0])", other)
    until(lambda: ("Recognise" if other == "en" else "互认此结果") in station.text("footer"))


def test_a_screen_reader_hears_names(station: Station) -> None:
    """In the accessibility tree: a modal dialog named by the order, buttons, tables and pictures with names."""
    station.open(lab(), exam()).sign()
    assert {"View and decide", "Later"} <= set(names(station.chrome, "button"))
    station.click("[data-do=open]")
    station.shown("table")
    assert names(station.chrome, "dialog") == ["Complete blood count"]
    assert {"Close", "Recognise", "Do not recognise…"} <= set(names(station.chrome, "button"))
    assert {"Item", "Value", "Reference", "Trend"} <= set(names(station.chrome, "columnheader"))
    assert any("2026-10-02 7.4" in name for name in names(station.chrome, "image"))
    station.click("[data-do=refuse]")
    assert "The patient was told why it is repeated" in names(station.chrome, "checkbox")
    assert "" not in names(station.chrome, "button")


CONTRAST = """const lum = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255).map(x =>
  x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const bad = [];
for (const e of INSIDE.querySelectorAll("*")) {
  if (!e.checkVisibility() || e.closest(":disabled") || e.className === "say") continue;
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  let back = e, paper = "rgba(0, 0, 0, 0)";
  for (; back && /, 0\\)$/.test(paper); back = back.parentElement) paper = getComputedStyle(back).backgroundColor;
  const [a, b] = [lum(getComputedStyle(e).color), lum(paper)].sort((x, y) => y - x);
  if ((a + .05) / (b + .05) < 4.5) bad.push(e.outerHTML.slice(0, 80) + " " + ((a + .05) / (b + .05)).toFixed(2));
}
return bad;"""


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_enough_by_day_and_night(station: Station, dark: bool) -> None:
    """WCAG 2.1 1.4.3: every text has a contrast of at least 4.5, also where the page is dark."""
    size(station.chrome, 1280, dark=dark)
    station.open(lab(codes=["FLAG_CRITICAL"]), exam())
    station.script("""const meta = document.createElement("meta"); meta.name = "color-scheme";
        meta.content = "light dark"; document.head.append(meta);""")
    station.sign()
    assert station.script(CONTRAST) == []
    assert station.script("return document.querySelector('huren-recognition').hasAttribute('data-dark')") is dark
    station.click("[data-do=open]")
    station.shown("table")
    station.click("[data-do=refuse]")
    assert station.script(CONTRAST) == []


def test_motion_is_left_out_where_it_is_not_wanted(station: Station) -> None:
    """prefers-reduced-motion: nothing moves."""
    station.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-reduced-motion", "value": "reduce"}]})
    station.open(lab()).sign()
    assert station.script("return getComputedStyle(INSIDE.querySelector('section')).animationName") == "none"


@pytest.mark.parametrize("lang", ["zh-CN", "en"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_phone_and_desk(station: Station, tmp_path: Path, lang: str, width: int) -> None:
    """Nothing is cut off sideways and both buttons are in sight, in every state; pictures are left in a folder."""
    size(station.chrome, width, 740)
    station.open(lab(), exam(blocking=False), lang=lang).sign()

    def fits(step: str) -> None:
        station.chrome.save_screenshot(str(tmp_path / f"{lang}-{width}-{step}.png"))
        assert station.script("return document.documentElement.scrollWidth") <= width
        cut = station.script("""return [...INSIDE.querySelectorAll("*")].filter(e => {
          const r = e.checkVisibility() && e.className !== "say" && e.getBoundingClientRect();
          return r && r.width && (r.right > innerWidth + 1 || r.left < -1); }).map(e => e.outerHTML.slice(0, 90))""")
        assert cut == []
    fits("reminder")
    station.click("[data-do=open]")
    station.shown("table")
    fits("report")
    bottom = "return INSIDE.querySelector('[data-do=recognise]').getBoundingClientRect().bottom"
    assert station.script(bottom) <= 740
    station.click("[data-do=refuse]")
    fits("reasons")
    station.click("[data-do=refuse]")
    station.click("[data-do=recognise]")
    station.shown(".thumbs canvas")
    fits("images")
    station.click("[data-do=recognise]")
    station.shown("[data-do=reopen]")
    fits("done")


def test_markup_in_the_data_is_text(station: Station) -> None:
    """Names, texts and refusals are shown as they are and never run."""
    evil = "<img src=x onerror=\"document.title='stolen'\"><script>document.title='stolen'</script>"
    line = exam(number=evil)
    line["order"] |= {"name_en": evil, "display": evil}
    line["reports"][0] |= {"conclusion": evil, "institution_en": evil, "texts": [{"name": evil, "text": evil}]}
    station.open(line).sign()
    station.click("[data-do=open]")
    station.shown(".thumbs canvas")
    assert evil in station.text() and station.chrome.title == "Workstation"
    assert station.script("return INSIDE.querySelector('img, script')") is None


