// The overview: asks every two seconds, shows what came. The key is kept in this tab alone.

import { History, REASONS } from "./rates.js";

const EVERY = 2000;
const PARTS = 60;
const WORDS = { left: "left", disconnected: "disconnected", inactivity_timeout: "inactive", kicked: "kicked" };
const SVG = "http://www.w3.org/2000/svg";

const at = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const few = { format: (number) => (number < 10 ? tenths : whole).format(number) };

let key = sessionStorage.getItem("reactor-admin-key") ?? "";
let history = new History();
let timer;

at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  history = new History();
  look();
});
at("forget").addEventListener("click", () => turnAway(""));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && key) look();
});

if (key) look();

async function look() {
  clearTimeout(timer);
  const used = key;
  try {
    const answer = await fetch("v1/overview", { headers: { Authorization: `Bearer ${used}` }, cache: "no-store" });
    const body = await answer.json();
    if (used !== key) return;
    if (answer.status === 401 || answer.status === 429) return turnAway(body.message);
    if (!answer.ok) throw new Error(body.message);
    sessionStorage.setItem("reactor-admin-key", key);
    const now = performance.now();
    history.add(body, now);
    letIn();
    show(body, now);
    tell("live", "Live");
  } catch (error) {
    if (used !== key) return;
    at("overview").classList.add("stale");
    tell("lost", error instanceof TypeError ? "The server does not answer" : sentence(error.message));
  }
  if (!document.hidden) timer = setTimeout(look, EVERY);
}

function letIn() {
  at("key").value = "";
  at("door").hidden = true;
  at("refusal").hidden = true;
  at("overview").hidden = false;
  at("overview").classList.remove("stale");
  at("forget").hidden = false;
}

function turnAway(why) {
  key = "";
  clearTimeout(timer);
  sessionStorage.removeItem("reactor-admin-key");
  at("door").hidden = false;
  at("overview").hidden = true;
  at("forget").hidden = true;
  at("refusal").hidden = !why;
  at("refusal").textContent = sentence(why);
  at("key").value = "";
  at("key").focus();
  tell("none", "Not signed in");
}

function tell(state, text) {
  at("status").dataset.state = state;
  at("status-text").textContent = text;
}

function show(overview, now) {
  const rates = history.perMinute(now);
  const reports = overview.nodes.map((one) => one.report).filter(Boolean);
  at("members").textContent = whole.format(overview.members);
  at("rooms").textContent = whole.format(overview.rooms);
  at("connections").textContent = whole.format(reports.reduce((all, one) => all + one.connections, 0));
  at("joins").textContent = rates ? few.format(rates.joins) : "–";
  at("departures").textContent = rates ? few.format(REASONS.reduce((all, one) => all + rates.left[one], 0)) : "–";
  at("lateness").textContent = late(history.lateness(now, 0.5));
  at("lateness-most").textContent = history.lateness(now, 0.99) === null ? "" : `99 of 100: ${late(history.lateness(now, 0.99))}`;
  at("largest").replaceChildren(...overview.largest.map((room) => bar(room, overview.largest[0].count)));
  at("no-rooms").hidden = overview.largest.length > 0;
  at("reasons").replaceChildren(...REASONS.map((reason) => reasonRow(reason, rates, overview.departures[reason] ?? 0)));
  at("nodes").replaceChildren(...overview.nodes.map((one) => nodeRow(one, rates)));
  draw(history.parts(now, PARTS));
}

function late(milliseconds) {
  if (milliseconds === null) return "none";
  if (milliseconds === Infinity) return "> 5 min";
  return milliseconds < 1000 ? `≤ ${whole.format(milliseconds)} ms` : `≤ ${whole.format(milliseconds / 1000)} s`;
}

function bar(room, most) {
  const row = document.createElement("li");
  const fill = element("span", "", "fill");
  fill.style.width = `${(100 * room.count) / most}%`;
  const name = element("span", room.roomId, "name");
  name.dir = "auto";
  row.append(fill, name, element("span", whole.format(room.count), "count"));
  return row;
}

function reasonRow(reason, rates, all) {
  const name = element("td", WORDS[reason]);
  name.dataset.kind = reason;
  return row(name, number(rates ? few.format(rates.left[reason]) : "–"), number(whole.format(all)));
}

function nodeRow({ node, about, report }, rates) {
  const name = element("td", about);
  name.append(element("span", node, "soft"));
  if (!report) return row(name, element("td", "silent"), ...Array.from({ length: 4 }, () => number("–")), element("td", "–"));
  const state = element("td", report.status);
  if (report.leading) state.append(element("span", "keeps time for all", "soft"));
  return row(
    name,
    state,
    number(whole.format(report.connections)),
    number(whole.format(report.members)),
    number(whole.format(report.rooms)),
    number(rates ? few.format(rates.joinsOf(node)) : "–"),
    element("td", report.version),
  );
}

function draw(parts) {
  const left = (part) => REASONS.reduce((all, reason) => all + part[reason], 0);
  const most = Math.max(1, ...parts.map((part) => Math.max(part.joins, left(part))));
  const height = (count) => (count / most) * 68;
  const rects = [];
  parts.forEach((part, index) => {
    const x = (index * 600) / PARTS;
    rects.push(rect("joins", x, 69 - height(part.joins), height(part.joins)));
    let y = 71;
    for (const reason of REASONS) {
      rects.push(rect(reason, x, y, height(part[reason])));
      y += height(part[reason]);
    }
  });
  const line = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 600, y1: 70, y2: 70 })) line.setAttribute(name, value);
  at("traffic").replaceChildren(line, ...rects.filter(Boolean));
  at("peak").textContent = `highest bar: ${whole.format(most)} in 5 s`;
}

function rect(kind, x, y, height) {
  if (!height) return null;
  const shape = document.createElementNS(SVG, "rect");
  shape.dataset.kind = kind;
  for (const [name, value] of Object.entries({ x: x + 1, y, width: 600 / PARTS - 2, height })) shape.setAttribute(name, value);
  return shape;
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

function number(text) {
  return element("td", text, "number");
}

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
