"use strict";
// All of this is read from the page itself; milanx/report/page.py says what DATA holds.
const DATA = JSON.parse(document.getElementById("data").textContent);
const units = DATA.units, TITLE = document.title;
const CHUNK = 48;      // cards that are added when the end comes into view
const IN_CARD = 5;     // exemplars of a card, the first one large
const DARK = 110;      // of 255, how much of where a unit is not active is dimmed
const NEAREST = 12;    // units that are shown where nothing is as like as that
const $ = id => document.getElementById(id);

// ---- small helpers -----------------------------------------------------------------------------
function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}
function bytes(base64) { return Uint8Array.from(atob(base64), c => c.charCodeAt(0)); }
function number(value) { return value.toFixed(2).replace("-", "\u2212"); }
function once(work, wait) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(work, wait); };
}
const sign = u => u.s === "-" ? "-" : "";
const name = u => u.l + ":" + sign(u) + u.u;
const path = u => encodeURIComponent(u.l) + "/" + sign(u) + u.u;

// ---- pictures and their masks ------------------------------------------------------------------
const pictures = new Map();
function picture(index) {
  if (!pictures.has(index)) {
    const image = new Image();
    image.src = "data:image/webp;base64," + DATA.views[index];
    pictures.set(index, image.decode().then(() => image));
  }
  return pictures.get(index);
}
function maskOf(u, e) {  // one byte a cell of the grid, 1 where the unit is active
  const cells = DATA.grid ** 2, raw = bytes(u.m), start = e * Math.ceil(cells / 8);
  return Uint8Array.from({ length: cells }, (_, i) => raw[start + (i >> 3)] >> (7 - (i & 7)) & 1);
}
function draw(canvas, u, e) {
  picture(u.i[e]).then(image => {
    const side = canvas.width = canvas.height =
      Math.min(2 * image.width, Math.round((canvas.clientWidth || image.width) * devicePixelRatio));
    const g = canvas.getContext("2d"), mode = $("mask").value;
    g.drawImage(image, 0, 0, side, side);
    if (mode === "dim") dim(g, maskOf(u, e), side);
    if (mode === "outline") outline(g, maskOf(u, e), side);
  });
}
function dim(g, mask, side) {
  const size = DATA.grid, small = new OffscreenCanvas(size, size), s = small.getContext("2d");
  const shade = s.createImageData(size, size);
  mask.forEach((on, i) => { shade.data[4 * i + 3] = on ? 0 : DARK; });
  s.putImageData(shade, 0, 0);
  g.drawImage(small, 0, 0, side, side);
}
function outline(g, mask, side) {
  const size = DATA.grid, cell = side / size;
  const on = (x, y) => x >= 0 && y >= 0 && x < size && y < size && mask[y * size + x];
  g.beginPath();
  for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) if (on(x, y)) {
    for (const [dx, dy, a, b] of [[-1, 0, [0, 0], [0, 1]], [1, 0, [1, 0], [1, 1]],
                                  [0, -1, [0, 0], [1, 0]], [0, 1, [0, 1], [1, 1]]]) {
      if (on(x + dx, y + dy)) continue;
      g.moveTo((x + a[0]) * cell, (y + a[1]) * cell);
      g.lineTo((x + b[0]) * cell, (y + b[1]) * cell);
    }
  }
  for (const [style, width] of [["#000", 4], ["#ffd54a", 2]]) {
    g.strokeStyle = style; g.lineWidth = width; g.stroke();
  }
}
function exemplar(u, e) {
  const canvas = make("canvas"), file = DATA.paths[u.i[e]] || "", mask = maskOf(u, e);
  const share = Math.round(100 * mask.reduce((sum, on) => sum + on, 0) / mask.length);
  const said = `exemplar ${e + 1} of ${u.n} of ${name(u)}: image ${u.i[e]}${file && ` (${file})`}, ` +
    `activation ${u.a[e]}, on ${share} % of it`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", said);
  canvas.title = said;
  canvas.classList.toggle("composed", file.startsWith("composed/"));
  return canvas;
}
// Cards are drawn when they come near the window and let go of their pictures when they leave it.
const watcher = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    const u = units[target.dataset.at], box = target.querySelector(".views");
    if (!isIntersecting) { box.replaceChildren(); continue; }
    if (box.children.length) continue;
    box.append(...u.i.slice(0, IN_CARD).map((_, e) => exemplar(u, e)));
    [...box.children].forEach((canvas, e) => draw(canvas, u, e));
  }
}, { rootMargin: "800px" });

// ---- a unit as a card, and opened --------------------------------------------------------------
function link(at, text) {
  const a = make("a", text);
  a.href = "#" + path(units[at]) + settings();
  return a;
}
function facts(u, whole) {
  const line = make("p", "", "facts");
  line.append(make("code", name(u)));
  if (u.cf !== null) line.append(` · confidence ${number(u.cf)}${u.st === "unclear" ? " (unclear)" : ""}`);
  if (u.sure !== null) line.append(u.sure === 100 ? " · the surest" : ` · surer than ${u.sure} %`);
  if (u.sc !== null) {
    const ends = whole && u.si.length ? ` (${u.si.map(number).join(" to ")})` : "";
    line.append(` · score ${number(u.sc)}${ends}`);
  } else if (u.sr && u.t) line.append(" · no score");
  if (u.se) line.append(" · senses: " + u.se.map(([text, share]) => `${text} (${Math.round(100 * share)} %)`).join(", "));
  if (u.n && u.n < DATA.k) line.append(` · ${u.n} of ${DATA.k} exemplars`);
  return line;
}
function card(at, why = "") {
  const u = units[at], article = make("article", "", "card"), h2 = make("h2");
  article.dataset.at = at;
  h2.append(link(at, u.t || u.none));
  if (!u.t || u.st === "unclear") h2.className = "none";
  article.append(h2, facts(u, false));
  if (why) article.append(make("p", why, "hit"));
  article.append(make("div", "", "views"));
  if (u.i.length) watcher.observe(article); else article.lastChild.remove();
  return article;
}
function table(heads, rows, className = "") {
  const made = make("table", "", className), head = made.createTHead().insertRow();
  for (const text of heads) head.append(make("th", text));
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const cell of row) line.insertCell().textContent = typeof cell === "number" ? number(cell) : cell ?? "";
  }
  return made;
}
function why(u) {
  const box = make("section"), [first, ...others] = u.why;
  box.append(make("h3", "Why this text"));
  if (!first) {
    box.append(make("p", u.none || "The run holds no terms of the ranking.", "soft"));
    return box;
  }
  const reasons = make("ul"), figures = make("details");
  reasons.append(...others.map(text => make("li", text)));
  const names = [u.c[0][0], ...(u.c.length > 1 ? [u.rival] : [])];
  const heads = ["term", ...names, ...(names.length > 1 ? ["difference"] : [])];
  figures.append(make("summary", "what each term added, in nats (and what was measured)"),
                 table(heads, u.w.map(row => row.slice(0, heads.length)), "why"), make("p", DATA.legend, "soft"));
  box.append(make("p", first), reasons, make("p"), figures);
  return box;
}
function senses(u) {  // each with its own exemplars
  const box = make("section");
  box.append(make("h3", "Several senses"));
  for (const [text, share, score, places] of u.se) {
    const views = make("div", "", "views");
    box.append(make("p", `${text} · ${Math.round(100 * share)} % of its photos · score ${number(score)}`), views);
    views.append(...places.map(e => exemplar(u, e)));
    places.forEach((e, i) => views.children[i].dataset.e = e);
  }
  return box;
}
function candidates(u) {
  const box = make("section"), heads = ["candidate", "sum", "PMI", "log p(d|E)", "log p(d)"];
  const count = DATA.figures ? heads.length : 2;
  box.append(make("h3", "All candidates"));
  box.append(u.c.length ? table(heads.slice(0, count), u.c.map(c => c.slice(0, count)))
                        : make("p", "None was kept.", "soft"));
  return box;
}
function like(u) {
  const box = make("section"), cards = make("div", "", "cards small");
  box.append(make("h3", "Units like this one"));
  if (!u.near.length) { box.append(make("p", "No other unit is excited by the same images.", "soft")); return box; }
  box.append(make("p", "Excited by the same images, in whichever layer.", "soft"), cards);
  for (const [at, r, shared] of u.near) {
    const told = shared === 1 ? "1 exemplar" : `${shared} exemplars`;
    cards.append(card(at, `${r === null ? "" : `correlation ${number(r)}, `}${told} in common`));
  }
  return box;
}
function open(at) {
  const u = units[at], article = make("article", "", "open"), nav = make("nav"), h2 = make("h2", u.t || u.none);
  const place = order.findIndex(hit => hit.at === at), back = make("a", "← all units");
  back.href = "#" + settings();
  nav.append(back);
  for (const [step, text] of [[-1, "‹ previous"], [1, "next ›"]]) {
    const other = order[place + step];
    if (place >= 0 && other) { const a = link(other.at, text); a.rel = step < 0 ? "prev" : "next"; nav.append(a); }
  }
  if (place >= 0) nav.append(`${place + 1} of ${order.length}`);
  h2.tabIndex = -1;
  if (!u.t || u.st === "unclear") h2.className = "none";
  const box = make("div", "", "views"), columns = make("div", "", "columns");
  columns.append(why(u), candidates(u));
  const several = u.se ? senses(u) : "";
  article.append(nav, h2, facts(u, true), box, several, columns, like(u));
  if (u.sr && u.t) h2.after(make("p", "No score: " + u.sr, "soft"));
  $("unit").replaceChildren(article);
  box.append(...u.i.map((_, e) => {
    const figure = make("figure"), canvas = exemplar(u, e);
    figure.append(canvas, make("figcaption", `${e + 1} · activation ${number(u.a[e])}`));
    return figure;
  }));
  box.querySelectorAll("canvas").forEach((canvas, e) => draw(canvas, u, e));
  if (several) several.querySelectorAll("canvas").forEach(canvas => draw(canvas, u, +canvas.dataset.e));
  h2.focus({ preventScroll: true });
}

{% include "search.js" %}

// ---- which units, in which order ---------------------------------------------------------------
let order = [];  // {at, why} of the units that are shown
const ranks = Object.fromEntries(Object.entries(DATA.orders).map(([by, places]) => {
  const rank = [];  // as the run's table is sorted, by figures that are not rounded
  places.forEach((at, i) => { rank[at] = i; });
  return [by, rank];
}));
function compare(by) {  // units without a text come last
  if (ranks[by]) return (a, b) => ranks[by][a] - ranks[by][b];
  const low = value => value ?? -Infinity;
  const order = by === "text" ? (a, b) => a.t.localeCompare(b.t)
    : by === "pmi" ? (a, b) => low(b.p) - low(a.p) || 0 : () => 0;
  return (a, b) => !units[a].t - !units[b].t || order(units[a], units[b]) || a - b;
}
function search() {
  const query = $("q").value.trim().toLowerCase(), letters = query.split(/\s+/).filter(Boolean);
  const layer = $("layer").value, status = $("status").value, score = $("score") ? $("score").value : "";
  const pool = units.map((_, at) => at).filter(at => {
    const u = units[at];
    return (!layer || u.l === layer) && (!status || u.st === status) &&
      (!score || (score === "none" ? u.sc === null : u.sc !== null && u.sc >= +score));
  }).sort(compare($("sort").value));
  $("told").textContent = "";
  if (!query) {
    order = pool.map(at => ({ at, why: "" }));
    $("found").textContent = `${order.length} of ${units.length} units`;
    return;
  }
  const holds = [], meant = [], written = [], beside = [], wanted = said(query);
  const { vector, told } = $("meaning").checked ? meaningOf(query) : { vector: null, told: "" };
  const like = vector && likeness(vector);
  for (const at of pool) {
    const u = units[at];
    if (wanted.trim() && spoken[at].some(text => text.includes(wanted)) || query === name(u).toLowerCase()) {
      holds.push({ at, why: "" });
      continue;
    }
    const best = like ? Math.max(-1, ...u.parts.map(part => like[textPlace.get(part)])) : -1;
    if (best > -1) meant.push({ at, best, why: `like “${query}”: ${number(best)}` });
    if (best >= M.alike) continue;
    const other = wanted.trim() && u.c.find(c => said(c[0]).includes(wanted));
    if (other) beside.push({ at, why: `candidate: ${other[0]}` });
    else if (letters.every(word => haystack[at].includes(word))) written.push({ at, why: "" });
  }
  meant.sort((a, b) => b.best - a.best);
  const close = meant.filter(hit => hit.best >= M.alike);
  const counts = [[holds.length, "by the word"], [close.length, "by meaning"], [beside.length, "in other candidates"]];
  let found = [...holds, ...close, ...beside];
  if (!found.length) {  // a word that is not yet typed to its end, an address
    found = written;
    counts.push([written.length, "by letters"]);
  }
  const nothing = !found.length;
  order = nothing ? meant.slice(0, NEAREST) : found;
  $("found").textContent = nothing ? "Nothing says that" + (order.length ? "; these are nearest." : ".")
    : `${order.length} of ${units.length} units: ` + counts.filter(([n]) => n).map(([n, how]) => `${n} ${how}`).join(", ") +
      (holds.length || !close.length ? "." : `. No unit says ${query}; nearest by meaning first.`);
  $("told").textContent = told;
}

// ---- the list and the address ------------------------------------------------------------------
let shown = 0, scrolled = 0, opened = null;
const BOXES = ["q", "layer", "status", "score", "sort", "mask", "meaning"].filter($);
const get = id => id === "meaning" ? ($(id).checked ? "" : "off") : $(id).value;
function set(id, value) {
  if (id === "meaning") $(id).checked = value !== "off";
  else { $(id).value = value; if ($(id).value !== value) $(id).value = usual[id]; }
}
function settings() {  // what differs from the usual, as the address tells it
  const told = new URLSearchParams();
  for (const id of BOXES) if (get(id) !== usual[id]) told.set(id, get(id));
  return String(told) && "?" + told;
}
function more() {
  const next = order.slice(shown, shown + CHUNK);
  $("list").append(...next.map(({ at, why }) => card(at, why)));
  shown += next.length;
}
function list() { watcher.disconnect(); $("list").replaceChildren(); shown = 0; search(); more(); }
function changed() {
  const to = settings();
  history.replaceState(null, "", "#" + to);
  show(null); list();
}
function show(at) {
  if (at !== null && opened === null) scrolled = scrollY;
  opened = at;
  $("unit").hidden = at === null;
  for (const id of ["list", "more"]) $(id).hidden = at !== null;
  document.querySelector(".notes").hidden = at !== null;
  document.title = at === null ? TITLE : name(units[at]) + ": " + (units[at].t || units[at].none);
  if (at === null) $("unit").replaceChildren(); else { open(at); scrollTo(0, 0); }
}
function follow() {
  const [where, query = ""] = location.hash.slice(1).split("?"), told = new URLSearchParams(query);
  const before = settings();
  for (const id of BOXES) set(id, told.get(id) ?? usual[id]);
  if (!order.length || settings() !== before) list();
  let [layer, unit] = where.split("/");
  try { layer = decodeURIComponent(layer); } catch { layer = ""; }
  const at = units.findIndex(u => u.l === layer && sign(u) + u.u === unit), was = opened;
  show(at < 0 ? null : at);
  if (at < 0 && was !== null) {
    scrollTo(0, scrolled);
    const card = $("list").querySelector(`[data-at="${was}"] a`);
    if (card) card.focus({ preventScroll: true });
  }
}
function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input[type=search], select");
  if (event.key === "Escape" && opened !== null) location.hash = "#" + settings();
  else if (typing) return;
  else if (event.key === "/") { event.preventDefault(); $("q").focus(); }
  else if (opened !== null) {
    const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key], a = rel && $("unit").querySelector(`a[rel=${rel}]`);
    if (a) a.click();
  } else if (["ArrowLeft", "ArrowRight"].includes(event.key) && event.target.matches(".card a")) {
    const other = event.target.closest(".card")[event.key === "ArrowLeft" ? "previousElementSibling" : "nextElementSibling"];
    if (other) other.querySelector("a").focus();
  }
}

const SORTS = { sure: "surest first", score: "by score", number: "by number", text: "by description", pmi: "by PMI" };
$("layer").append(new Option("all layers", ""), ...DATA.layers.map(layer => new Option(layer, layer)));
$("sort").append(...[...DATA.sorts, "text", ...(DATA.figures ? ["pmi"] : [])].map(by => new Option(SORTS[by], by, by === DATA.sort, by === DATA.sort)));
$("layer").hidden = DATA.layers.length < 2;
const usual = Object.fromEntries(BOXES.map(id => [id, get(id)]));
const typed = once(changed, 120);
for (const id of BOXES) $(id).addEventListener("input", id === "q" ? typed : changed);
addEventListener("hashchange", follow);
addEventListener("keydown", key);
new IntersectionObserver(([end]) => { if (end.isIntersecting && shown < order.length) more(); }, { rootMargin: "1500px" }).observe($("more"));
list();
follow();
