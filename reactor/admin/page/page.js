// The overview: requests /v1/overview every two seconds and renders it. The key is kept in this tab only.

import { byId, element, number, row, sentence, timeOfDay, whole } from "./dom.js";
import { History } from "./rates.js";
import { RoomPanel } from "./room.js";

const POLL_INTERVAL = 2000;
/** How long (ms) the server may take to answer. */
const TIMEOUT = 5000;
/** The age (ms) of a report from which on its server is shown as silent; it sends one every two seconds. */
const SILENT = 4000;
const BARS = 60;
/** What is shown for a reason of departures where that is not its name. */
const LABELS = { inactivity_timeout: "inactive" };
const SVG = "http://www.w3.org/2000/svg";

const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const rate = { format: (number) => (number < 10 ? tenths : whole).format(number) };

let key = sessionStorage.getItem("reactor-admin-key") ?? "";
let history = new History();
let timer;
/** When the figures shown were read (ms since 1970). */
let asOf = 0;
const roomPanel = new RoomPanel(ask);

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  history = new History();
  refresh();
});
byId("sign-out").addEventListener("click", () => showSignIn(""));
byId("search").addEventListener("input", () => refresh());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && key) refresh();
});

if (key) refresh();

/** Request the API. @param {string} path @returns {Promise<any>} the body; throws an error with a `status`, or a TypeError */
async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, {
      headers: { Authorization: `Bearer ${key}` }, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT),
    });
  } catch {
    throw new Error("the server does not answer");
  }
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.message), { status: answer.status });
  return body;
}

async function refresh() {
  clearTimeout(timer);
  const usedKey = key;
  const search = byId("search").value.trim();
  try {
    const overview = await ask("v1/overview");
    const found = search ? (await ask(`v1/rooms?limit=20&search=${encodeURIComponent(search)}`)).rooms : overview.largest;
    if (usedKey !== key || search !== byId("search").value.trim()) return;
    sessionStorage.setItem("reactor-admin-key", key);
    const now = performance.now();
    history.add(overview, now);
    showOverview();
    render(overview, now);
    showRooms(found, search);
    asOf = overview.asOf;
    setStatus("live", "Live");
  } catch (error) {
    if (usedKey !== key) return;
    if (error.status === 401 || error.status === 429) return showSignIn(error.message);
    byId("overview").classList.add("stale");
    setStatus("lost", sentence(error.message));
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
  asOf = 0;
  roomPanel.close();
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
  // It is announced when it changes, and not every two seconds.
  if (byId("status-text").textContent !== text) byId("status-text").textContent = text;
  byId("as-of").textContent = asOf ? `· as of ${timeOfDay(asOf)}` : "";
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
  byId("lateness-p99").textContent = history.lateness(now, 0.99) === null ? "none in 5 minutes" : `p99 ${formatLateness(history.lateness(now, 0.99))}`;
  byId("legend").replaceChildren(...["joins", ...history.reasons].map((kind) => labelled("li", kind)));
  byId("reasons").replaceChildren(...history.reasons.map((reason) => reasonRow(reason, rates, overview.departures[reason] ?? 0)));
  byId("no-departures").hidden = Object.values(overview.departures).some(Boolean);
  const leader = overview.nodes.filter(({ report }) => report?.leading).sort((a, b) => a.reportAge - b.reportAge)[0];
  byId("nodes").replaceChildren(...overview.nodes.map((one) => nodeRow(one, rates, one === leader)));
  draw(history.intervals(now, BARS));
}

function formatLateness(milliseconds) {
  if (milliseconds === null) return "–";
  if (milliseconds === Infinity) return "> 5 min";
  return milliseconds < 1000 ? `≤ ${whole.format(milliseconds)} ms` : `≤ ${whole.format(milliseconds / 1000)} s`;
}

/** @param {{roomId: string, count: number}[]} rooms @param {string} search */
function showRooms(rooms, search) {
  const maximum = Math.max(...rooms.map(({ count }) => count));
  byId("rooms-title").textContent = search ? "Rooms found" : "Largest rooms";
  const list = byId("room-list");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.room : undefined;
  list.replaceChildren(...rooms.map((room) => bar(room, maximum)));
  if (focused !== undefined) [...list.querySelectorAll("button")].find(({ dataset }) => dataset.room === focused)?.focus();
  byId("no-rooms").hidden = rooms.length > 0;
  byId("no-rooms").textContent = search ? "No room with members has this in its id." : "No room has members.";
}

/** @param {{roomId: string, count: number}} room @param {number} maximum */
function bar(room, maximum) {
  const button = element("button", "");
  button.type = "button";
  button.dataset.room = room.roomId;
  const fill = element("span", "", "fill");
  fill.style.width = `${(100 * room.count) / maximum}%`;
  const name = element("span", room.roomId, "name");
  name.dir = "auto";
  button.append(fill, name, " ", element("span", whole.format(room.count), "count"));
  button.addEventListener("click", () => roomPanel.open(room.roomId));
  const item = element("li", "");
  item.append(button);
  return item;
}

function reasonRow(reason, rates, all) {
  return row(labelled("td", reason), number(rates ? rate.format(rates.left[reason]) : "–"), number(whole.format(all)));
}

/** An element with the name and the colour of a reason, or of joins. @param {string} tag @param {string} kind */
function labelled(tag, kind) {
  const made = element(tag, LABELS[kind] ?? kind);
  made.dataset.kind = kind;
  return made;
}

function nodeRow({ node, about, report, reportAge }, rates, leading) {
  const name = element("td", about);
  name.append(element("span", node, "soft"));
  if (!report) return row(name, element("td", "not seen for 10 s"), ...Array.from({ length: 4 }, () => number("–")), element("td", "–"));
  const silent = reportAge > SILENT;
  const state = element("td", silent ? `last seen ${whole.format(reportAge / 1000)} s ago` : report.status);
  if (leading && !silent) state.append(element("span", "leader", "soft"));
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
  const empty = !rects.some(Boolean);
  byId("no-traffic").hidden = !empty;
  byId("peak").textContent = empty ? "" : `highest bar: ${whole.format(highest)} in 5 s`;
}

function rect(kind, x, y, height) {
  if (!height) return null;
  const shape = document.createElementNS(SVG, "rect");
  shape.dataset.kind = kind;
  for (const [name, value] of Object.entries({ x: x + 1, y, width: 600 / BARS - 2, height })) shape.setAttribute(name, value);
  return shape;
}
