/** The page: one room, one client, and the buttons that show what the server does about each mishap. */
import { ReactorClient } from "./client.js";
import { byId, duration } from "./dom.js";
import { recall, remember } from "./identity.js";
import { Log } from "./log.js";
import { People } from "./people.js";
import { Vitals } from "./vitals.js";
import { Watched } from "./watched.js";
import { Wire } from "./wire.js";

/** How long (ms) a socket dropped by the button stays away: less than the default grace. */
const DROP_FOR = 8000;

const socketUrl = new URL("ws", location.href);
socketUrl.protocol = socketUrl.protocol.replace("http", "ws");
const watched = new Watched({
  frame: (frame) => wire.add(frame),
  beat(roundTrip) {
    vitals.beat(roundTrip);
    // The client has not taken it yet.
    queueMicrotask(tick);
  },
});
const client = new ReactorClient(socketUrl.href, { codec: watched });
const log = new Log();
const people = new People();
const vitals = new Vitals();
const wire = new Wire();
const form = byId("form");
const identity = recall();
/** @type {import("../js/index.js").Room | null} */
let room = null;
let silent = false;
let membersBefore = new Map();
/** The room's status before the present one. */
let before = "connected";

// Coming in.

async function join() {
  Object.assign(identity, { roomId: form.room.value, username: form.username.value, userId: form.user.value });
  byId("join").disabled = true;
  showNotice("");
  try {
    const { roomId, username, userId } = identity;
    enter(await client.join(roomId, { userId, username }));
  } catch (error) {
    keep(false);
    showNotice(sentence(error.message));
  } finally {
    byId("join").disabled = false;
  }
}

function enter(joined) {
  room = joined;
  keep(true);
  membersBefore = new Map(joined.members);
  let { view } = joined;
  joined.on("sync", () => {
    people.reset(joined);
    if (view === joined.view) return;
    view = joined.view;
    log.own(view === "members" ? "The room is served by name again" : "The room is served as a count now");
  });
  joined.on("change", (events) => {
    log.tell(events, membersBefore, joined.userId);
    people.change(joined, events);
    membersBefore = new Map(joined.members);
    showFacts();
  });
  joined.on("status", onRoomStatus);
  joined.on("force-leave", ({ message, reason }) => {
    log.own(message, reason);
    popUp(reason === "kicked" ? "You were removed" : "You are out of the room", message, reason);
  });
  log.own(room.resumed ? "You are in the room again; for the others you never left" : "You joined the room");
  setSilent(false);
  people.reset(room);
  vitals.reset();
  byId("room-title").textContent = byId("room-title").title = room.id;
  byId("another").href = `?room=${encodeURIComponent(room.id)}`;
  showFacts();
  showPlace();
  byId("room-title").focus({ preventScroll: true });
  client.beat();
  tick();
}

function onRoomStatus(status) {
  if (status === "reconnecting") log.own("Your socket is gone; the room's grace runs");
  if (status === "connected" && before === "reconnecting") {
    log.own(room.resumed ? "You are back in time; nobody has noticed" : "You are back, as a new member: the grace had passed");
    client.beat();
  }
  before = status;
  const { error } = room;
  if (status === "closed" && error && error.code !== "force-leave") {
    log.own(`You could not come back: ${error.message}`, error.code);
    popUp("You are out of the room", sentence(error.message), error.code);
  }
  people.hint(room);
  showFacts();
  tick();
}

// Going out.

function goOut(notice) {
  room = null;
  keep(false);
  people.reset({ userId: "", members: new Map(), view: "members", count: 0 });
  showNotice(notice);
  showPlace();
  byId("join").focus();
}

function popUp(title, message, reason) {
  byId("popup-title").textContent = title;
  byId("popup-message").textContent = message;
  byId("popup").dataset.reason = reason;
  byId("popup").showModal();
}

byId("popup").addEventListener("close", () => goOut("You are out of the room. Join again whenever you like."));

byId("leave").addEventListener("click", async () => {
  const leaving = room;
  const heard = isOpen();
  byId("leave").disabled = true;
  await leaving.leave();
  byId("leave").disabled = false;
  if (room !== leaving || byId("popup").open) return;
  log.own(heard ? "You left the room" : "You left without a word; the others hear of it when the grace is over");
  goOut("You left. Join again whenever you like.");
});

// Mishaps on purpose.

byId("away").addEventListener("click", () => {
  if (room.isAway) room.back();
  else room.away();
  showActions();
});

byId("silent").addEventListener("click", () => {
  setSilent(!silent);
  log.own(silent ? "You went silent: no more heartbeats" : "You send heartbeats again");
});

byId("drop").addEventListener("click", () => client.drop(DROP_FOR));
byId("reconnect").addEventListener("click", () => client.wake());
byId("stay-away").addEventListener("click", () => client.drop(Infinity));
byId("beat").addEventListener("click", () => client.beat());

function setSilent(on) {
  silent = on;
  client.silent = on;
  client.wake();
  vitals.silence(on ? room.ttl : 0);
  showActions();
}

// What is shown.

function showPlace() {
  byId("door").hidden = room !== null;
  byId("room").hidden = room === null;
  document.body.dataset.place = room ? "room" : "door";
  byId("drop-hint").textContent = `As a lost network would; back in ${duration(DROP_FOR)}.`;
  showActions();
  showStatus();
  showTitle();
}

function showActions() {
  const away = room?.isAway ?? false;
  byId("away").classList.toggle("on", away);
  byId("away-name").textContent = away ? "Come back" : "Step away";
  byId("away-hint").textContent = away ? "The others see you as away." : "The others see you as away; you stay.";
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

/** Whether the socket is down and nothing is tried at the moment. */
function isWaiting() {
  return (client.status === "reconnecting" || client.status === "connecting") && client.retryAt > Date.now();
}

function statusNow() {
  const seconds = Math.max(0, Math.ceil((client.retryAt - Date.now()) / 1000));
  switch (client.status) {
    case "degraded":
      return { state: "degraded", said: "Degraded: Redis does not answer" };
    case "connected":
      return navigator.onLine ? { state: "open", said: "Connected" } : { state: "waiting", said: "Device offline" };
    case "connecting":
    case "reconnecting":
      if (!isWaiting()) return { state: "waiting", said: "Connecting" };
      return Number.isFinite(client.retryAt)
        ? { state: "waiting", said: "Reconnecting", shown: `Reconnecting in ${seconds} s` }
        : { state: "waiting", said: "Disconnected" };
    default:
      return { state: "closed", said: "Not connected" };
  }
}

function showStatus() {
  const { state, said, shown = said } = statusNow();
  byId("status").dataset.state = state;
  setText("status-text", shown);
  // A count-down read out every second would drown the rest.
  setText("announce", said);
  const waiting = isWaiting();
  byId("banner").hidden = !waiting;
  byId("stay-away").hidden = client.retryAt === Infinity;
  if (!waiting) return;
  const offline = navigator.onLine ? "" : " This device says it is offline.";
  const text = room
    ? "The socket is down. Back within the room's grace, nobody notices; later, the others are told."
    : "The server cannot be reached; this page keeps trying.";
  setText("banner-text", text + offline);
}

function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function keep(inside) {
  identity.inside = inside;
  remember(identity);
}

function tick() {
  if (room) vitals.tick(room, watched.refreshedAt, silent);
  if (!isOpen()) showStatus();
}

// What happens.

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
showPlace();
// A tab that was loaded anew inside a room comes back within the grace, so that nobody notices.
if (identity.inside) join();
