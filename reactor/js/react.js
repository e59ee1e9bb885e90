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
import { checkId, checkOptions, checkedIds, idText } from "./arguments.js";
import { NO_MEMBERS } from "./member-list.js";
import { describe } from "./membership.js";
import { people } from "./people.js";
import { chooseRooms, createRooms, roomsOf } from "./servers.js";
import { IDLE, LINGER } from "./shared-rooms.js";
import { NO_PEOPLE, watchOnly } from "./shown-people.js";
import { watchPage } from "./visibility.js";

/**
 * @typedef {import("./options.js").RoomOptions} RoomOptions
 * @typedef {import("./shared-rooms.js").Rooms} Rooms
 * @typedef {import("./shared-rooms.js").SharedRoom} SharedRoom
 * @typedef {import("./shared-rooms.js").Consumer} Consumer
 */

const PROVIDER = "ReactorProvider, or with the options of the hook";
const Context = createContext(/** @type {Rooms | null} */ (null));

/** @param {import("./react.js").ReactorProviderProps} props */
export function ReactorProvider({ url, token, client, children }) {
  checkOptions("ReactorProvider", { url, token, client });
  const rooms = useMemo(() => (client ? roomsOf(client) : createRooms(url, PROVIDER)), [client, url]);
  useToken(rooms, token);
  return createElement(Context.Provider, { value: rooms }, children);
}

/** @param {RoomOptions} options */
function useRooms({ client, url, token }) {
  const provided = useContext(Context);
  const rooms = useMemo(() => chooseRooms({ client, url }, provided, PROVIDER), [client, url, provided]);
  useToken(rooms, token);
  return rooms;
}

/** @param {Rooms} rooms @param {RoomOptions["token"]} token */
function useToken(rooms, token) {
  // Runs before the effects of all components, in which rooms are joined.
  useInsertionEffect(() => {
    if (token != null) rooms.token = token;
  });
}

/**
 * @template Read
 * @param {string} hook its name
 * @param {RoomOptions} options
 * @param {import("./options.js").Id} roomId
 * @param {(room: SharedRoom) => Read} read returns the same value until it changes
 * @param {Read} none without such a room, and during server rendering
 * @param {import("./shared-rooms.js").ReadView} [view] for which a room that no component is in is watched
 * @returns {Read}
 */
function useShared(hook, options, roomId, read, none, view) {
  checkId(hook, "roomId", roomId);
  checkOptions(hook, options);
  const rooms = useRooms(options);
  const id = idText(roomId);
  const subscribe = useCallback(
    (/** @type {() => void} */ onChange) => (id ? rooms.get(id).subscribe(onChange, view) : () => {}),
    [rooms, id, view],
  );
  const getSnapshot = () => {
    const room = id ? rooms.peek(id) : undefined;
    return room ? read(room) : none;
  };
  return useSyncExternalStore(subscribe, getSnapshot, () => none);
}

/** @type {typeof import("./react.js").useRoomHeartbeat} */
export function useRoomHeartbeat(roomId, userId, onForceLeave, options = {}) {
  checkId("useRoomHeartbeat", "roomId", roomId);
  checkId("useRoomHeartbeat", "userId", userId);
  checkOptions("useRoomHeartbeat", { onForceLeave });
  const rooms = useRooms(options);
  const [room, user] = [idText(roomId), idText(userId)];
  const { username, data, view = "members", linger, throttle, awayAfter, watch = watchPage } = options;
  // The same object for the lifetime of the component, with the options of its last render.
  const [consumer] = useState(() => /** @type {Consumer} */ ({ userId: "" }));
  useInsertionEffect(() => {
    Object.assign(consumer, { userId: user, username, data, view, linger, throttle, awayAfter, watch, onForceLeave });
  });
  useEffect(() => (room && user ? rooms.get(room).acquire(consumer) : undefined), [rooms, room, user, consumer]);
  const described = describe([username, data, view]);
  useEffect(() => rooms.peek(room)?.update(), [rooms, room, described]);
  return useShared("useRoomHeartbeat", options, room, (shared) => shared.presence, IDLE);
}

/** @type {typeof import("./react.js").useRoomMembers} */
export function useRoomMembers(roomId, options = {}) {
  return useShared("useRoomMembers", options, roomId, (room) => room.members, NO_MEMBERS, "members");
}

/** @type {typeof import("./react.js").useRoomCount} */
export function useRoomCount(roomId, options = {}) {
  return useShared("useRoomCount", options, roomId, (room) => room.count, 0, "count");
}

/** @type {typeof import("./react.js").useRoomView} */
export function useRoomView(roomId, options = {}) {
  return useShared("useRoomView", options, roomId, (room) => room.presence.view, "none");
}

/** @type {typeof import("./react.js").useMember} */
export function useMember(roomId, userId, options = {}) {
  return useShared("useMember", options, roomId, (room) => room.member(idText(userId)), undefined, "members");
}

/** @type {typeof import("./react.js").useOthers} */
export function useOthers(roomId, options = {}) {
  return useShared("useOthers", options, roomId, (room) => room.others, NO_MEMBERS, "members");
}

/** @type {typeof import("./react.js").useSelf} */
export function useSelf(roomId, options = {}) {
  return useShared("useSelf", options, roomId, (room) => room.me, undefined);
}

/** @type {typeof import("./react.js").useRoomEvent} */
export function useRoomEvent(roomId, kind, listener, options = {}) {
  checkOptions("useRoomEvent", { listener });
  const room = useShared("useRoomEvent", options, roomId, (shared) => shared.presence.room, null);
  /** @type {{current: (event: any) => void}} */
  const latest = useRef(listener);
  useInsertionEffect(() => {
    latest.current = listener;
  });
  useEffect(() => room?.on(kind, (event) => latest.current(event)), [room, kind]);
}

/** @type {typeof import("./react.js").usePeople} */
export function usePeople(userIds, options = {}) {
  return useWatchedPeople("usePeople", userIds, options);
}

/** @type {typeof import("./react.js").useStatus} */
export function useStatus(userId, options = {}) {
  const id = idText(userId);
  return useWatchedPeople("useStatus", [userId], options).people.find((person) => person.userId === id)?.status;
}

/** @param {string} hook its name @param {unknown} userIds @param {RoomOptions} options */
function useWatchedPeople(hook, userIds, options) {
  const ids = checkedIds(hook, userIds);
  checkOptions(hook, options);
  const rooms = useRooms(options);
  // The same object for the lifetime of the component, with the users of its last render.
  const [current] = useState(() => ({ ids, watched: /** @type {import("./people.js").People | null} */ (null) }));
  useInsertionEffect(() => {
    current.ids = ids;
  });
  const subscribe = useCallback(
    (/** @type {() => void} */ onChange) => {
      const watched = people(rooms.client, current.ids);
      current.watched = watched;
      const stop = watched.subscribe(onChange);
      return () => {
        stop();
        // Other components that show the same users may be mounted in a moment, as at a change of screen.
        setTimeout(() => watched.close(), LINGER);
      };
    },
    [rooms, current],
  );
  const snapshot = useSyncExternalStore(subscribe, () => current.watched?.getSnapshot() ?? NO_PEOPLE, () => NO_PEOPLE);
  const key = JSON.stringify(ids);
  useEffect(() => {
    if (current.watched) watchOnly(current.watched, current.ids);
  }, [current, key]);
  return snapshot;
}
