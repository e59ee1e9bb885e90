/** The demo page: one client in one room, with buttons that show how the server handles each kind of failure. */
import { ReactorClient } from "./client.js";
import { ObservedCodec } from "./codec.js";
import { byId, duration, timeOfDay } from "./dom.js";
import { EventLog } from "./event-log.js";
import { HeartbeatPanel } from "./heartbeat-panel.js";
import { recall, remember } from "./identity.js";
import { MemberList } from "./member-list.js";
import { MessageLog } from "./message-log.js";

/** How long (ms) a socket dropped by the button stays closed: less than the default grace. */
const DROP_DURATION = 8000;
/** The close code after an invalid token. */
const UNAUTHORISED = 4001;

const socketUrl = new URL("ws", location.href);
socketUrl.protocol = socketUrl.protocol.replace("http", "ws");
const codec = new ObservedCodec({
  frame: (frame) => messageLog.add(frame),
  heartbeat(storedAfter) {
    heartbeatPanel.heartbeat(storedAfter);
    // The client processes the message only after it was decoded.
    queueMicrotask(tick);
  },
});
const client = new ReactorClient(socketUrl.href, { codec, token: () => identity.token || undefined });
const eventLog = new EventLog();
const memberList = new MemberList();
const heartbeatPanel = new HeartbeatPanel();
const messageLog = new MessageLog();
const form = byId("form");
const identity = recall();
/** @type {import("../js/index.js").Room | null} */
let room = null;
let silent = false;
let formerMembers = new Map();
/** The room's previous status. */
let formerStatus = "connected";

// Joining.

async function join() {
  const [roomId, username, userId, token] = [form.room, form.username, form.user, form.token].map(({ value }) => value.trim());
  form.username.setCustomValidity(username ? "" : "A name of blanks is no name.");
  if (!form.reportValidity()) return;
  Object.assign(identity, { roomId, username, userId, token, view: form.view.value });
  byId("join").disabled = true;
  showNotice("");
  showRefusal("join-refusal", null);
  try {
    // Where there is a token, it names the user.
    showRoom(await client.join(roomId, { userId: token ? undefined : userId, username, view: identity.view }));
  } catch (error) {
    setJoined(false);
    if (error.code === "unauthorized" || error.closeCode === UNAUTHORISED) askForToken();
    showRefusal("join-refusal", error);
  } finally {
    byId("join").disabled = false;
  }
}

function askForToken() {
  byId("token-field").hidden = false;
  byId("user-field").hidden = true;
  form.user.required = false;
  form.token.required = true;
  form.token.focus();
}

function showRoom(joined) {
  room = joined;
  setJoined(true);
  formerMembers = new Map(joined.members);
  let { view } = joined;
  joined.on("sync", () => {
    memberList.reset(joined);
    if (view === joined.view) return;
    view = joined.view;
    eventLog.addOwn(view === "members" ? "The room is served as a list of members again" : "The room is served as a count now");
  });
  joined.on("change", (events) => {
    eventLog.addEvents(events, formerMembers, joined.userId);
    memberList.change(joined, events);
    formerMembers = new Map(joined.members);
    showFacts();
  });
  joined.on("message", ({ userId, data }) => {
    eventLog.addMessage(userId ? (joined.members.get(userId) ?? { userId, username: userId }) : null, data);
  });
  joined.on("status", onRoomStatus);
  joined.on("force-leave", ({ message, reason, until }) => {
    eventLog.addOwn(message, reason);
    const titles = { kicked: "You were removed", banned: "You are banned" };
    popUp(titles[reason] ?? "Your membership has ended", until ? `${message} You can join again from ${new Date(until).toLocaleString()} on.` : message, reason);
  });
  eventLog.addOwn(room.resumed ? "You rejoined within the grace; the other members saw no change" : "You joined the room");
  setSilent(false);
  memberList.reset(room);
  heartbeatPanel.reset();
  byId("room-title").textContent = byId("room-title").title = room.id;
  byId("another").href = `?room=${encodeURIComponent(room.id)}`;
  showFacts();
  showScreen();
  byId("room-title").focus({ preventScroll: true });
  client.beat();
  tick();
}

function onRoomStatus(status) {
  if (status === "reconnecting") eventLog.addOwn("The connection was lost; the room's grace has begun");
  if (status === "connected" && formerStatus === "reconnecting") {
    eventLog.addOwn(room.resumed ? "You reconnected within the grace; the other members saw no change" : "You rejoined as a new member: the grace had ended");
    client.beat();
  }
  formerStatus = status;
  const { error } = room;
  if (status === "closed" && error && error.code !== "force-leave") {
    eventLog.addOwn(`You could not rejoin: ${error.message}`, error.code);
    popUp("Your membership has ended", sentence(error.message), error.code);
  }
  const asOf = status === "connected" ? 0 : codec.receivedAt;
  memberList.hint(room, asOf);
  setText("count-word", asOf ? `here at ${timeOfDay(new Date(asOf))}` : "here");
  showFacts();
  tick();
}

// Leaving.

function showJoinScreen(notice) {
  room = null;
  setJoined(false);
  memberList.reset({ userId: "", members: new Map(), view: "members", count: 0 });
  showRefusal("refusal", null);
  showNotice(notice);
  showScreen();
  byId("join").focus();
}

function popUp(title, message, reason) {
  byId("popup-title").textContent = title;
  byId("popup-message").textContent = message;
  byId("popup").dataset.reason = reason;
  byId("popup").showModal();
}

byId("popup").addEventListener("close", () => showJoinScreen("Your membership has ended. You can join again."));

byId("leave").addEventListener("click", async () => {
  const leaving = room;
  const connected = isOpen();
  byId("leave").disabled = true;
  await leaving.leave();
  byId("leave").disabled = false;
  if (room !== leaving || byId("popup").open) return;
  eventLog.addOwn(connected ? "You left the room" : "You left while disconnected; the other members are notified when the grace ends");
  showJoinScreen("You left the room. You can join again.");
});

// Simulated failures.

byId("away").addEventListener("click", () => {
  attempt(room.isAway ? room.back() : room.away());
  showActions();
});

byId("data-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(room.update(parsed(byId("data").value)));
});

byId("message-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("message").value;
  if (!text.trim()) return;
  attempt(room.send(text).then(() => {
    eventLog.addMessage(room.me ?? { userId: room.userId, username: identity.username }, text, true);
    byId("message").value = "";
  }));
});

/** Show an answer of the server that is a refusal. @param {Promise<unknown>} request */
async function attempt(request) {
  showRefusal("refusal", null);
  try {
    await request;
  } catch (error) {
    if (!room?.error) showRefusal("refusal", error);
    showActions();
  }
}

/** @param {string} text @returns {unknown} the JSON value, or the text itself */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

byId("silent").addEventListener("click", () => {
  setSilent(!silent);
  eventLog.addOwn(silent ? "Heartbeats stopped" : "Heartbeats resumed");
});

byId("drop").addEventListener("click", () => client.drop(DROP_DURATION));
byId("reconnect").addEventListener("click", () => client.wake());
byId("stay-disconnected").addEventListener("click", () => client.drop(Infinity));
byId("beat").addEventListener("click", () => client.beat());

function setSilent(on) {
  silent = on;
  client.silent = on;
  client.wake();
  heartbeatPanel.showSilence(on ? room.ttl : 0);
  showActions();
}

// Rendering.

function showScreen() {
  byId("join-screen").hidden = room !== null;
  byId("room").hidden = room === null;
  document.body.dataset.screen = room ? "room" : "join";
  byId("drop-hint").textContent = `As a lost network would; reconnects in ${duration(DROP_DURATION)}.`;
  showActions();
  showStatus();
  showTitle();
}

function showActions() {
  const away = room?.isAway ?? false;
  byId("away-action").classList.toggle("on", away);
  byId("away").textContent = away ? "Come back" : "Step away";
  byId("away-hint").textContent = away ? "The other members see you as away." : "Shows you as away; you stay in the room.";
  byId("silent-action").classList.toggle("on", silent);
  byId("silent").textContent = silent ? "Send heartbeats again" : "Go silent";
  byId("beat").disabled = silent || !isOpen();
  byId("drop").disabled = !isOpen();
}

function showFacts() {
  byId("count").textContent = room.count.toLocaleString();
  byId("fact-ttl").textContent = duration(room.ttl);
  byId("fact-heartbeat").textContent = duration(room.heartbeatInterval);
  byId("fact-version").textContent = String(room.version);
  byId("fact-epoch").textContent = room.epoch;
  byId("fact-view").textContent = room.view;
  byId("fact-user").textContent = room.userId;
  byId("fact-socket").textContent = room.socketId;
  showTitle();
}

function showTitle() {
  document.title = room ? `(${room.count}) ${room.id} · reactor` : "reactor";
}

/** @param {string} id @param {Error | null} error */
function showRefusal(id, error) {
  byId(id).textContent = error ? sentence(error.message) : "";
  byId(id).hidden = !error;
}

function showNotice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

function isOpen() {
  return client.status === "connected" || client.status === "degraded";
}

/** Whether the client is disconnected and waits for the next attempt. */
function isWaiting() {
  return (client.status === "reconnecting" || client.status === "connecting") && client.retryAt > Date.now();
}

function statusNow() {
  const seconds = Math.max(0, Math.ceil((client.retryAt - Date.now()) / 1000));
  switch (client.status) {
    case "degraded":
      return { state: "degraded", announced: "Degraded: Redis does not answer" };
    case "connected":
      return navigator.onLine ? { state: "open", announced: "Connected" } : { state: "waiting", announced: "Device offline" };
    case "connecting":
    case "reconnecting":
      if (!isWaiting()) return { state: "waiting", announced: "Connecting" };
      return Number.isFinite(client.retryAt)
        ? { state: "waiting", announced: "Reconnecting", shown: `Reconnecting in ${seconds} s` }
        : { state: "waiting", announced: "Disconnected" };
    default:
      return { state: "closed", announced: "Not connected" };
  }
}

function showStatus() {
  const { state, announced, shown = announced } = statusNow();
  byId("status").dataset.state = state;
  setText("status-text", shown);
  // Screen readers do not get the countdown, which would be read out every second.
  setText("announce", announced);
  const waiting = isWaiting();
  byId("banner").hidden = !waiting;
  byId("stay-disconnected").hidden = client.retryAt === Infinity;
  if (!waiting) return;
  const offline = navigator.onLine ? "" : " This device reports that it is offline.";
  const text = room
    ? "Disconnected. Within the room's grace the other members see no change; after it you are removed."
    : "The server cannot be reached; this page keeps retrying.";
  setText("banner-text", text + offline);
}

function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function setJoined(joined) {
  identity.joined = joined;
  remember(identity);
}

function tick() {
  if (room) heartbeatPanel.tick(room, codec.refreshedAt, silent);
  if (!isOpen()) showStatus();
}

// Events.

client.on("status", () => {
  showStatus();
  showActions();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  join();
});
for (const event of ["online", "offline", "pageshow"]) {
  addEventListener(event, () => {
    showStatus();
  });
}
document.addEventListener("visibilitychange", tick);
new Worker("ticker.js").addEventListener("message", () => {
  if (document.hidden) client.tick();
});
setInterval(() => document.hidden || tick(), 250);

form.room.value = identity.roomId;
form.username.value = identity.username;
form.user.value = identity.userId;
form.token.value = identity.token ?? "";
form.view.value = identity.view ?? "members";
if (identity.token) askForToken();
form.username.addEventListener("input", () => form.username.setCustomValidity(""));
showScreen();
// A tab that is reloaded in a room rejoins within the grace, so the other members see no change.
if (identity.joined) join();
