// The viewer: an earlier result alone on a page. Slices by wheel, keys and slider; windows are made by the gateway.
const WORDS = {
  none: ["没有可显示的影像", "There are no images to show"], bad: ["影像无法显示：{}", "The image cannot be shown: {}"],
  offline: ["网络不通", "the gateway cannot be reached"], closed: ["无法打开报告：{}", "The report cannot be opened: {}"],
  login: ["请从工作站打开本页：此链接不含会话", "Open this page from the workstation: this link holds no session"],
  auto: ["原始", "As sent"], lung: ["肺窗", "Lung"], bone: ["骨窗", "Bone"], soft: ["软组织窗", "Soft tissue"], brain: ["脑窗", "Brain"],
  slice: ["第 {} 幅，共 {} 幅", "Image {} of {}"], series: ["序列", "Series"], window: ["窗宽窗位", "Window"], image: ["影像", "Image"],
  order: ["对应医嘱", "For the order"], conclusion: ["诊断意见", "Conclusion"], decide: ["作出互认决定", "Decide"], decided: ["查看决定", "See the decision"],
  keys: ["滚轮或 ↑ ↓ 翻页 · 1–5 窗位", "Wheel or ↑ ↓ to leaf · 1–5 windows"], collected: ["检查时间", "Acquired"], reported: ["报告时间", "Reported"],
  high: ["偏高", "high"], low: ["偏低", "low"], "critical-high": ["危急高", "critically high"], "critical-low": ["危急低", "critically low"], abnormal: ["异常", "abnormal"], critical: ["危急", "critical"],
  item: ["项目", "Item"], value: ["结果", "Value"], range: ["参考范围", "Reference"], loading: ["正在打开…", "Opening…"], result: ["外院结果", "Earlier result"],
};
// PS3.3 C.11.2 center and width in HU, as radiology departments use them
const WINDOWS = [["auto"], ["lung", -600, 1500], ["soft", 40, 400], ["bone", 400, 1800], ["brain", 40, 80]];

const line = document.body.dataset.line, main = document.querySelector("main");
const given = new URLSearchParams(location.hash.slice(1));
const session = given.get("session") || sessionStorage.getItem("huren-session") || "";
if (given.get("session")) { // out of the address, so that nobody copies it
  sessionStorage.setItem("huren-session", session);
  given.delete("session");
  history.replaceState(null, "", `${location.pathname}${location.search}${given.size ? `#${given}` : ""}`);
}
if (given.get("lang")) document.documentElement.lang = given.get("lang") === "zh" ? "zh-CN" : "en";
const zh = document.documentElement.lang.startsWith("zh");
const t = (name, ...fill) => (WORDS[name]?.[zh ? 0 : 1] ?? name).replace(/\{\}/g, () => fill.shift());
const of = (x, name) => (zh ? x[`${name}_zh`] || x[`${name}_en`] : x[`${name}_en`] || x[`${name}_zh`]) || x[name] || "";
const day = time => (time || "").slice(0, 16).replace("T", " ");
const path = `/recognition/lines/${encodeURIComponent(line)}`;

function h(tag, props, ...kids) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (value == null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value); else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...kids.flat(Infinity).filter(kid => kid || kid === 0));
  return node;
}
async function get(address, { blob = false, body, signal } = {}) {
  const headers = { Accept: blob ? "image/*" : "application/json" };
  if (session) headers.Authorization = `Bearer ${session}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), credentials: "omit", signal });
  } catch (problem) { throw problem.name === "AbortError" ? problem : new Error(t("offline")); }
  if (answer.ok) return blob ? answer.blob() : answer.json();
  if (answer.status === 401 && !session) throw new Error(t("login"));
  const outcome = await answer.json().catch(() => ({}));
  throw new Error(outcome.issue?.[0]?.diagnostics || outcome.issue?.[0]?.details?.text || String(answer.status));
}

// ---- the report
function report(detail) {
  const first = detail.reports?.[0] || {};
  return h("section", { class: "report", "aria-label": t("result") }, h("h1", {}, of(first, "title")), h("p", { class: "soft" }, of(first, "institution")),
    h("p", { class: "soft" }, t("order"), " ", of(detail.order || {}, "name") || detail.order?.display),
    (detail.reports || []).map((r, i) => [i > 0 && h("h2", {}, of(r, "title"), " ", h("small", {}, of(r, "institution"))),
      h("p", {}, h("small", {}, [r.time && `${t("collected")} ${day(r.time)}`, r.issued && `${t("reported")} ${day(r.issued)}`].filter(Boolean).join(" · "))),
      r.results?.length > 0 && table(r.results), (r.texts || []).map(x => [h("h2", {}, x.name), h("p", { class: "text" }, x.text)]),
      r.conclusion && [h("h2", {}, t("conclusion")), h("p", { class: "text" }, r.conclusion)]]),
    h("button", { class: "main", onclick: decide }, ["recognised", "not_recognised"].includes(detail.state) ? t("decided") : t("decide")));
}
function table(rows) {
  return h("table", {}, h("thead", {}, h("tr", {}, ["item", "value", "range"].map(name => h("th", { scope: "col" }, t(name))))), h("tbody", {}, rows.map(r => h("tr", {},
    h("td", {}, of(r, "name")), h("td", { class: /high/.test(r.flag) ? "high" : /low/.test(r.flag) ? "low" : "" }, h("b", {}, r.value), " ", h("small", {}, r.unit), r.flag && ` ${/high/.test(r.flag) ? "↑" : /low/.test(r.flag) ? "↓" : "!"} ${t(r.flag)}`), h("td", {}, r.range || "")))));
}
let element;
async function decide() {
  await import("/recognition/widget.js");
  if (!element) {
    element = document.body.appendChild(document.createElement("huren-recognition"));
    element.setAttribute("lang", zh ? "zh" : "en");
    element.setAttribute("poll", "0");
    if (given.get("doctor")) element.setAttribute("doctor", given.get("doctor"));
    element.session = session;
    element.addEventListener("huren-decided", () => load(true));
  }
  element.open(line);
}

// ---- the images
const state = { series: [], at: 0, slice: 0, window: WINDOWS[0], stop: null, kept: new Map() };
const canvas = h("canvas", { role: "img", tabindex: "0" }), where = h("div", { class: "where", "aria-live": "polite" }), bad = h("p", { class: "bad", role: "alert", hidden: true });
const slider = h("input", { type: "range", min: "0", value: "0", "aria-label": t("image"), oninput: () => go(Number(slider.value)) });
const picture = h("div", { class: "picture" }, canvas, where, bad);
const slices = () => state.series[state.at].slices;
const address = (slice, window) => `${path}/images/${slice.uid}?size=1024${slice.frame > 1 ? `&frame=${slice.frame}` : ""}${window.length > 1 ? `&center=${window[1]}&width=${window[2]}` : ""}`;

async function fetched(slice, signal) {
  const key = address(slice, state.window);
  if (!state.kept.has(key)) {
    const bitmap = await createImageBitmap(await get(key, { blob: true, signal }));
    state.kept.set(key, bitmap);
    if (state.kept.size > 120) { const [old] = state.kept.keys(); state.kept.get(old).close(); state.kept.delete(old); }
  }
  return state.kept.get(key);
}
async function go(to) {
  const list = slices();
  state.slice = Math.max(0, Math.min(list.length - 1, to));
  slider.value = state.slice;
  const said = t("slice", state.slice + 1, list.length);
  where.textContent = said;
  slider.setAttribute("aria-valuetext", said);
  canvas.setAttribute("aria-label", `${state.series[state.at].description} ${said}`);
  state.stop?.abort();
  const stop = state.stop = new AbortController();
  try {
    const bitmap = await fetched(list[state.slice], stop.signal);
    if (stop.signal.aborted) return;
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bad.hidden = true; canvas.hidden = false;
    for (const next of [1, -1, 2, 3]) if (list[state.slice + next] && !stop.signal.aborted) await fetched(list[state.slice + next], stop.signal).catch(() => {});
  } catch (problem) {
    if (problem.name === "AbortError") return;
    bad.textContent = t("bad", problem.message); bad.hidden = false; canvas.hidden = true;
  }
}
function choose(group, buttons, index) { buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === index))); }
function stage() {
  const ct = state.series.some(s => s.modality === "CT"), shown = ct ? WINDOWS : [];
  const windows = shown.map((w, i) => h("button", { "aria-pressed": String(i === 0), "data-window": w[0], onclick: () => { state.window = w; choose("w", windows, i); go(state.slice); } }, t(w[0])));
  const series = state.series.map((s, i) => h("button", { "aria-pressed": String(i === 0), "data-series": s.uid, onclick: () => { state.at = i; choose("s", series, i); begin(); } }, `${s.description || s.modality} (${s.slices.length})`));
  const begin = () => { slider.max = slices().length - 1; slider.hidden = slices().length < 2; go(slices().length >> 1); };
  picture.addEventListener("wheel", event => { event.preventDefault(); go(state.slice + Math.sign(event.deltaY)); }, { passive: false });
  let touch = null;
  picture.addEventListener("pointerdown", event => { touch = event.clientX; });
  picture.addEventListener("pointermove", event => { if (touch !== null && event.buttons && Math.abs(event.clientX - touch) > 14) { go(state.slice + Math.sign(event.clientX - touch)); touch = event.clientX; } });
  document.addEventListener("keydown", event => {
    if (event.target.closest?.("huren-recognition") || event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (step && event.target !== slider && (!event.target.closest?.(".report"))) { event.preventDefault(); go(state.slice + step); }
    else if (/^[1-5]$/.test(event.key)) windows[event.key - 1]?.click();
  });
  setTimeout(begin);
  return h("section", { class: "stage", "aria-label": t("image") }, h("div", { class: "bar" }, series.length > 1 && h("div", { class: "series", role: "group", "aria-label": t("series") }, series),
    windows.length > 0 && h("div", { class: "series", role: "group", "aria-label": t("window") }, windows)), picture, h("div", { class: "bar" }, slider, h("span", { class: "soft keys" }, t("keys"))));
}

async function load(again) {
  try {
    const detail = await get(path);
    document.title = `${of(detail.reports?.[0] || {}, "title")} · 互认 Huren`;
    if (again) { main.querySelector(".report").replaceWith(report(detail)); return; }
    let found = { series: [] }, problem = "";
    if (detail.reports?.some(r => r.kind === "imaging")) found = await get(`${path}/images`).catch(p => { problem = p.message; return found; });
    state.series = found.series.map(s => ({ ...s, slices: s.instances.flatMap(i => Array.from({ length: i.frames || 1 }, (_, f) => ({ uid: i.uid, frame: f + 1 }))) })).filter(s => s.slices.length);
    main.className = state.series.length ? "" : "plain";
    main.replaceChildren(report(detail), ...(state.series.length ? [stage()] : problem ? [h("p", { class: "soft", role: "alert" }, t("bad", problem))] : []));
    // the report was opened: the same view as in the plug-in, where we know who looks
    if (["reminded"].includes(detail.state)) get("/recognition/decisions", { body: { action: "view", line, doctor: given.get("doctor") || undefined, via: "widget" } }).catch(() => {});
  } catch (problem) {
    main.className = "plain";
    main.replaceChildren(h("p", { role: "alert" }, t("closed", problem.message)), h("button", { onclick: () => load() }, "↻"));
  } finally { main.setAttribute("aria-busy", "false"); }
}
load();
