/**
 * Composables for Vue: the members of a room, a membership of one's own, and whether users are online.
 *
 * They read from the same store as the hooks for React (shared-rooms.js). During server rendering nothing is joined, and every
 * room is empty.
 */
import {
  computed, getCurrentInstance, hasInjectionContext, inject, onMounted, onScopeDispose, shallowRef, toValue, triggerRef, watch,
} from "vue";
import { checkId, checkOptions, checkedIds, idText } from "./arguments.js";
import { NO_MEMBERS } from "./member-list.js";
import { describe } from "./membership.js";
import { people } from "./people.js";
import { chooseRooms, createRooms, roomsOf } from "./servers.js";
import { IDLE, LINGER } from "./shared-rooms.js";
import { NO_PEOPLE, watchOnly } from "./shown-people.js";
import { watchPage } from "./visibility.js";

/**
 * @typedef {import("./shared-rooms.js").Rooms} Rooms
 * @typedef {import("./shared-rooms.js").SharedRoom} SharedRoom
 * @typedef {import("./shared-rooms.js").Consumer} Consumer
 */

const PROVIDER = "createReactor, or with the options of the composable";
/** @type {import("vue").InjectionKey<Rooms>} */
const KEY = Symbol("reactor");

/** @type {typeof import("./vue.js").createReactor} */
export function createReactor(options = {}) {
  checkOptions("createReactor", options);
  const { url, token, client } = options;
  const rooms = client ? roomsOf(client) : createRooms(url, PROVIDER);
  if (token != null) rooms.token = token;
  return { install: (app) => app.provide(KEY, rooms) };
}

/** @type {typeof import("./vue.js").useRoom} */
export function useRoom(roomId, userId, options = {}) {
  const provided = injected();
  /** The room, replaced by another one with another id, and triggered by each of its changes. */
  const shared = shallowRef(/** @type {SharedRoom | null} */ (null));
  /** @type {Consumer} */
  const consumer = { userId: "" };
  const readOptions = () => {
    const given = toValue(options);
    checkOptions("useRoom", given);
    const { username, data, view = "members", linger, throttle, awayAfter, watch: watcher = watchPage, onForceLeave } = given;
    Object.assign(consumer, { username, data, view, linger, throttle, awayAfter, watch: watcher, onForceLeave });
    return given;
  };
  const readIds = () => {
    const [room, user] = [toValue(roomId), toValue(userId)];
    checkId("useRoom", "roomId", room);
    checkId("useRoom", "userId", user);
    return [idText(room), idText(user)];
  };

  const follow = () => {
    const { client, url, token } = readOptions();
    const rooms = chooseRooms({ client, url }, provided, PROVIDER);
    if (token != null) rooms.token = token;
    let end = () => {};
    const stopIds = watch(readIds, ([room, user]) => {
      end();
      if (!room) {
        shared.value = null;
        end = () => {};
        return;
      }
      const used = rooms.get(room);
      shared.value = used;
      consumer.userId = user;
      const unsubscribe = used.subscribe(() => triggerRef(shared), consumer.view === "count" ? "count" : "members");
      const release = user ? used.acquire(consumer) : () => {};
      end = () => {
        release();
        unsubscribe();
      };
    }, { immediate: true });
    const stopOptions = watch(() => describe({ ...readOptions(), client: undefined }), () => shared.value?.update());
    return () => {
      stopIds();
      stopOptions();
      end();
    };
  };

  whileMounted(follow);
  const presence = () => shared.value?.presence ?? IDLE;
  return {
    status: computed(() => presence().status),
    error: computed(() => presence().error),
    room: computed(() => presence().room),
    view: computed(() => presence().view),
    members: computed(() => shared.value?.members ?? NO_MEMBERS),
    others: computed(() => shared.value?.others ?? NO_MEMBERS),
    me: computed(() => shared.value?.me),
    count: computed(() => shared.value?.count ?? 0),
    rejoin: () => presence().rejoin(),
  };
}

/** @type {typeof import("./vue.js").usePeople} */
export function usePeople(userIds, options = {}) {
  const snapshot = useWatchedPeople("usePeople", () => toValue(userIds), options);
  return {
    status: computed(() => snapshot.value.status),
    error: computed(() => snapshot.value.error),
    people: computed(() => snapshot.value.people),
  };
}

/** @type {typeof import("./vue.js").useStatus} */
export function useStatus(userId, options = {}) {
  const snapshot = useWatchedPeople("useStatus", () => [toValue(userId)], options);
  return computed(() => snapshot.value.people.find((person) => person.userId === idText(toValue(userId)))?.status);
}

/**
 * @param {string} caller its name
 * @param {() => unknown} readIds
 * @param {import("vue").MaybeRefOrGetter<import("./options.js").RoomOptions>} options
 */
function useWatchedPeople(caller, readIds, options) {
  const provided = injected();
  const snapshot = shallowRef(NO_PEOPLE);
  const ids = () => checkedIds(caller, readIds());
  whileMounted(() => {
    const given = toValue(options);
    checkOptions(caller, given);
    const { client, url, token } = given;
    const rooms = chooseRooms({ client, url }, provided, PROVIDER);
    if (token != null) rooms.token = token;
    const watched = people(rooms.client, ids());
    const stopIds = watch(ids, (changed) => watchOnly(watched, changed));
    const unsubscribe = watched.subscribe((present) => (snapshot.value = present));
    return () => {
      stopIds();
      unsubscribe();
      // Other components that show the same users may be mounted in a moment, as at a change of screen.
      setTimeout(() => watched.close(), LINGER);
    };
  });
  return snapshot;
}

/** Those of `createReactor`, if there are any. */
const injected = () => (hasInjectionContext() ? inject(KEY, null) : null);

/** Call a function once the component is mounted, and what it returns when the scope ends. @param {() => () => void} begin */
function whileMounted(begin) {
  let stop = () => {};
  // A component that is rendered on a server is never mounted.
  if (getCurrentInstance()) onMounted(() => (stop = begin()));
  else stop = begin();
  onScopeDispose(() => stop());
}
