"use client";
/**
 * React hooks: who is in a room, and being there oneself.
 *
 * A component reads from a store outside of React (shared.js), which keeps every list and entry the same object until it
 * is another one. On a server nothing is joined, and every room is empty.
 */
import {
  createContext, createElement, useCallback, useContext, useEffect, useInsertionEffect, useMemo, useRef, useState,
  useSyncExternalStore,
} from "react";
import { ReactorClient } from "./index.js";
import { NOBODY } from "./people.js";
import { IDLE, Rooms } from "./shared.js";
import { watchPage } from "./visibility.js";

/**
 * @typedef {import("./react.js").RoomOptions} RoomOptions
 * @typedef {import("./shared.js").SharedRoom} SharedRoom
 * @typedef {import("./shared.js").Hold} Hold
 */

const Context = createContext(/** @type {Rooms | null} */ (null));

/** @type {Map<string | undefined, Rooms>} by address */
const byUrl = new Map();
/** @type {WeakMap<ReactorClient, Rooms>} */
const byClient = new WeakMap();

/** @param {string} [url] by default the page's own server */
function madeFor(url) {
  return new Rooms((rooms) => {
    const address = url ?? ownServer();
    if (rooms.token === undefined) return new ReactorClient(address);
    // Asked for each time, so that the newest one counts.
    const token = () => (typeof rooms.token === "function" ? rooms.token() : /** @type {string} */ (rooms.token));
    return new ReactorClient(address, { token });
  });
}

function ownServer() {
  const { location } = globalThis;
  if (location?.host) return `${location.protocol.replace("http", "ws")}//${location.host}/ws`;
  throw new Error('no server is known: put a <ReactorProvider url="wss://…/ws"> around, or give the hook a url');
}

/** @param {ReactorClient} client */
function roomsOf(client) {
  const rooms = byClient.get(client) ?? new Rooms(() => client);
  byClient.set(client, rooms);
  return rooms;
}

/** @param {string} [url] */
function roomsAt(url) {
  const rooms = byUrl.get(url) ?? madeFor(url);
  byUrl.set(url, rooms);
  return rooms;
}

/** @param {import("./react.js").ReactorProviderProps} props */
export function ReactorProvider({ url, token, client, children }) {
  const rooms = useMemo(() => (client ? roomsOf(client) : madeFor(url)), [client, url]);
  useToken(rooms, token);
  return createElement(Context.Provider, { value: rooms }, children);
}

/** @param {RoomOptions} options */
function useRooms({ client, url, token }) {
  const provided = useContext(Context);
  const rooms = useMemo(() => {
    if (client) return roomsOf(client);
    return url || !provided ? roomsAt(url) : provided;
  }, [client, url, provided]);
  useToken(rooms, token);
  return rooms;
}

/** @param {Rooms} rooms @param {RoomOptions["token"]} token */
function useToken(rooms, token) {
  // Before the effects of any component, in which rooms are joined.
  useInsertionEffect(() => {
    if (token !== undefined) rooms.token = token;
  });
}

/**
 * @template Read
 * @param {RoomOptions} options
 * @param {import("./react.js").Id} roomId
 * @param {(room: SharedRoom) => Read} read gives the same as before unless it has changed
 * @param {Read} none where there is no such room, and on a server
 * @returns {Read}
 */
function useShared(options, roomId, read, none) {
  const rooms = useRooms(options);
  const id = text(roomId);
  const subscribe = useCallback(
    (/** @type {() => void} */ changed) => (id ? rooms.open(id).subscribe(changed) : () => {}),
    [rooms, id],
  );
  const get = () => {
    const room = id ? rooms.peek(id) : undefined;
    return room ? read(room) : none;
  };
  return useSyncExternalStore(subscribe, get, () => none);
}

/** @param {import("./react.js").Id} id @returns {string} empty for one that is not known yet */
const text = (id) => String(id ?? "");

/** @type {typeof import("./react.js").useRoomHeartbeat} */
export function useRoomHeartbeat(roomId, userId, onForceLeave, options = {}) {
  const rooms = useRooms(options);
  const [room, user] = [text(roomId), text(userId)];
  const { username, data, view = "members", linger, watch = watchPage } = options;
  // One object for as long as the component lasts; what it says is always the newest.
  const [hold] = useState(() => /** @type {Hold} */ ({ userId: "" }));
  useInsertionEffect(() => {
    Object.assign(hold, { userId: user, username, data, view, linger, watch, onForceLeave });
  });
  useEffect(() => (room && user ? rooms.open(room).hold(hold) : undefined), [rooms, room, user, hold]);
  const said = JSON.stringify([username, data, view]);
  useEffect(() => rooms.peek(room)?.describe(), [rooms, room, said]);
  return useShared(options, room, (shared) => shared.presence, IDLE);
}

/** @type {typeof import("./react.js").useRoomMembers} */
export function useRoomMembers(roomId, options = {}) {
  return useShared(options, roomId, (room) => room.members, NOBODY);
}

/** @type {typeof import("./react.js").useRoomCount} */
export function useRoomCount(roomId, options = {}) {
  return useShared(options, roomId, (room) => room.count, 0);
}

/** @type {typeof import("./react.js").useMember} */
export function useMember(roomId, userId, options = {}) {
  return useShared(options, roomId, (room) => room.member(text(userId)), undefined);
}

/** @type {typeof import("./react.js").useOthers} */
export function useOthers(roomId, options = {}) {
  return useShared(options, roomId, (room) => room.others, NOBODY);
}

/** @type {typeof import("./react.js").useSelf} */
export function useSelf(roomId, options = {}) {
  return useShared(options, roomId, (room) => room.me, undefined);
}

/** @type {typeof import("./react.js").useRoomEvent} */
export function useRoomEvent(roomId, kind, hear, options = {}) {
  const room = useShared(options, roomId, (shared) => shared.presence.room, null);
  /** @type {{current: (news: any) => void}} */
  const latest = useRef(hear);
  useInsertionEffect(() => {
    latest.current = hear;
  });
  useEffect(() => room?.on(kind, (news) => latest.current(news)), [room, kind]);
}
