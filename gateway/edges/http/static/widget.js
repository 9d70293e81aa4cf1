// <huren-recognition>: reminds of another hospital's result, shows it, takes the decision. Manual: gateway/edges/README.md
const TEXTS = {
  reminder: ["其他医院已有结果", "Another hospital has this result"], more: ["另有 {} 项医嘱", "and {} more"],
  open: ["查看并决定", "View and decide"], later: ["稍后", "Later"], close: ["关闭", "Close"], retry: ["重试", "Try again"],
  quiet: ["{} 项外院结果可供参考", "{} results elsewhere to consider"], order: ["本次医嘱", "Your order"],
  result: ["外院结果", "The earlier result"], recognise: ["互认此结果", "Recognise"], refuse: ["不互认…", "Do not recognise…"],
  revoke: ["撤销决定", "Revoke"], loading: ["正在打开报告…", "Opening the report…"],
  sending: ["正在记录…", "Recording…"], of: ["第 {} 项，共 {} 项", "{} of {}"],
  code: ["院内编码", "Local code"], number: ["医嘱号", "Order number"], doctor: ["医生", "Doctor"], dept: ["科室", "Department"],
  item: ["项目", "Item"], value: ["结果", "Value"], range: ["参考范围", "Reference"], trend: ["趋势", "Trend"],
  sampled: ["采集/检查时间", "Collected"], issued: ["报告时间", "Reported"], conclusion: ["诊断意见", "Conclusion"],
  images: ["影像", "Images"], viewer: ["打开影像", "Open the viewer"], noimage: ["影像暂不可显示", "Images cannot be shown now"],
  missing: ["仍需检查", "Still to do"], advisory: ["仅供参考", "For information"], blocking: ["此项须先作出决定", "A decision is needed before you go on"],
  why: ["为什么不互认？", "Why not?"], told: ["已向患者说明重复检查的理由", "The patient was told why it is repeated"],
  tellFirst: ["请先确认已向患者说明", "Confirm first that the patient was told"], suggested: ["建议", "suggested"],
  text: ["请说明理由", "Say why"], confirm: ["确认不互认", "Confirm"],
  recognised: ["已互认，此医嘱不可收费", "Recognised: this order cannot be billed"],
  not_recognised: ["已记录不互认，可以检查", "Not recognised: the order may go on"], revoked: ["决定已撤销", "The decision was revoked"],
  decided: ["已由 {} 决定", "Decided by {}"], conflict: ["同事已先作出决定；您的操作没有记录", "A colleague decided first; nothing of yours was recorded"],
  network: ["网关没有应答，未确认已记录，请重试", "No answer from the gateway: not confirmed, try again"], id: ["决定编号", "Decision"],
  offline: ["暂时无法核对外院结果，医嘱不受影响", "Results elsewhere cannot be checked now; your order is not held up"],
  failed: ["没有成功：{}", "Not done: {}"], login: ["登录已失效，请重新打开工作站", "The session has ended; sign in to the workstation again"],
  billed: ["此医嘱已收费", "This order is already billed"], rest: ["报告其他项目（{}）", "Rest of the report ({})"],
  high: ["偏高", "high"], low: ["偏低", "low"], abnormal: ["异常", "abnormal"], critical: ["危急", "critical"],
  "critical-high": ["危急高", "critically high"], "critical-low": ["危急低", "critically low"],
  FLAG_CRITICAL: ["含危急值", "critical value"], FLAG_HAEMOLYSIS: ["标本溶血", "haemolysed specimen"],
  FLAG_REPEAT: ["原报告建议复查", "repeat advised"], FLAG_IMAGES: ["影像无法调阅", "images not available"],
  region: ["检查检验互认", "Mutual recognition"],
};
const ARROW = { high: "↑", low: "↓", "critical-high": "⇈", "critical-low": "⇊", critical: "‼", abnormal: "!" };
const LINES = "http://huren.example/fhir/cds-hooks/lines";
const CSS = `
:host { --ink:#14201f; --soft:#55645f; --line:#d9e1df; --paper:#f4f7f6; --card:#fff; --accent:#0f766e; --on:#fff; --warm:#a04a05; --high:#b91c1c; --low:#1d4ed8; --tint:#e4f2f0;
  font:15px/1.5 system-ui,-apple-system,"Segoe UI","PingFang SC","Microsoft YaHei","Noto Sans CJK SC","Noto Sans SC",sans-serif; color:var(--ink); }
:host([data-dark]) { --ink:#e7eeec; --soft:#a9b8b5; --line:#33423f; --paper:#101817; --card:#172120; --accent:#2dd4bf; --on:#06201d; --warm:#fbbf24; --high:#fca5a5; --low:#93c5fd; --tint:#12302c; }
* { box-sizing:border-box; } [hidden] { display:none !important; }
button, a.b { font:inherit; color:var(--accent); background:none; border:1px solid var(--line); border-radius:10px; padding:8px 14px; min-height:40px; cursor:pointer; text-decoration:none; white-space:nowrap; }
button:hover, a.b:hover { background:var(--tint); } button:disabled { opacity:.55; cursor:default; }
button.main { background:var(--accent); border-color:var(--accent); color:var(--on); font-weight:600; } button.main:hover { filter:brightness(1.08); background:var(--accent); }
:focus-visible { outline:3px solid var(--accent); outline-offset:2px; } button.main:focus-visible { outline-color:var(--ink); }
.say { background:Canvas; position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%); white-space:nowrap; }
.corner { position:fixed; right:20px; bottom:20px; z-index:2147483000; width:min(380px,calc(100vw - 24px)); background:var(--card); color:var(--ink); border:1px solid var(--line); border-left:5px solid var(--accent); border-radius:14px; padding:14px 16px; box-shadow:0 10px 36px #0003; animation:in .18s ease-out; }
.corner.bad { border-left-color:var(--warm); } .corner.pill { width:auto; padding:0; border-left-width:1px; border-radius:99px; } .pill button { border:0; border-radius:99px; }
.corner b { display:block; font-size:1.05em; } .corner p { margin:2px 0 0; color:var(--soft); overflow-wrap:anywhere; } .corner .do { display:flex; gap:8px; margin-top:12px; }
@keyframes in { from { opacity:0; transform:translateY(10px); } }
dialog { width:min(1060px,calc(100vw - 24px)); max-width:none; max-height:calc(100dvh - 24px); padding:0; border:1px solid var(--line); border-radius:16px; background:var(--card); color:var(--ink); box-shadow:0 24px 80px #0006; overflow:hidden; }
dialog[open] { display:flex; flex-direction:column; } dialog::backdrop { background:#0b1514a6; }
header { display:flex; gap:12px; align-items:flex-start; padding:14px 20px; border-bottom:1px solid var(--line); } header div { flex:1; min-width:0; }
h2 { font-size:1.22em; line-height:1.3; margin:0; } h3 { font-size:1em; margin:0 0 6px; } small { color:var(--soft); font-weight:400; font-size:.875em; }
header p { margin:2px 0 0; color:var(--soft); } .x { border:0; font-size:1.25em; line-height:1; padding:8px 12px; }
.tag { display:inline-block; border:1px solid currentColor; color:var(--warm); border-radius:99px; font-size:.8em; padding:0 9px; margin:2px 6px 2px 0; }
.sides { display:grid; grid-template-columns:minmax(190px,1fr) minmax(0,3.2fr); overflow:auto; flex:1; min-height:0; } .sides > * { padding:16px 20px; min-width:0; } .mine { background:var(--paper); border-right:1px solid var(--line); }
dl { margin:8px 0 0; } dt { color:var(--soft); font-size:.85em; } dd { margin:0 0 6px; overflow-wrap:anywhere; }
article + article { border-top:1px solid var(--line); margin-top:16px; padding-top:16px; }
table { width:100%; border-collapse:collapse; margin:6px 0; } th { text-align:left; font-weight:400; color:var(--soft); font-size:.85em; } th, td { padding:5px 10px 5px 0; border-bottom:1px solid var(--line); vertical-align:middle; } td:first-child { overflow-wrap:break-word; }
.n { text-align:right; white-space:nowrap; font-variant-numeric:tabular-nums; } .f { margin-right:8px; font-size:.875em; font-weight:600; color:var(--high); } .f.down { color:var(--low); } tr.hit td:first-child { box-shadow:inset 3px 0 var(--accent); padding-left:10px; }
svg { width:72px; height:22px; vertical-align:middle; overflow:visible; } polyline { fill:none; stroke:var(--accent); stroke-width:1.6; } circle { fill:var(--accent); } .t { font-size:.8em; color:var(--soft); }
.text { white-space:pre-line; overflow-wrap:anywhere; margin:8px 0; } .text b { display:block; color:var(--soft); font-weight:500; font-size:.875em; }
.thumbs { display:flex; flex-wrap:wrap; gap:8px; align-items:center; margin:8px 0; } canvas { width:92px; height:92px; object-fit:contain; background:#000; border-radius:8px; display:block; } 
summary { cursor:pointer; color:var(--accent); padding:6px 0; }
footer { border-top:1px solid var(--line); padding:12px 20px; display:flex; flex-wrap:wrap; gap:10px; align-items:center; }
.banner { padding:10px 20px; border-top:1px solid var(--line); display:flex; gap:12px; align-items:center; flex-wrap:wrap; } .banner.bad { color:var(--warm); font-weight:600; } .banner.ok { background:var(--tint); } .banner code { font-size:.85em; overflow-wrap:anywhere; }
.why { padding:12px 20px; border-top:1px solid var(--line); overflow:auto; max-height:55%; flex:none; } .why h3 { margin-bottom:4px; } .told { display:flex; gap:8px; align-items:center; min-height:40px; } .told input { width:20px; height:20px; accent-color:var(--accent); }
.why ul { list-style:none; margin:4px 0 0; padding:0; display:grid; gap:6px; } .why li button { width:100%; text-align:left; white-space:normal; color:var(--ink); } .why li button[aria-expanded=true], .why li button.first { border-color:var(--accent); background:var(--tint); }
.why li div { display:flex; gap:8px; margin-top:6px; } textarea { flex:1; font:inherit; color:inherit; background:var(--card); border:1px solid var(--soft); border-radius:10px; padding:8px; min-height:40px; min-width:0; }
@media (max-width:700px) { .corner { right:12px; bottom:12px; } dialog { width:100vw; height:100dvh; max-height:none; border:0; border-radius:0; margin:0; } .sides { display:block; } .mine { border-right:0; border-bottom:1px solid var(--line); } .mine dl { display:grid; grid-template-columns:auto 1fr; gap:0 12px; } dd { margin:0; } header, footer, .why, .banner, .sides > * { padding-inline:14px; } footer > button { flex:1; } .r { display:none; } .f { display:block; margin:0; } svg { width:56px; } }
.sides:focus-visible { outline-offset:-3px; }
@media (prefers-reduced-motion:reduce) { * { animation:none !important; transition:none !important; } }`;

const SVG = new Set(["svg", "polyline", "circle", "title"]);
function h(tag, props, ...kids) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (value == null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...kids.flat(2).filter(kid => kid || kid === 0));
  return node;
}
const key = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), b => b.toString(16).padStart(2, "0")).join("")
  .replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, "$1-$2-4$3-8$4-$5"); // RFC 9562 5.4; randomUUID needs a secure context
const button = (name, text, onclick, more) => h("button", { "data-do": name, onclick, ...more }, text);
// As the hospital sent it, with its own offset; what is UTC in the zone of this screen.
const day = (time = "") => (/(Z|\+00:00)$/.test(time) ? new Date(Date.parse(time) - 6e4 * new Date(time).getTimezoneOffset()).toISOString() : time).slice(0, 16).replace("T", " ");
const PENDING = ["reminded", "viewed"];

class HurenRecognition extends HTMLElement {
  static observedAttributes = ["patient", "encounter", "doctor", "institution", "lang", "base", "session"];
  #root = this.attachShadow({ mode: "open" });
  #say = h("div", { class: "say", role: "status", "aria-live": "polite" });
  #nook = h("section");
  #box = h("dialog", { "aria-labelledby": "title" });
  #x = button("close", "×", () => { this.#stage.why = 0; this.#leave(); }, { class: "x" });
  #session = ""; #lines = new Map(); #seen = new Set(); #note = null; #queue = []; #at = 0; #detail = null; #stage = {}; #back = null; #timer = 0; #run = 0; #was;

  constructor() {
    super();
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
    this.#root.adoptedStyleSheets = [sheet];
    this.#root.append(this.#say, this.#nook, this.#box);
    this.#box.addEventListener("cancel", event => { event.preventDefault(); this.#leave(); });
    this.#box.addEventListener("close", () => this.#closed());
    this.#box.addEventListener("keydown", event => this.#keys(event));
    this.onShortcut = event => { if (event.altKey && event.code === "KeyR" && !this.#box.open && this.#lines.size) { event.preventDefault(); this.#openAll(); } };
  }

  /** Token of POST /recognition/sessions; as a property it does not stand in the page. */
  get session() { return this.#session || this.getAttribute("session") || ""; }
  set session(token) { this.#session = token || ""; }
  /** Reminders that wait for a decision. */
  get reminders() { return [...this.#lines.values()]; }

  connectedCallback() {
    document.addEventListener("keydown", this.onShortcut);
    this.#paint();
    this.#poll();
  }
  disconnectedCallback() { document.removeEventListener("keydown", this.onShortcut); clearTimeout(this.#timer); }
  attributeChangedCallback(name, old, value) {
    if (!this.isConnected || old === value) return;
    if (name === "lang") { this.#paint(); if (this.#box.open) this.#draw(); return; }
    if (name !== "session") { this.#lines.clear(); this.#note = null; this.#paint(); }
    this.#poll();
  }

  /** Ask what is known of draft orders (CDS Hooks); resolves to {reminders, cards} or {failed}, never rejects, never holds an order up. */
  async check({ hook = "order-sign", patient, draftOrders = [], prefetch, ...context } = {}) {
    const orders = Array.isArray(draftOrders) ? { resourceType: "Bundle", type: "collection", entry: draftOrders.map(resource => ({ resource })) } : draftOrders;
    const request = { hook, hookInstance: key(), prefetch: { ...(patient && { patient }), ...prefetch }, extension: { "huren.example.institution": this.#my("institution"), "huren.example.language": this.#lang },
      context: { userId: `Practitioner/${this.#my("doctor")}`, patientId: patient?.id || this.#my("patient"), encounterId: this.#my("encounter"), draftOrders: orders, ...context } };
    try {
      const { cards = [] } = await this.#call("POST", "/cds-services/recognition", request);
      const found = cards.flatMap(card => card.extension?.[LINES] || []);
      this.#note = null;
      this.#take(found, true);
      return { reminders: found, cards };
    } catch (problem) {
      this.#note = { bad: true, text: this.#why(problem, "offline"), retry: () => this.check(arguments[0]) };
      this.#paint();
      this.#tell("huren-failed", { what: "check", status: problem.status, message: this.#note.text });
      return { reminders: [], cards: [], failed: true };
    }
  }

  /** Look for reminders of orders that came another way (HL7 v2). */
  async refresh() {
    const query = new URLSearchParams();
    for (const name of ["institution", "patient", "doctor", "encounter"]) if (this.#my(name)) query.set(name, this.#my(name));
    const { reminders = [] } = await this.#call("GET", `/recognition/reminders?${query}`);
    const known = new Set(reminders.map(r => r.line));
    for (const line of this.#lines.keys()) if (!known.has(line)) this.#lines.delete(line);
    this.#take(reminders);
    return reminders;
  }
  #poll() {
    clearTimeout(this.#timer);
    const seconds = Number(this.getAttribute("poll") ?? 10);
    if (!seconds || !this.isConnected || !(this.#my("patient") || this.#my("doctor"))) return;
    const again = () => { this.#timer = setTimeout(() => this.#poll(), seconds * 1000); };
    if (document.hidden || this.#box.open) again(); else this.refresh().catch(problem => this.#tell("huren-failed", { what: "refresh", status: problem.status })).finally(again);
  }

  /** Open the report of one line, decided or not. */
  open(line) { this.#queue = [line]; this.#at = 0; return this.#show(); }

  #take(found, signed) {
    const fresh = found.filter(r => PENDING.includes(r.state || "reminded") && !this.#lines.has(r.line));
    for (const r of found) if (PENDING.includes(r.state || "reminded")) this.#lines.set(r.line, r); else this.#lines.delete(r.line);
    if (fresh.length) {
      this.#tell("huren-reminded", { reminders: fresh });
      if (fresh.some(r => r.interruptive)) this.#say.textContent = `${this.#t("reminder")}: ${fresh.map(r => this.#name(r.order)).join(", ")}`;
    }
    this.#paint();
    if (signed && !this.#box.open && fresh.some(r => r.blocking)) this.#openAll();
  }

  // ---- the corner: at most one thing
  #loud() { return this.reminders.filter(r => r.interruptive && !this.#seen.has(r.line)); }
  #openAll() {
    const loud = this.#loud();
    this.#queue = (loud.length ? loud : this.reminders).map(r => r.line);
    this.#at = 0;
    this.#show();
  }
  #paint() {
    const dark = !/255/.test(getComputedStyle(this.#say).backgroundColor); // dark only where the page itself is
    this.toggleAttribute("data-dark", dark);
    const [first, ...more] = this.#loud(), t = this.#t;
    const note = this.#note, now = [note, first?.line, more.length, this.#lines.size, this.#lang, dark];
    if (this.#was?.every((x, i) => x === now[i])) return; // a press or a focus that is under way is kept
    this.#was = now;
    let kids = [], kind = "corner";
    if (note) {
      kind += note.bad ? " bad" : "";
      kids = [h("b", { role: note.bad && "alert" }, note.text), note.more && h("p", {}, note.more), h("div", { class: "do" },
        note.retry && button("retry", t("retry"), note.retry, { class: "main" }),
        note.line && button("reopen", t("revoke") + "…", () => this.open(note.line)),
        button("dismiss", t("close"), () => { this.#note = null; this.#paint(); }))];
    } else if (first) {
      const from = first.results?.[0] || {};
      kids = [h("b", {}, t("reminder")), h("p", {}, this.#name(first.order)), h("p", {}, [this.#where(from), this.#ago(from.time, true)].filter(Boolean).join(" · ")),
        more.length > 0 && h("p", {}, t("more", more.length)), h("div", { class: "do" },
          button("open", t("open"), () => this.#openAll(), { class: "main", "aria-keyshortcuts": "Alt+R" }),
          !first.blocking && button("later", t("later"), () => { this.#loud().forEach(r => this.#seen.add(r.line)); this.#paint(); }))];
    } else if (this.#lines.size) {
      kind += " pill";
      kids = [button("open", t("quiet", this.#lines.size), () => this.#openAll(), { "aria-keyshortcuts": "Alt+R" })];
    }
    this.#nook.className = kind;
    this.#nook.hidden = !kids.length;
    this.#nook.setAttribute("aria-label", t("region"));
    this.#nook.replaceChildren(...kids.filter(Boolean));
  }

  // ---- the dialog
  async #show() {
    const line = this.#queue[this.#at], run = ++this.#run;
    if (!this.#box.open) {
      let active = document.activeElement;
      while (active?.shadowRoot?.activeElement && active !== this) active = active.shadowRoot.activeElement;
      this.#back = active;
    }
    this.#detail = null;
    this.#stage = { key: key(), busy: "loading" };
    this.#draw();
    if (!this.#box.open) this.#box.showModal();
    try {
      const detail = await this.#load(line);
      if (run !== this.#run) return;
      this.#detail = detail;
      this.#stage.busy = "";
      this.#draw(".sides");
      this.#pictures(detail, run);
      if (PENDING.includes(detail.state)) await this.#view();
    } catch (problem) {
      if (run === this.#run && !this.#detail) this.#fail(problem, () => this.#show());
    }
  }
  /** What opens is looked at: the record of it is sent again with the decision where it could not be made now. */
  async #view() {
    if (this.#stage.viewed) return;
    const stage = this.#stage;
    await this.#send("view", `${stage.key}.view`);
    stage.viewed = true;
  }
  #send(action, id, more) {
    return this.#call("POST", "/recognition/decisions", { action, line: this.#detail.line, doctor: this.#my("doctor"), key: id, via: "widget", ...more });
  }
  async #load(line) { return { reports: [], codes: [], reasons: [], ...await this.#call("GET", this.#path(line)) }; }
  #my(name) { return this.getAttribute(name) || undefined; }
  #path(line) { return `/recognition/lines/${encodeURIComponent(line)}`; }

  async #act(action, extra = {}) {
    const stage = this.#stage, detail = this.#detail;
    if (stage.busy) return;
    stage.busy = "sending"; stage.bad = ""; stage.retry = null;
    this.#draw();
    try {
      if (action !== "revoke") await this.#view();
      const done = await this.#send(action, `${stage.key}.${action}.${extra.reason || ""}`, extra);
      stage.busy = "";
      this.#done(action, done, extra);
    } catch (problem) {
      stage.busy = "";
      if (problem.status === 409) return this.#conflict(problem);
      this.#fail(problem, () => this.#act(action, extra));
    }
  }
  #done(action, done, extra) {
    const detail = this.#detail, line = detail.line;
    if (action === "revoke") this.#lines.set(line, { ...detail, interruptive: false }); else this.#lines.delete(line);
    this.#tell("huren-decided", { line, number: detail.number, order: detail.order, reference: detail.order?.reference, action, state: done.state, decision: done.decision, reason: extra.reason || "" });
    if (action === "revoke") {
      this.#say.textContent = this.#t("revoked");
      this.#detail = { ...detail, state: done.state, decision: null };
      this.#stage = { key: key(), viewed: true };
      this.#draw(".sides");
      return;
    }
    this.#note = { text: this.#t(done.state), more: `${this.#name(detail.order)} · ${this.#t("id")} ${done.decision}`, line };
    this.#say.textContent = this.#note.text;
    if (this.#at + 1 < this.#queue.length) { this.#at++; this.#show(); } else { this.#detail = { ...detail, state: done.state }; this.#box.close(); }
  }
  async #conflict(problem) {
    const mine = this.#detail.line, run = this.#run;
    try {
      const detail = await this.#load(mine);
      if (run !== this.#run) return;
      this.#detail = detail;
      const open = PENDING.includes(detail.state);
      this.#stage = { key: key(), bad: open ? this.#why(problem) : this.#t("conflict"), viewed: true };
      if (!open) this.#lines.delete(mine);
    } catch { this.#stage.bad = this.#why(problem); }
    this.#tell("huren-conflict", { line: mine, state: this.#detail.state });
    this.#draw("[data-do=revoke]");
  }
  #fail(problem, retry) {
    this.#stage.busy = "";
    this.#stage.bad = this.#why(problem, "network");
    this.#stage.retry = retry;
    this.#tell("huren-failed", { what: "decision", status: problem.status, message: this.#stage.bad });
    this.#draw("[data-do=retry]");
  }
  #why(problem, network) {
    if (!problem.status) return this.#t(network);
    return problem.status === 401 ? this.#t("login") : this.#t("failed", problem.message || problem.status);
  }

  get #held() { return !!this.#detail?.blocking && PENDING.includes(this.#detail.state); }
  #leave() {
    if (this.#held || this.#stage.busy === "sending") return;
    if (this.#stage.why) { this.#stage.why = false; this.#draw("[data-do=refuse]"); return; }
    this.#box.close();
  }
  #closed() {
    if (this.#held) { this.#box.showModal(); return; } // a browser may close a dialog on a second Esc
    this.#run++;
    this.#queue.forEach(line => this.#seen.add(line));
    this.#paint();
    const back = this.#back;
    (back?.isConnected && back !== document.body ? back : this.#nook.querySelector("button:last-child"))?.focus();
    this.#tell("huren-closed", { line: this.#detail?.line || "", state: this.#detail?.state || "" });
  }
  #keys(event) {
    const press = name => { const found = this.#box.querySelector(`[data-do=${name}]:not(:disabled)`); if (found) { event.preventDefault(); found.click(); } };
    if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); this.#leave(); }
    else if (event.altKey && event.code === "KeyY") press("recognise");
    else if (event.altKey && event.code === "KeyN") press("refuse");
    else if (event.key === "Tab") {
      const stops = [...this.#box.querySelectorAll("button:not(:disabled), a[href], input, textarea, summary, [tabindex='0']")];
      const edge = event.shiftKey ? stops[0] : stops[stops.length - 1], now = this.#root.activeElement;
      if (stops.length && (now === edge || now === this.#box)) { event.preventDefault(); (event.shiftKey ? stops[stops.length - 1] : stops[0]).focus(); }
    }
  }

  #draw(focus) {
    const t = this.#t, d = this.#detail, s = this.#stage, pending = d && PENDING.includes(d.state), first = d?.reports[0];
    const old = this.#box.querySelector(".sides"), top = old?.scrollTop || 0, held = this.#root.activeElement?.dataset?.do;
    const sides = d && (s.sides?.of === d && s.sides.lang === this.#lang ? s.sides.node : h("div", { class: "sides", tabindex: "0", role: "group", "aria-label": t("result") }, this.#mine(d),
      h("section", {}, h("h3", {}, t("result")), d.reports.map(r => this.#report(r, d)))));
    if (d) s.sides = { of: d, lang: this.#lang, node: sides };
    this.#box.setAttribute("lang", this.#lang === "zh" ? "zh-CN" : "en");
    this.#box.setAttribute("aria-busy", !!s.busy);
    this.#x.setAttribute("aria-label", t("close"));
    this.#box.replaceChildren(...[
      h("header", {}, h("div", {}, h("h2", { id: "title" }, d ? this.#name(d.order) : t("reminder")), d && first && h("p", {}, [this.#where(first), this.#ago(first.time)].filter(Boolean).join(" · ")),
        d && d.verdict !== "RECOGNISABLE" && h("span", { class: "tag" }, t(d.verdict === "PARTIAL" ? "missing" : "advisory")), d && [...new Set([...d.codes, ...d.reports.flatMap(r => r.flags || [])])].filter(c => c.startsWith("FLAG_")).map(c => h("span", { class: "tag" }, t(c))),
        d?.billed && h("span", { class: "tag" }, t("billed")), this.#held && h("span", { class: "tag" }, t("blocking"))),
        this.#queue.length > 1 && h("small", {}, t("of", this.#at + 1, this.#queue.length)),
        !this.#held && this.#x),
      d ? sides : h("p", { class: "banner" }, s.busy ? t("loading") : ""),
      s.bad && h("div", { class: "banner bad", role: "alert" }, s.bad, s.retry && button("retry", t("retry"), s.retry)),
      d && !pending && this.#decision(d),
      pending && s.why && this.#reasons(d),
      pending && h("footer", {}, button("recognise", t(s.busy || "recognise"), () => this.#act("recognise"), { class: "main", title: "Alt+Y", "aria-keyshortcuts": "Alt+Y", disabled: !!s.busy }),
        button("refuse", t("refuse"), () => { s.why = !s.why; this.#draw(s.why ? ".why li button" : "[data-do=refuse]"); }, { title: "Alt+N", "aria-keyshortcuts": "Alt+N", "aria-expanded": String(!!s.why), disabled: !!s.busy })),
    ].filter(Boolean));
    if (sides) sides.scrollTop = top;
    const target = focus ? this.#box.querySelector(focus) : held && this.#box.querySelector(`[data-do=${held}]:not(:disabled)`);
    if (this.#box.open) (target || this.#box).focus({ preventScroll: true });
  }
  #decision(d) {
    const t = this.#t, x = d.decision || {}, reason = d.reasons.find(r => r.code === x.reason);
    return h("div", { class: "banner ok", role: "status" }, h("div", {}, h("b", {}, t(d.state)), h("br"), [x.doctor && t("decided", x.doctor), day(x.at), reason && this.#of(reason, "text"), x.text].filter(Boolean).join(" · "), x.id && h("div", {}, h("small", {}, `${t("id")} `, h("code", {}, x.id))), ),
      button("revoke", t(this.#stage.busy || "revoke"), () => this.#act("revoke", { decision: x.id }), { disabled: !!this.#stage.busy }));
  }
  #reasons(d) {
    const t = this.#t, s = this.#stage, told = h("input", { type: "checkbox", checked: s.told, onchange: e => { s.told = e.target.checked; } });
    const list = [...d.reasons].sort((a, b) => (b.code === d.preselected) - (a.code === d.preselected));
    const send = (reason, text) => {
      if (d.explained && !told.checked) { s.bad = t("tellFirst"); this.#draw(".told input"); return; }
      this.#act("not_recognise", { reason: reason.code, text: text || undefined, explained: told.checked });
    };
    return h("section", { class: "why", "aria-label": t("why") }, h("h3", {}, t("why")), h("label", { class: "told" }, told, t("told")), h("ul", {}, list.map(r => {
      const wide = r.needs_text && s.reason === r.code, field = wide && h("textarea", { rows: "1", "aria-label": t("text"), placeholder: t("text"), maxlength: "500", oninput: e => { s.text = e.target.value; } });
      if (field) field.value = s.text || "";
      return h("li", {}, h("button", { "data-reason": r.code, class: r.code === d.preselected && "first", disabled: !!s.busy, "aria-expanded": r.needs_text ? String(!!wide) : null,
        onclick: () => { if (!r.needs_text) return send(r); s.reason = r.code; this.#draw("textarea"); } }, this.#of(r, "text"), r.code === d.preselected && h("small", {}, ` (${t("suggested")})`)),
        field && h("div", {}, field, button("confirm", t("confirm"), () => field.value.trim() ? send(r, field.value.trim()) : field.focus(), { class: "main", disabled: !!s.busy })));
    })));
  }
  #mine(d) {
    const o = d.order || {}, rows = [["code", [o.local, o.display].filter(Boolean).join(" ")], ["number", d.number], ["dept", o.department], ["doctor", o.doctor]];
    return h("section", { class: "mine", "aria-label": this.#t("order") }, h("h3", {}, this.#t("order")), h("b", {}, this.#name(o)), h("dl", {}, rows.filter(r => r[1]).map(([k, v]) => [h("dt", {}, this.#t(k)), h("dd", {}, v)])),
      d.missing?.length > 0 && h("p", {}, h("b", {}, `${this.#t("missing")}: `), d.missing.map(m => this.#name(m)).join(", ")));
  }
  #report(r, d) {
    const t = this.#t, all = r.results || [], hits = all.filter(x => x.covers), rest = hits.length ? all.filter(x => !x.covers) : [];
    const url = `${this.#base()}/recognition/view/${encodeURIComponent(d.line)}#${new URLSearchParams({ lang: this.#lang, doctor: this.#my("doctor") || "", session: this.session })}`;
    return h("article", {}, h("h3", {}, this.#of(r, "title"), " ", h("small", {}, this.#where(r))),
      h("p", { class: "text" }, h("small", {}, [r.time && `${t("sampled")} ${day(r.time)}`, r.issued && `${t("issued")} ${day(r.issued)}`].filter(Boolean).join(" · "))),
      all.length > 0 && this.#table(hits.length ? hits : all), rest.length > 0 && h("details", {}, h("summary", {}, t("rest", rest.length)), this.#table(rest)),
      (r.texts || []).map(x => h("p", { class: "text" }, h("b", {}, x.name), x.text)), r.conclusion && h("p", { class: "text" }, h("b", {}, t("conclusion")), r.conclusion),
      r.kind === "imaging" && h("div", { class: "thumbs", "data-report": r.id, "aria-label": t("images"), role: "group" }, h("a", { class: "b", "data-do": "viewer", href: url, target: "_blank", rel: "noopener" }, t("viewer"))));
  }
  #table(rows) {
    const t = this.#t, trend = rows.some(r => r.trend?.length > 1);
    return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("item")), h("th", { scope: "col", class: "n" }, t("value")), h("th", { scope: "col", class: "r" }, t("range")), trend && h("th", { scope: "col" }, t("trend")))),
      h("tbody", {}, [...rows].sort((a, b) => !!b.flag - !!a.flag).map(r => h("tr", { class: r.covers && "hit" }, h("td", {}, this.#name(r)), h("td", { class: "n" }, r.flag && h("span", { class: /low/.test(r.flag) ? "f down" : "f" }, `${ARROW[r.flag] || "!"} ${t(r.flag)} `), h("b", {}, r.value), " ", h("small", {}, r.unit || "")),
        h("td", { class: "r" }, r.range || ""), trend && h("td", {}, this.#spark(r))))));
  }
  #spark(r) {
    const points = (r.trend || []).map(p => ({ ...p, y: parseFloat(p.value), x: Date.parse(p.time) })).filter(p => p.y === p.y && p.x === p.x).slice(-6);
    if (points.length < 2) return "";
    const ys = points.map(p => p.y), low = Math.min(...ys), high = Math.max(...ys), from = points[0].x, span = points[points.length - 1].x - from || 1;
    const at = p => [3 + 66 * (p.x - from) / span, 19 - 16 * (high === low ? .5 : (p.y - low) / (high - low))].map(n => n.toFixed(1));
    const said = points.map(p => `${day(p.time).slice(0, 10)} ${p.value} ${this.#where(p)}`).join("; ");
    return [h("svg", { viewBox: "0 0 72 22", role: "img", "aria-label": said }, h("title", {}, said), h("polyline", { points: points.map(at).join(" ") }), points.map(p => h("circle", { cx: at(p)[0], cy: at(p)[1], r: "2.4" }))),
      h("div", { class: "t" }, points.slice(-3).map(p => p.value).join(" → "))];
  }
  async #pictures(d, run) {
    const places = [...this.#box.querySelectorAll("[data-report]")];
    if (!places.length) return;
    const path = `${this.#path(d.line)}/images`;
    try {
      const { series = [] } = await this.#call("GET", path);
      for (const place of places) {
        const own = series.filter(s => !s.report || s.report === place.dataset.report), shown = own.map(s => s.instances[s.instances.length >> 1]).slice(0, 4);
        if (!shown.length) throw new Error();
        await Promise.all(shown.map(async (image, i) => {
          const bitmap = await createImageBitmap(await this.#call("GET", `${path}/${image.uid}?size=184`, null, true));
          if (run !== this.#run) return;
          const canvas = h("canvas", { width: bitmap.width, height: bitmap.height, role: "img", "aria-label": `${own[i].description || own[i].modality} (${own[i].instances.length})` });
          canvas.getContext("2d").drawImage(bitmap, 0, 0); // a canvas asks nothing of the page's img-src
          const link = place.querySelector("[data-do=viewer]");
          place.insertBefore(h("a", { href: link.href, target: "_blank", rel: "noopener", title: own[i].description || "" }, canvas), link);
        }));
      }
    } catch { if (run === this.#run) places.forEach(p => p.querySelector("canvas") || p.prepend(h("small", {}, this.#t("noimage")))); }
  }

  // ---- words and wires
  get #lang() { return /^zh/i.test(this.getAttribute("lang") || this.parentElement?.closest("[lang]")?.lang || navigator.language) ? "zh" : "en"; }
  #t = (name, ...fill) => (TEXTS[name]?.[this.#lang === "zh" ? 0 : 1] || String(name)).replace(/\{\}/g, () => fill.shift());
  #of(x, name) { const zh = x[`${name}_zh`], en = x[`${name}_en`]; return (this.#lang === "zh" ? zh || en : en || zh) || ""; }
  #name(o) { return (o && (this.#of(o, "name") || o.display || o.name || o.local)) || ""; }
  #where(r) { return this.#of(r, "institution") || r.institution || ""; }
  #ago(time, alone) {
    const hours = (Date.now() - Date.parse(time)) / 36e5;
    if (!(hours >= 0)) return day(time);
    return new Intl.RelativeTimeFormat(this.#lang, { numeric: "auto" }).format(...(hours < 36 ? [-Math.round(hours), "hour"] : [-Math.round(hours / 24), "day"])) + (alone ? "" : ` (${day(time)})`);
  }
  #base() { return (this.getAttribute("base") || new URL("..", import.meta.url).href).replace(/\/+$/, ""); }
  #tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true })); }
  async #call(method, path, body, blob) {
    const headers = { Accept: blob ? "image/*" : "application/json" }, stop = new AbortController(), timer = setTimeout(() => stop.abort(), 8000);
    if (body) headers["Content-Type"] = "application/json";
    if (this.session) headers.Authorization = `Bearer ${this.session}`;
    try {
      const answer = await fetch(this.#base() + path, { method, headers, body: body ? JSON.stringify(body) : undefined, credentials: "omit", cache: blob ? "default" : "no-store", signal: stop.signal });
      if (answer.ok) return blob ? await answer.blob() : await answer.json();
      const said = (await answer.json().catch(() => ({}))).issue?.[0];
      throw Object.assign(new Error(said?.diagnostics || said?.details?.text || ""), { status: answer.status });
    } finally { clearTimeout(timer); }
  }
}
customElements.get("huren-recognition") || customElements.define("huren-recognition", HurenRecognition);

// One tag that does both: <script type="module" src="…/recognition/widget.js?institution=…&doctor=…"></script>
const given = new URL(import.meta.url).searchParams;
if (given.has("institution")) {
  document.body.append(h("huren-recognition", Object.fromEntries(given)));
}
