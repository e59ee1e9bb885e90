// The overview: requests /v1/overview every two seconds and renders it. The key is kept in this tab only.

import { History } from "./rates.js";

const POLL_INTERVAL = 2000;
const BARS = 60;
const LABELS = { left: "left", disconnected: "disconnected", inactivity_timeout: "inactive", kicked: "kicked" };
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const rate = { format: (number) => (number < 10 ? tenths : whole).format(number) };

let key = sessionStorage.getItem("reactor-admin-key") ?? "";
let history = new History();
let timer;

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  history = new History();
  refresh();
});
byId("sign-out").addEventListener("click", () => showSignIn(""));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && key) refresh();
});

if (key) refresh();

async function refresh() {
  clearTimeout(timer);
  const usedKey = key;
  try {
    const answer = await fetch("v1/overview", { headers: { Authorization: `Bearer ${usedKey}` }, cache: "no-store" });
    const body = await answer.json();
    if (usedKey !== key) return;
    if (answer.status === 401 || answer.status === 429) return showSignIn(body.message);
    if (!answer.ok) throw new Error(body.message);
    sessionStorage.setItem("reactor-admin-key", key);
    const now = performance.now();
    history.add(body, now);
    showOverview();
    render(body, now);
    setStatus("live", "Live");
  } catch (error) {
    if (usedKey !== key) return;
    byId("overview").classList.add("stale");
    setStatus("lost", error instanceof TypeError ? "The server does not answer" : sentence(error.message));
  }
  if (!document.hidden) timer = setTimeout(refresh, POLL_INTERVAL);
}

function showOverview() {
  byId("key").value = "";
  byId("sign-in-screen").hidden = true;
  byId("error").hidden = true;
  byId("overview").hidden = false;
  byId("overview").classList.remove("stale");
  byId("sign-out").hidden = false;
}

function showSignIn(error) {
  key = "";
  clearTimeout(timer);
  sessionStorage.removeItem("reactor-admin-key");
  byId("sign-in-screen").hidden = false;
  byId("overview").hidden = true;
  byId("sign-out").hidden = true;
  byId("error").hidden = !error;
  byId("error").textContent = sentence(error);
  byId("key").value = "";
  byId("key").focus();
  setStatus("none", "Not signed in");
}

function setStatus(state, text) {
  byId("status").dataset.state = state;
  byId("status-text").textContent = text;
}

function render(overview, now) {
  const rates = history.perMinute(now);
  const reports = overview.nodes.map((one) => one.report).filter(Boolean);
  byId("members").textContent = whole.format(overview.members);
  byId("rooms").textContent = whole.format(overview.rooms);
  byId("connections").textContent = whole.format(reports.reduce((all, one) => all + one.connections, 0));
  byId("joins").textContent = rates ? rate.format(rates.joins) : "–";
  byId("departures").textContent = rates ? rate.format(history.reasons.reduce((all, one) => all + rates.left[one], 0)) : "–";
  byId("lateness").textContent = formatLateness(history.lateness(now, 0.5));
  byId("lateness-p99").textContent = history.lateness(now, 0.99) === null ? "" : `p99 ${formatLateness(history.lateness(now, 0.99))}`;
  byId("largest").replaceChildren(...overview.largest.map((room) => bar(room, overview.largest[0].count)));
  byId("no-rooms").hidden = overview.largest.length > 0;
  byId("reasons").replaceChildren(...history.reasons.map((reason) => reasonRow(reason, rates, overview.departures[reason] ?? 0)));
  byId("nodes").replaceChildren(...overview.nodes.map((one) => nodeRow(one, rates)));
  draw(history.intervals(now, BARS));
}

function formatLateness(milliseconds) {
  if (milliseconds === null) return "–";
  if (milliseconds === Infinity) return "> 5 min";
  return milliseconds < 1000 ? `≤ ${whole.format(milliseconds)} ms` : `≤ ${whole.format(milliseconds / 1000)} s`;
}

function bar(room, maximum) {
  const row = document.createElement("li");
  const fill = element("span", "", "fill");
  fill.style.width = `${(100 * room.count) / maximum}%`;
  const name = element("span", room.roomId, "name");
  name.dir = "auto";
  row.append(fill, name, element("span", whole.format(room.count), "count"));
  return row;
}

function reasonRow(reason, rates, all) {
  const name = element("td", LABELS[reason] ?? reason);
  name.dataset.kind = reason;
  return row(name, number(rates ? rate.format(rates.left[reason]) : "–"), number(whole.format(all)));
}

function nodeRow({ node, about, report }, rates) {
  const name = element("td", about);
  name.append(element("span", node, "soft"));
  if (!report) return row(name, element("td", "no report"), ...Array.from({ length: 4 }, () => number("–")), element("td", "–"));
  const state = element("td", report.status);
  if (report.leading) state.append(element("span", "leader", "soft"));
  return row(
    name,
    state,
    number(whole.format(report.connections)),
    number(whole.format(report.members)),
    number(whole.format(report.rooms)),
    number(rates ? rate.format(rates.joinsOf(node)) : "–"),
    element("td", report.version),
  );
}

function draw(intervals) {
  const left = (interval) => history.reasons.reduce((all, reason) => all + interval[reason], 0);
  const highest = Math.max(1, ...intervals.map((interval) => Math.max(interval.joins, left(interval))));
  const height = (count) => (count / highest) * 68;
  const rects = [];
  intervals.forEach((interval, index) => {
    const x = (index * 600) / BARS;
    rects.push(rect("joins", x, 69 - height(interval.joins), height(interval.joins)));
    let y = 71;
    for (const reason of history.reasons) {
      rects.push(rect(reason, x, y, height(interval[reason])));
      y += height(interval[reason]);
    }
  });
  const line = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 600, y1: 70, y2: 70 })) line.setAttribute(name, value);
  byId("traffic").replaceChildren(line, ...rects.filter(Boolean));
  byId("peak").textContent = `highest bar: ${whole.format(highest)} in 5 s`;
}

function rect(kind, x, y, height) {
  if (!height) return null;
  const shape = document.createElementNS(SVG, "rect");
  shape.dataset.kind = kind;
  for (const [name, value] of Object.entries({ x: x + 1, y, width: 600 / BARS - 2, height })) shape.setAttribute(name, value);
  return shape;
}

function row(...cells) {
  const created = document.createElement("tr");
  created.append(...cells);
  return created;
}

function number(text) {
  return element("td", text, "number");
}

function element(name, text, kind = "") {
  const created = document.createElement(name);
  created.textContent = text;
  if (kind) created.className = kind;
  return created;
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
