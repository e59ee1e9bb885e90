"use client";
/**
 * React hooks: the members of a room, and a membership of one's own.
 *
 * Components read from a store outside of React (shared-rooms.js), which keeps each list and entry the same object until
 * it changes. During server rendering nothing is joined, and every room is empty.
 */
import {
  createContext, createElement, useCallback, useContext, useEffect, useInsertionEffect, useMemo, useRef, useState,
  useSyncExternalStore,
} from "react";
import { ReactorClient } from "./index.js";
import { NO_MEMBERS } from "./member-list.js";
import { IDLE, Rooms } from "./shared-rooms.js";
import { watchPage } from "./visibility.js";

/**
 * @typedef {import("./react.js").RoomOptions} RoomOptions
 * @typedef {import("./shared-rooms.js").SharedRoom} SharedRoom
 * @typedef {import("./shared-rooms.js").Consumer} Consumer
 */

const Context = createContext(/** @type {Rooms | null} */ (null));

/** @type {Map<string | undefined, Rooms>} by URL */
const byUrl = new Map();
/** @type {WeakMap<ReactorClient, Rooms>} */
const byClient = new WeakMap();

/** @param {string} [url] by default the page's own server */
function createRooms(url) {
  return new Rooms((rooms) => {
    const address = url ?? pageServer();
    if (rooms.token === undefined) return new ReactorClient(address);
    // Read at each connect, so that the newest token is used.
    const token = () => (typeof rooms.token === "function" ? rooms.token() : /** @type {string} */ (rooms.token));
    return new ReactorClient(address, { token });
  });
}

function pageServer() {
  const { location } = globalThis;
  if (location?.host) return `${location.protocol.replace("http", "ws")}//${location.host}/ws`;
  throw new Error('no server is known: wrap the component in <ReactorProvider url="wss://…/ws">, or pass a url to the hook');
}

/** @param {ReactorClient} client */
function roomsOf(client) {
  const rooms = byClient.get(client) ?? new Rooms(() => client);
  byClient.set(client, rooms);
  return rooms;
}

/** @param {string} [url] */
function roomsAt(url) {
  const rooms = byUrl.get(url) ?? createRooms(url);
  byUrl.set(url, rooms);
  return rooms;
}

/** @param {import("./react.js").ReactorProviderProps} props */
export function ReactorProvider({ url, token, client, children }) {
  const rooms = useMemo(() => (client ? roomsOf(client) : createRooms(url)), [client, url]);
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
  // Runs before the effects of all components, in which rooms are joined.
  useInsertionEffect(() => {
    if (token !== undefined) rooms.token = token;
  });
}

/**
 * @template Read
 * @param {RoomOptions} options
 * @param {import("./react.js").Id} roomId
 * @param {(room: SharedRoom) => Read} read returns the same value until it changes
 * @param {Read} none without such a room, and during server rendering
 * @returns {Read}
 */
function useShared(options, roomId, read, none) {
  const rooms = useRooms(options);
  const id = idText(roomId);
  const subscribe = useCallback(
    (/** @type {() => void} */ onChange) => (id ? rooms.get(id).subscribe(onChange) : () => {}),
    [rooms, id],
  );
  const getSnapshot = () => {
    const room = id ? rooms.peek(id) : undefined;
    return room ? read(room) : none;
  };
  return useSyncExternalStore(subscribe, getSnapshot, () => none);
}

/** @param {import("./react.js").Id} id @returns {string} empty while it is not known */
const idText = (id) => String(id ?? "");

/** @type {typeof import("./react.js").useRoomHeartbeat} */
export function useRoomHeartbeat(roomId, userId, onForceLeave, options = {}) {
  const rooms = useRooms(options);
  const [room, user] = [idText(roomId), idText(userId)];
  const { username, data, view = "members", linger, watch = watchPage } = options;
  // The same object for the lifetime of the component, with the options of its last render.
  const [consumer] = useState(() => /** @type {Consumer} */ ({ userId: "" }));
  useInsertionEffect(() => {
    Object.assign(consumer, { userId: user, username, data, view, linger, watch, onForceLeave });
  });
  useEffect(() => (room && user ? rooms.get(room).acquire(consumer) : undefined), [rooms, room, user, consumer]);
  const described = JSON.stringify([username, data, view]);
  useEffect(() => rooms.peek(room)?.update(), [rooms, room, described]);
  return useShared(options, room, (shared) => shared.presence, IDLE);
}

/** @type {typeof import("./react.js").useRoomMembers} */
export function useRoomMembers(roomId, options = {}) {
  return useShared(options, roomId, (room) => room.members, NO_MEMBERS);
}

/** @type {typeof import("./react.js").useRoomCount} */
export function useRoomCount(roomId, options = {}) {
  return useShared(options, roomId, (room) => room.count, 0);
}

/** @type {typeof import("./react.js").useMember} */
export function useMember(roomId, userId, options = {}) {
  return useShared(options, roomId, (room) => room.member(idText(userId)), undefined);
}

/** @type {typeof import("./react.js").useOthers} */
export function useOthers(roomId, options = {}) {
  return useShared(options, roomId, (room) => room.others, NO_MEMBERS);
}

/** @type {typeof import("./react.js").useSelf} */
export function useSelf(roomId, options = {}) {
  return useShared(options, roomId, (room) => room.me, undefined);
}

/** @type {typeof import("./react.js").useRoomEvent} */
export function useRoomEvent(roomId, kind, listener, options = {}) {
  const room = useShared(options, roomId, (shared) => shared.presence.room, null);
  /** @type {{current: (event: any) => void}} */
  const latest = useRef(listener);
  useInsertionEffect(() => {
    latest.current = listener;
  });
  useEffect(() => room?.on(kind, (event) => latest.current(event)), [room, kind]);
}
