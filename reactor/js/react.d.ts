/** React hooks for rooms: their members, and a membership of one's own. */
import type { ReactNode } from "react";
import type { ForceLeave, Member, ReactorClient, Room, RoomEvents, Status } from "./index.js";

/** The id of a room or a user. Null, undefined or empty: not known yet; nothing happens until it is. */
export type Id = string | number | null | undefined;

/** The server; by default that of the enclosing `ReactorProvider`, or else the page's own. */
export interface RoomOptions {
  /** As in `wss://example.org/ws`. */
  url?: string;
  /** The token; the newest is used at each connect. */
  token?: string | (() => string | Promise<string>);
  /** A client that the application has created. */
  client?: ReactorClient;
}

export interface ReactorProviderProps extends RoomOptions {
  children?: ReactNode;
}

/** Sets the server of all components inside it. */
export function ReactorProvider(props: ReactorProviderProps): ReactNode;

/** Reports when the page or app is hidden (true) and visible again (false). Returns the function that stops it. */
export type Watch = (report: (hidden: boolean) => void, wake: () => void) => () => void;

export interface HeartbeatOptions extends RoomOptions {
  /** The name that others see; the user id by default. */
  username?: string;
  /** Any small JSON value that others see. */
  data?: unknown;
  /** `members` by default; `count` where no members are shown. */
  view?: "members" | "count";
  /** Milliseconds that the room stays joined after the last component was unmounted; 300 by default. */
  linger?: number;
  /** When the member is away; by default while the page is hidden, or the app in the background. null: never. */
  watch?: Watch | null;
}

/** The state of the membership. */
export interface Presence {
  /** `idle`: no component wants to be in the room, or the room or the user is not known yet. */
  readonly status: Status | "idle";
  /** What was refused, or why the membership has ended. */
  readonly error: Error | null;
  /** For `room.update(data)`, `room.away()`, `room.back()`; null while not joined. */
  readonly room: Room | null;
  /** Join again after the server has ended the membership. */
  rejoin(): void;
}

/**
 * Be in a room, with heartbeats, while the component is mounted. Any number of components may do so for one room: the
 * first one joins, the last one leaves.
 *
 * @param onForceLeave called when the server ends the membership, with the text for the user to read
 */
export function useRoomHeartbeat(
  roomId: Id,
  userId: Id,
  onForceLeave?: (message: string, event: ForceLeave) => void,
  options?: HeartbeatOptions,
): Presence;

// The hooks below read a room that any component is in by `useRoomHeartbeat`; without one it is empty.
// They return the same value until it changes, so it can be a dependency.

/** The members of a room, in the order in which they joined. */
export function useRoomMembers(roomId: Id, options?: RoomOptions): readonly Member[];
/** The number of members of a room. */
export function useRoomCount(roomId: Id, options?: RoomOptions): number;
/** One member of a room, if present. */
export function useMember(roomId: Id, userId: Id, options?: RoomOptions): Member | undefined;
/** The members of a room without one's own. */
export function useOthers(roomId: Id, options?: RoomOptions): readonly Member[];
/** One's own member of a room. */
export function useSelf(roomId: Id, options?: RoomOptions): Member | undefined;

/** Call a function at each event of a room, as in `useRoomEvent(roomId, "join", ({ member }) => …)`. */
export function useRoomEvent<Event extends keyof RoomEvents>(
  roomId: Id,
  kind: Event,
  listener: (event: RoomEvents[Event]) => void,
  options?: RoomOptions,
): void;
