/** Which client a component uses: one for each address, or the one that the application has created. */
import { ReactorClient } from "./index.js";
import { Rooms } from "./shared-rooms.js";

/** @type {Map<string | undefined, Rooms>} by URL */
const byUrl = new Map();
/** @type {WeakMap<ReactorClient, Rooms>} */
const byClient = new WeakMap();

/**
 * @param {string | undefined} url by default the page's own server
 * @param {string} provider where an application gives address and token
 */
export function createRooms(url, provider) {
  return new Rooms((rooms) => {
    // Read at each connect, so that the newest token is used.
    const token = () => /** @type {string} */ (typeof rooms.token === "function" ? rooms.token() : rooms.token);
    return new ReactorClient(url ?? pageServer(provider), { token });
  }, `pass \`token\` to ${provider}`);
}

/** @param {ReactorClient} client */
export function roomsOf(client) {
  const rooms = byClient.get(client) ?? new Rooms(() => client, "pass `token` to its ReactorClient");
  byClient.set(client, rooms);
  return rooms;
}

/** @param {string | undefined} url @param {string} provider */
export function roomsAt(url, provider) {
  const rooms = byUrl.get(url) ?? createRooms(url, provider);
  byUrl.set(url, rooms);
  return rooms;
}

/**
 * The rooms that a component uses: those of its own options, or else of the provider around it.
 *
 * @param {import("./options.js").RoomOptions} options
 * @param {Rooms | null} provided
 * @param {string} provider
 */
export function chooseRooms({ client, url }, provided, provider) {
  if (client) return roomsOf(client);
  return url || !provided ? roomsAt(url, provider) : provided;
}

/** @param {string} provider */
function pageServer(provider) {
  const { location } = globalThis;
  if (location?.host) return `${location.protocol.replace("http", "ws")}//${location.host}/ws`;
  throw new Error(`no server is known: pass \`url\`, as in wss://example.org/ws, to ${provider}`);
}
