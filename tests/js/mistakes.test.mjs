// The most likely mistakes with the client, on real servers: the sentence that each gets, and that the client goes on.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { ReactorClient } from "../../reactor/js/index.js";
import { people } from "../../reactor/js/people.js";
import { WebSocket } from "ws";

globalThis.WebSocket ??= WebSocket;
const { mistakes } = JSON.parse(readFileSync(new URL("../cases/mistakes.json", import.meta.url), "utf8"));
const { REACTOR_URL: url, SECURED_URL: secured, TOKEN: token } = process.env;
const clients = [];
const create = (...given) => {
  const client = new ReactorClient(...given);
  clients.push(client);
  return client;
};
const client = create(url);
const room = await client.join("lobby", { userId: "ann" });
const left = await client.join("left", { userId: "ann" });
await left.leave();
const withToken = create(secured, { token });
await withToken.join("lobby");
after(() => clients.forEach((each) => each.close()));

/** Reject with the first error that an object reports. */
const reported = (object) => new Promise((_, reject) => object.on("error", reject));

const CALLS = {
  "no address": () => create(),
  "a token in place of the options": () => create(url, "abc"),
  "a token that is still awaited": () => create(url, { token: Promise.resolve("abc") }),
  "a token function that returns the whole answer": () => {
    const answered = create(secured, { token: () => ({ token }) });
    answered.join("lobby").catch(() => {});
    return reported(answered);
  },
  "no token where one is required": () => create(secured).join("lobby", { userId: "ann" }),
  "a token of another secret": () => create(secured, { token: `${token}x` }).join("lobby"),
  "a room that the token does not allow": () => withToken.join("hall"),
  "a user other than the token's": () => create(secured, { token }).join("lobby", { userId: "bob" }),
  "watching a room that the token does not allow": () => reported(withToken.watch("hall")),
  "no room": () => client.join(),
  "an empty room": () => client.join("", { userId: "ann" }),
  "no user": () => client.join("hall"),
  "a user in place of the options": () => client.join("hall", "ann"),
  "a user's record in place of the id": () => client.join("hall", { userId: { id: "ann" } }),
  "a name that is no text": () => client.join("hall", { userId: "ann", username: 7 }),
  "an unknown view": () => client.join("hall", { userId: "ann", view: "all" }),
  "data that JSON cannot hold": () => room.update({ tags: new Set() }),
  "data that is too big": () => room.update("x".repeat(5000)),
  "a controller in place of its signal": () => client.join("hall", { userId: "ann", signal: new AbortController() }),
  "an event that does not exist": () => room.on("joined", () => {}),
  "no function for an event": () => room.on("join"),
  "a patch that is no object": () => room.patch("blue"),
  "one receiver in place of a list": () => room.send("hello", { to: "bob" }),
  "an update of a room that was left": () => left.update("blue"),
  "a second user on one client": () => client.join("lobby", { userId: "bob" }),
  "watching with a view of members alone": () => client.watch("hall", { view: "none" }),
  "watching no room": () => client.watch(),
  "one user in place of a list": () => people(client, "ann"),
  "a number in place of a list of users": () => people(client, 7),
  "a user in a list who is not known yet": () => people(client, ["ann", undefined]),
  "an address in place of the client": () => people("wss://example.org/ws", ["ann"]),
  "an event of rooms for people": () => people(client).on("join", () => {}),
  "more people than a connection may watch": () => reported(people(client, Array.from({ length: 1001 }, (_, id) => id))),
  "the own room of another user": () => client.join("@bob", { userId: "ann" }),
  "online without a user": () => client.online(),
  "a user who is banned": () => client.join("banned", { userId: "ann" }),
  "a room that is full": () => client.join("full", { userId: "ann" }),
};

const sentences = mistakes.filter(({ javascript }) => javascript);

test("the calls are those of the list, which has thirty at least", () => {
  assert.deepEqual(Object.keys(CALLS), sentences.map(({ name }) => name));
  assert.ok(sentences.length >= 30);
});

for (const { name, javascript } of sentences) {
  test(`${name}: ${javascript}`, async () => {
    await assert.rejects(async () => CALLS[name](), { message: javascript });
    assert.equal(client.status, "connected");
  });
}
