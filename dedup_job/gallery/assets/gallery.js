"use strict";
// Every text of a catalog enters the page as text (textContent), never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 24;
const SHOWN_PHOTOS = 4;
const STORE = "catalog-dedup:" + data.store;
const HEADER = [
  "sku_id_a", "sku_id_b", "decision", "decided_by", "decided_at", "note", "photos_a", "photos_b", "escaped",
];
const at = (id) => document.getElementById(id);
const storage = openStorage();
// group id -> {verdict, marked: [SKU], at}
const decisions = load();
let found = [];
let page = 0;

function openStorage() {
  try {
    localStorage.setItem(STORE + ":try", "1");
    localStorage.removeItem(STORE + ":try");
    return localStorage;
  } catch {
    return null; // blocked: decisions last until the page is closed
  }
}

function load() {
  try {
    return new Map(Object.entries(JSON.parse(storage?.getItem(STORE) ?? "{}")));
  } catch {
    return new Map();
  }
}

function save() {
  storage?.setItem(STORE, JSON.stringify(Object.fromEntries(decisions)));
  at("n-decisions").textContent = exportRows().length;
}

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const percent = (p) => (p === null ? "?" : (100 * p).toFixed(1) + " %");

// --- which groups ---

function matches(group, filter) {
  if (filter.type && group.type !== filter.type) return false;
  if (group.p !== null && (group.p < filter.minP || group.p > filter.maxP)) return false;
  if (group.members.length < filter.minSize) return false;
  if (filter.state === "open" && (group.settled || decisions.has(group.id))) return false;
  if (filter.state === "changed" && !group.change) return false;
  if (filter.state === "reopened" && !group.reopened) return false;
  if (filter.state === "sample" && !group.sample) return false;
  if (filter.state === "mine" && !decisions.has(group.id)) return false;
  if (!filter.text) return true;
  return (
    group.id.toLowerCase().includes(filter.text) ||
    group.members.some((member) => member.sku.toLowerCase().includes(filter.text))
  );
}

function readFilter() {
  const number = (id, otherwise) => (at(id).value === "" ? otherwise : Number(at(id).value));
  return {
    text: at("search").value.trim().toLowerCase(),
    type: at("type").value,
    minP: number("min-probability", 0),
    maxP: number("max-probability", 1),
    minSize: number("min-size", 2),
    state: at("state").value,
  };
}

function applyFilter() {
  const filter = readFilter();
  found = data.groups.filter((group) => matches(group, filter));
  page = 0;
  render();
  say(found.length === 1 ? "1 group" : found.length + " groups");
}

// --- the page ---

function render() {
  const first = page * PER_PAGE;
  at("groups").replaceChildren(...found.slice(first, first + PER_PAGE).map(card));
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  at("page").textContent = "Page " + (page + 1) + " of " + pages;
  at("previous").disabled = page === 0;
  at("next").disabled = page >= pages - 1;
}

function turn(step) {
  if (page + step < 0 || (page + step) * PER_PAGE >= found.length) return;
  page += step;
  render();
  at("groups").firstElementChild?.focus();
  scrollTo(0, 0);
}

function card(group) {
  const said = decisions.get(group.id);
  const title = make("h2", { id: "t-" + group.id }, group.id);
  const facts = make(
    "span",
    { className: "facts" },
    group.members.length + " members, least likely " + percent(group.p) + ", " + group.type,
  );
  const tags = [];
  if (group.change) tags.push(make("span", { className: "tag" }, group.change));
  if (group.sample) tags.push(make("span", { className: "tag" }, "random sample"));
  if (group.settled) tags.push(make("span", { className: "tag good" }, "decided before"));
  if (group.reopened) tags.push(make("span", { className: "tag bad" }, "reopened: a photo changed"));
  const actions = make(
    "div",
    { className: "actions" },
    button("Accept all", "accept", () => decide(group, "accept")),
    button("Reject marked", "reject", () => decide(group, "reject")),
    button("Split all", "split", () => decide(group, "split")),
    button("Undo", "undo", () => decide(group, "undo")),
    make("span", { className: "said" }, said ? tell(said) : ""),
  );
  const article = make(
    "article",
    { className: "group", tabIndex: 0, "aria-labelledby": title.id },
    make("header", {}, title, facts, ...tags),
    make("ol", { className: "members" }, ...group.members.map((m, i) => memberItem(group, m, i))),
    actions,
  );
  article.dataset.group = group.id;
  return article;
}

function button(text, kind, act) {
  const made = make("button", { type: "button", className: kind }, text);
  made.addEventListener("click", act);
  return made;
}

function likeness(member) {
  if (member.score === null) return "cosine " + member.cosine.toFixed(3);
  return "score " + member.score.toFixed(3);
}

function memberItem(group, member, index) {
  const isSurvivor = index === 0;
  const isMarked = (marks.get(group.id) ?? decisions.get(group.id)?.marked ?? []).includes(member.sku);
  const photos = member.photos.slice(0, SHOWN_PHOTOS).map((photo) =>
    data.thumbnails[photo]
      ? make("img", {
          src: "thumbnails/" + photo.slice(0, 2) + "/" + photo + ".jpg",
          alt: "Photo of " + member.sku,
          loading: "lazy",
          decoding: "async",
          width: 256,
          height: 256,
        })
      : null,
  );
  const shown = photos.filter((photo) => photo !== null);
  if (!shown.length) shown.push(make("span", { className: "none" }, "no thumbnail"));
  const caption = make("figcaption", {}, make("span", { className: "sku" }, member.sku), make("br"));
  if (isSurvivor) caption.append(make("span", { className: "tag good" }, "survivor"));
  else caption.append(likeness(member) + ", " + percent(member.p) + ", " + member.type);
  if (member.said) caption.append(make("br"), "said: " + member.said);
  const mark = make("button", { type: "button", "aria-pressed": String(isMarked) }, "Another product");
  mark.setAttribute("aria-label", "Mark " + member.sku + " as another product");
  mark.addEventListener("click", () => toggle(group, index));
  const item = make(
    "li",
    { className: (isSurvivor ? "survivor " : "") + (isMarked ? "marked" : "") },
    make("figure", {}, make("div", { className: "photos" }, ...shown), caption),
    mark,
  );
  return item;
}

function refresh(group) {
  const old = [...at("groups").children].find((element) => element.dataset.group === group.id);
  if (!old) return;
  const inside = old.contains(document.activeElement);
  const made = card(group);
  old.replaceWith(made);
  if (inside) made.focus();
}

function say(text) {
  at("status").textContent = text;
}

// --- deciding ---

const marks = new Map(); // group id -> SKUs marked and not yet decided on

function toggle(group, index) {
  const member = group.members[index];
  if (!member) return;
  const marked = new Set(marks.get(group.id) ?? []);
  if (!marked.delete(member.sku)) marked.add(member.sku);
  marks.set(group.id, [...marked]);
  refresh(group);
  say((marked.has(member.sku) ? "marked " : "not marked ") + member.sku);
}

function decide(group, verdict) {
  const marked = marks.get(group.id) ?? [];
  if (verdict === "reject" && (!marked.length || marked.length === group.members.length)) {
    say("Mark the members that are other products first (keys 1 to 9), but not all of them.");
    return;
  }
  if (verdict === "undo") decisions.delete(group.id);
  else {
    const rejected = verdict === "reject" ? marked : [];
    decisions.set(group.id, { verdict, marked: rejected, at: new Date().toISOString() });
  }
  marks.delete(group.id);
  save();
  refresh(group);
  say(group.id + ": " + (verdict === "undo" ? "undone" : tell(decisions.get(group.id))));
}

function tell(said) {
  if (said.verdict === "accept") return "accepted";
  if (said.verdict === "split") return "split";
  return "rejected: " + said.marked.join(", ");
}

// What a verdict says of pairs: the survivor and the rest are the same; who is marked differs from all
// who are not; after a split everyone differs from everyone.
function* pairsOf(group, said) {
  const isMarked = (member) => said.marked.includes(member.sku);
  for (let i = 0; i < group.members.length; i++) {
    for (let j = i + 1; j < group.members.length; j++) {
      const [a, b] = [group.members[i], group.members[j]];
      if (said.verdict === "split" || isMarked(a) !== isMarked(b)) yield [a, b, "different"];
      else if (said.verdict === "accept" && i === 0) yield [a, b, "same"];
      else if (said.verdict === "reject" && !isMarked(a) && i === firstLeft(group, isMarked)) yield [a, b, "same"];
    }
  }
}

function firstLeft(group, isMarked) {
  return group.members.findIndex((member) => !isMarked(member));
}

function exportRows() {
  const rows = [];
  for (const group of data.groups) {
    const said = decisions.get(group.id);
    if (!said) continue;
    for (const [a, b, decision] of pairsOf(group, said)) rows.push(exportRow(a, b, decision, said.at));
  }
  return rows;
}

// A spreadsheet would compute what begins like a formula. Such ids get an apostrophe, and the row says so.
const isFormula = (text) => /^\s*['"`=+\-@\uFF1D\uFF0B\uFF0D\uFF20\t\r\n]/.test(text);

function exportRow(a, b, decision, when) {
  const name = at("name").value.trim();
  const texts = [a.sku, b.sku, decision, name, when, "", a.photos.join(" "), b.photos.join(" ")];
  const isEscaped = [0, 1, 3].some((i) => isFormula(texts[i]));
  if (isEscaped) for (const i of [0, 1, 3]) texts[i] = "'" + texts[i];
  return [...texts, isEscaped ? "yes" : ""];
}

function download() {
  const rows = exportRows();
  if (!rows.length) {
    say("Nothing is decided yet.");
    return;
  }
  const quote = (text) => '"' + text.replaceAll('"', '""') + '"';
  const lines = [HEADER, ...rows].map((row) => row.map(quote).join(",") + "\r\n");
  const url = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  const link = make("a", { href: url, download: "decisions-" + data.run_date + ".csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  say(rows.length + " decisions exported");
}

// --- keys ---

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) return;
  const cards = [...at("groups").children];
  const here = cards.findIndex((element) => element.contains(document.activeElement));
  const group = here < 0 ? null : data.groups.find((one) => one.id === cards[here].dataset.group);
  const verdicts = { a: "accept", r: "reject", s: "split", u: "undo" };
  if (event.key === "j") (cards[here + 1] ?? cards[0])?.focus();
  else if (event.key === "k") cards[Math.max(0, here - 1)]?.focus();
  else if (event.key === "n") turn(1);
  else if (event.key === "p") turn(-1);
  else if (event.key === "/") at("search").focus();
  else if (group && event.key in verdicts) decide(group, verdicts[event.key]);
  else if (group && /^[1-9]$/.test(event.key)) toggle(group, Number(event.key) - 1);
  else return;
  event.preventDefault();
}

at("about").textContent = data.about;
at("name").value = storage?.getItem(STORE + ":name") ?? "";
at("name").addEventListener("change", () => storage?.setItem(STORE + ":name", at("name").value));
at("filters").addEventListener("input", applyFilter);
at("filters").addEventListener("reset", () => setTimeout(applyFilter));
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("export").addEventListener("submit", (event) => {
  event.preventDefault();
  download();
});
at("previous").addEventListener("click", () => turn(-1));
at("next").addEventListener("click", () => turn(1));
document.addEventListener("keydown", onKey);
applyFilter();
save();
