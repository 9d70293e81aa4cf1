// The demo's workstation: what a hospital's own page does beside the plug-in.
const zh = document.documentElement.lang.startsWith("zh");
const WORDS = {
  steps: [["选患者", "开检查", "签署", "查看报告", "互认", "尝试收费", "撤销", "收费"], ["Patient", "Order", "Sign", "Report", "Recognise", "Try to bill", "Revoke", "Bill"]],
  h0: ["您是这家医院的医生。先选一位患者。", "You are a doctor at this hospital. Choose a patient."],
  h1: ["开一项检查：带 ★ 的，外院刚刚做过。", "Order something: another hospital has done those with ★ lately."],
  h1n: ["这位患者没有可互认的外院结果；换一位带新结果的患者，或照常开单。", "No other hospital has a result that counts for this patient; try another patient, or order all the same."],
  h2: ["签署医嘱，工作站随即询问互认网关。", "Sign: the workstation asks the gateway at once."],
  h3: ["右下角来了提醒：点“查看并决定”。", "A reminder came, bottom right: press “View and decide”."],
  h4: ["看过报告，点“互认此结果”。", "You have seen the report: press “Recognise”."],
  h5: ["已互认。现在点“收费”，看看会怎样。", "Recognised. Now press “Bill” and see what happens."],
  h6: ["收费被拒，数字也变了。点“撤销决定…”，在报告中撤销。", "The bill was refused, and the figure moved. Press “Revoke…”, and revoke it in the report."],
  h7: ["决定已撤销。再收费一次。", "The decision is revoked. Bill once more."],
  h8: ["这次可以收费。每一步都记入了不可篡改的事件链。可再开一项。", "This time the bill goes through. Every step is in a chain of events that cannot be altered unseen. Order another one if you like."],
  hx: ["没有外院结果覆盖这项医嘱：照常检查、照常收费。再试带 ★ 的一项。", "No earlier result covers this order: it goes on and is billed as usual. Try one with ★."],
  hn: ["已记录不互认的理由：可以检查并收费。", "Your reason is recorded: the order may go on and be billed."],
  bill: ["收费", "Bill"], revoke: ["撤销决定…", "Revoke…"], view: ["查看", "View"],
  pending: ["等待决定", "waits for a decision"], none: ["无外院结果，可检查", "no earlier result, may go on"], recognised: ["已互认 · 不可收费", "recognised · cannot be billed"],
  not_recognised: ["不互认 · 可检查", "not recognised · may go on"], billed: ["已收费", "billed"], refused: ["收费被拒 · 决定 {}", "bill refused · decision {}"], undecided: ["尚未决定，不能收费", "not decided: cannot be billed"],
  signed: ["签署 {} 项医嘱，{} 毫秒得到答复", "{} orders signed, answered in {} ms"], opened: ["已记录：医生查看了报告", "recorded: the doctor opened the report"], decided: ["决定：{}", "decision: {}"], revoked: ["决定已撤销", "decision revoked"],
  allowed: ["收费通过（{}）", "billed ({})"], denied: ["收费被拒（{}）", "bill refused ({})"], away: ["网关没有应答：{}", "the gateway does not answer: {}"],
  reminded: ["提醒", "reminded"], viewed: ["查看", "viewed"], recognisedN: ["互认", "recognised"], blocked: ["拦截收费", "bills refused"], saved: ["节省（元）", "saved (CNY)"],
  department: ["呼吸内科门诊", "Respiratory clinic"],
  male: ["男", "male"], female: ["女", "female"], empty: ["正在等待医院的第一批消息……", "Waiting for the hospitals' first messages…"],
};
const t = (name, ...fill) => (WORDS[name]?.[zh ? 0 : 1] ?? name).replace(/\{\}/g, () => fill.shift());
const $ = id => document.getElementById(id);
const of = (x, name) => (zh ? x[`${name}_zh`] : x[`${name}_en`] || x[`${name}_zh`]) || "";
const widget = document.querySelector("huren-recognition");
const now = { data: null, hospital: null, patient: null, useful: new Set(), picked: new Set(), signed: [], step: 0, hint: "h0", figures: {} };

function h(tag, props, ...kids) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (value == null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value); else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...kids.flat(2).filter(kid => kid || kid === 0));
  return node;
}
async function call(address, body) {
  const answer = await fetch(address, { method: body ? "POST" : "GET", headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body), cache: "no-store" });
  const value = await answer.json();
  if (!answer.ok && value.allowed === undefined) throw new Error(value.issue?.[0]?.diagnostics || value.issue?.[0]?.details?.text || answer.status);
  return value;
}
function log(text, wire, bad) { $("log").prepend(h("li", { class: bad ? "no" : "" }, text, wire && h("code", {}, wire))); }
function step(number, hint = `h${number}`) { now.step = number; now.hint = hint; hints(); }
/** Bring the part that is next into view; on a phone they stand below each other. */
function show(part) { document.querySelector(part).scrollIntoView({ behavior: "smooth", block: matchMedia("(max-width: 900px)").matches ? "start" : "nearest" }); }
function hints() {
  $("steps").replaceChildren(...WORDS.steps[zh ? 0 : 1].map((name, i) => h("li", { class: i < now.step ? "done" : i === now.step ? "now" : "", "aria-current": i === now.step ? "step" : null }, name)));
  $("hint").textContent = t(now.hint);
  document.querySelectorAll(".next").forEach(node => node.classList.remove("next"));
  const next = { 0: "#patients button", 2: "#sign", 5: "[data-act=bill]", 6: "[data-act=revoke]", 7: "[data-act=bill]" }[now.step];
  if (now.step === 1) document.querySelectorAll("#menu .useful[aria-pressed=false]").forEach(node => node.classList.add("next"));
  else if (next) document.querySelector(next)?.classList.add("next");
}

// ---- patients and menu
function patients() {
  $("patients").replaceChildren(...now.data.patients.map(p => h("button", { type: "button", role: "radio", "aria-checked": String(p === now.patient), "data-patient": p.id, onclick: () => choose(p) },
    h("b", {}, p.name), h("small", {}, `${t(p.gender)} · ${p.birthDate}`))));
}
async function choose(patient) {
  Object.assign(now, { patient, picked: new Set(), signed: [], useful: new Set() });
  widget.setAttribute("patient", patient.id);
  patients(); menu(); signed(); step(1); show("#h-orders");
  try {
    const { codes } = await call(`/demo/workstation/useful?institution=${encodeURIComponent(now.hospital.id)}&patient=${encodeURIComponent(patient.id)}`);
    if (now.patient !== patient) return;
    now.useful = new Set(codes);
  } catch (problem) { log(t("away", problem.message), "", true); }
  menu();
  if (now.step === 1) step(1, now.useful.size ? "h1" : "h1n");
}
function menu() {
  const rows = [...now.hospital.menu].sort((a, b) => now.useful.has(b.code) - now.useful.has(a.code));
  $("menu").replaceChildren(...rows.map(row => h("button", { type: "button", disabled: !now.patient, "data-code": row.code, class: now.useful.has(row.code) ? "useful" : "", "aria-pressed": String(now.picked.has(row.code)),
    onclick: () => { now.picked.has(row.code) ? now.picked.delete(row.code) : now.picked.add(row.code); menu(); step(now.picked.size ? 2 : 1); } }, h("span", {}, of(row, "name")), h("small", {}, h("code", {}, row.code)))));
  $("sign").disabled = !now.picked.size;
  hints();
}
function hospital(id) {
  now.hospital = now.data.hospitals.find(one => one.id === id);
  widget.setAttribute("institution", id);
  widget.setAttribute("doctor", `${id}-D01`);
  now.patient ? choose(now.patient) : menu();
  figures();
}

// ---- signing
let counter = 0;
function order(row) {
  const number = `W${Date.now().toString(36).toUpperCase()}${++counter}`;
  return { row, number, state: "none", line: "", decision: "", resource: { resourceType: "ServiceRequest", id: `draft-${number}`, status: "draft", intent: "order",
    identifier: [{ type: { coding: [{ system: "http://terminology.hl7.org/CodeSystem/v2-0203", code: "PLAC" }] }, system: `urn:huren:${now.hospital.id}:placer`, value: number }],
    code: { coding: [{ system: now.hospital.code_system, code: row.code, display: row.display }], text: row.display }, subject: { reference: `Patient/${now.patient.id}` }, authoredOn: new Date().toISOString().slice(0, 19) + "Z" } };
}
async function sign() {
  const orders = now.hospital.menu.filter(row => now.picked.has(row.code)).map(order), began = performance.now();
  $("sign").disabled = true;
  const visit = { resourceType: "Encounter", id: `visit-${now.patient.id}`.slice(0, 64), status: "in-progress", class: { system: "http://terminology.hl7.org/CodeSystem/v3-ActCode", code: "AMB" },
    subject: { reference: `Patient/${now.patient.id}` }, location: [{ status: "active", location: { identifier: { value: t("department") } } }] };
  const answer = await widget.check({ patient: now.patient.resource, draftOrders: orders.map(one => one.resource), encounterId: visit.id, prefetch: { encounter: visit } });
  if (answer.failed) { menu(); return; }
  log(t("signed", orders.length, Math.round(performance.now() - began)), "POST /cds-services/recognition · order-sign");
  for (const reminder of answer.reminders) {
    const one = orders.find(o => reminder.order?.reference === `ServiceRequest/${o.resource.id}`);
    if (one) Object.assign(one, { state: "pending", line: reminder.line });
  }
  now.signed.unshift(...orders);
  now.picked.clear();
  signed(); menu(); figures(); show(matchMedia("(max-width: 900px)").matches ? "#h-signed" : "#signed");
  step(answer.reminders.length ? 3 : 5, answer.reminders.length ? "h3" : "hx");
}
function signed() {
  $("h-signed").hidden = !now.signed.length;
  $("signed").replaceChildren(...now.signed.map(one => h("li", { class: one.state, "data-number": one.number }, h("b", {}, of(one.row, "name")),
    h("span", { class: `state ${one.bill ? (one.bill.allowed ? "yes" : "no") : ""}` }, one.bill ? one.bill.allowed ? t("billed") : one.bill.decision ? t("refused", one.bill.decision) : t("undecided") : t(one.state)),
    h("span", { class: "acts" }, one.line && h("button", { type: "button", "data-act": one.decision ? "revoke" : "view", disabled: one.bill?.allowed, onclick: () => widget.open(one.line) }, t(one.decision ? "revoke" : "view")),
      h("button", { type: "button", "data-act": "bill", disabled: one.bill?.allowed, onclick: () => bill(one) }, t("bill"))))));
  hints();
}

// ---- billing
async function bill(one) {
  try {
    one.bill = await call("/recognition/billing-check", { institution: now.hospital.id, number: one.number, action: "bill", doctor: `${now.hospital.id}-D01` });
    log(t(one.bill.allowed ? "allowed" : "denied", one.bill.code), `POST /recognition/billing-check → ${one.bill.allowed ? "allow" : "deny"}${one.bill.decision ? ` · ${one.bill.decision}` : ""}`, !one.bill.allowed);
    const revoked = one.revoked && one.bill.allowed;
    step(one.bill.allowed ? 8 : 6, one.bill.allowed ? (revoked ? "h8" : now.hint === "hn" || one.state !== "none" ? "h8" : "hx") : one.bill.decision ? "h6" : "h3");
  } catch (problem) { log(t("away", problem.message), "", true); }
  signed(); figures();
}
document.addEventListener("huren-decided", event => {
  const { line, state, decision, action } = event.detail, one = now.signed.find(o => o.line === line);
  log(action === "revoke" ? t("revoked") : t("decided", t(state)), `POST /recognition/decisions · ${action}${decision && action !== "revoke" ? ` · ${decision}` : ""}`);
  if (one) Object.assign(one, { state: action === "revoke" ? "pending" : state, decision: action === "revoke" ? "" : decision, bill: null, revoked: action === "revoke" || one.revoked });
  signed(); figures();
  step(action === "revoke" ? 7 : 5, action === "revoke" ? "h7" : state === "recognised" ? "h5" : "hn");
});
document.addEventListener("huren-failed", event => log(event.detail.message, "", true));
document.addEventListener("huren-conflict", () => { log("409", "", true); figures(); });
widget.addEventListener("click", event => { // a reminder was opened
  const what = event.composedPath().find(node => node.dataset?.do)?.dataset.do;
  if (what === "open" && now.step === 3) { step(4); setTimeout(figures, 600); }
});

// ---- figures: those of the gateway, asked again after each step
const SHOWN = [["reminded", "reminded"], ["viewed", "viewed"], ["recognised", "recognisedN"], ["blocked", "blocked"]];
async function figures() {
  clearTimeout(figures.again);
  if (!now.hospital) return;
  try {
    const { total, rows } = await call(`/recognition/figures?institution=${encodeURIComponent(now.hospital.id)}&by=hospital&format=json`);
    const row = rows?.find(one => one.value === now.hospital.id) || total;
    const shown = SHOWN.map(([name, text]) => [text, row.counts[name] ?? 0]);
    shown.push(["saved", row.amounts?.saved ?? "0"]);
    const moved = shown.filter(([text, value]) => now.figures[text] !== undefined && String(now.figures[text]) !== String(value)).map(([text]) => text);
    now.figures = Object.fromEntries(shown);
    $("figures").replaceChildren(...shown.flatMap(([text, value]) => [h("dt", {}, t(text)), h("dd", { class: moved.includes(text) ? "moved" : "", "data-figure": text }, value)]));
    if (moved.length) setTimeout(() => document.querySelectorAll(".moved").forEach(node => node.classList.remove("moved")), 2500);
  } catch { /* the next look will tell */ }
  figures.again = setTimeout(figures, document.hidden ? 15000 : 3000);
}

async function load() {
  try { now.data = await call("/demo/workstation/data"); } catch (problem) { $("hint").textContent = t("away", problem.message); }
  if (!now.data?.patients.length) { if (now.data) $("hint").textContent = t("empty"); setTimeout(load, 2000); return; }
  $("hospital").replaceChildren(...now.data.hospitals.map(one => h("option", { value: one.id }, of(one, "name"))));
  $("hospital").addEventListener("change", () => hospital($("hospital").value));
  $("sign").addEventListener("click", sign);
  $("desk").hidden = false;
  patients(); hospital(now.data.hospitals[0].id); step(0);
}
hints();
load();
