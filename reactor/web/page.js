/** The demo page: one client in one room, with buttons that show how the server handles each kind of failure. */
import { ReactorClient } from "./client.js";
import { ObservedCodec } from "./codec.js";
import { byId, duration } from "./dom.js";
import { EventLog } from "./event-log.js";
import { HeartbeatPanel } from "./heartbeat-panel.js";
import { recall, remember } from "./identity.js";
import { MemberList } from "./member-list.js";
import { MessageLog } from "./message-log.js";

/** How long (ms) a socket dropped by the button stays closed: less than the default grace. */
const DROP_DURATION = 8000;

const socketUrl = new URL("ws", location.href);
socketUrl.protocol = socketUrl.protocol.replace("http", "ws");
const codec = new ObservedCodec({
  frame: (frame) => messageLog.add(frame),
  heartbeat(roundTrip) {
    heartbeatPanel.heartbeat(roundTrip);
    // The client processes the message only after it was decoded.
    queueMicrotask(tick);
  },
});
const client = new ReactorClient(socketUrl.href, { codec });
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
  Object.assign(identity, { roomId: form.room.value, username: form.username.value, userId: form.user.value });
  byId("join").disabled = true;
  showNotice("");
  try {
    const { roomId, username, userId } = identity;
    showRoom(await client.join(roomId, { userId, username }));
  } catch (error) {
    setJoined(false);
    showNotice(sentence(error.message));
  } finally {
    byId("join").disabled = false;
  }
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
  joined.on("status", onRoomStatus);
  joined.on("force-leave", ({ message, reason }) => {
    eventLog.addOwn(message, reason);
    popUp(reason === "kicked" ? "You were removed" : "Your membership has ended", message, reason);
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
  memberList.hint(room);
  showFacts();
  tick();
}

// Leaving.

function showJoinScreen(notice) {
  room = null;
  setJoined(false);
  memberList.reset({ userId: "", members: new Map(), view: "members", count: 0 });
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
  if (room.isAway) room.back();
  else room.away();
  showActions();
});

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
  byId("away").classList.toggle("on", away);
  byId("away-name").textContent = away ? "Come back" : "Step away";
  byId("away-hint").textContent = away ? "The other members see you as away." : "Shows you as away; you stay in the room.";
  byId("silent").classList.toggle("on", silent);
  byId("silent-name").textContent = silent ? "Send heartbeats again" : "Go silent";
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
showScreen();
// A tab that is reloaded in a room rejoins within the grace, so the other members see no change.
if (identity.joined) join();
