/** The client of a reactor server: room presence over a WebSocket. */

/** A user in a room. Times are milliseconds since 1970, by the server's clock. */
export interface Member {
  userId: string;
  username: string;
  joinedAt: number;
  lastActiveAt: number;
  /** Whether all of its connections are away. */
  away: boolean;
  /** The number of its connections: tabs and devices. */
  connections: number;
  /** The data that the member has set. */
  data?: any;
}

/** What a client receives of a room: its members, only their count, or nothing. */
export type View = "members" | "count" | "none";

/** Why a member left; a newer server may send other reasons. */
export type LeaveReason = "left" | "inactivity_timeout" | "disconnected" | "kicked" | (string & {});

/**
 * - `connecting`: not joined yet.
 * - `connected`: joined.
 * - `degraded`: connected, but the server has no Redis at present: lists do not change, and requests wait.
 * - `reconnecting`: the connection was lost; the client reconnects and joins the rooms again.
 * - `closed`: ended; `error` says why.
 */
export type Status = "connecting" | "connected" | "degraded" | "reconnecting" | "closed";

/** As a room's; `idle` while no room is wanted, so that there is no connection. */
export type ClientStatus = Status | "idle";

interface EventBase {
  roomId: string;
  /** The number of members after the event. */
  count: number;
}
export interface JoinEvent extends EventBase {
  kind: "join";
  member: Member;
}
export interface UpdateEvent extends EventBase {
  kind: "update";
  member: Member;
}
export interface LeaveEvent extends EventBase {
  kind: "leave";
  /** As last received. */
  member: Member;
  reason: LeaveReason;
}
/** The whole list, at first and when the room is served as members or as a count from now on; or a new count. */
export interface SyncEvent extends EventBase {
  kind: "sync";
  members: Member[];
}
export type RoomEvent = JoinEvent | UpdateEvent | LeaveEvent | SyncEvent;

/** A request that the server refused, or what ended a room or the connection. */
export class ReactorError extends Error {
  constructor(code: string, message: string, more?: object);
  /**
   * Stable, for programs: a code of the wire, or `force-leave`, `closed` (see `closeCode`), `aborted`.
   */
  code: string;
  /** Of `closed`: the WebSocket close code, such as 4001 when the token is rejected. */
  closeCode?: number;
  /** Of `force-leave`. */
  roomId?: string;
  reason?: LeaveReason;
  timestamp?: number;
}

/** The server ended the membership: `message` is for the user to read. */
export interface ForceLeave extends ReactorError {
  code: "force-leave";
  roomId: string;
  reason: LeaveReason;
  /** Milliseconds since 1970. */
  timestamp: number;
}

export interface JoinOptions {
  /** The user; may be omitted where a token names it. */
  userId?: string | number;
  /** The name that others see; the user id by default. */
  username?: string;
  /** Any small JSON value that others see. */
  data?: unknown;
  /** `members` by default. */
  view?: View;
  /** Aborting it leaves the room. */
  signal?: AbortSignal;
}

export interface RoomEvents {
  join: JoinEvent;
  leave: LeaveEvent;
  update: UpdateEvent;
  sync: SyncEvent;
  /** All events of one message together, after each of them was emitted. */
  change: RoomEvent[];
  /** A message of the application to everyone in the room. */
  message: { roomId: string; data: any; timestamp: number };
  "force-leave": ForceLeave;
  status: Status;
}

/** A room that was joined. Applying its events always gives what `members` holds, also after lost connections. */
export interface Room {
  readonly id: string;
  readonly userId: string;
  /** By user id; the same Map for the lifetime of the room, empty where only the count is served. */
  readonly members: ReadonlyMap<string, Member>;
  readonly count: number;
  /** This client's own member; undefined where only the count is served. */
  readonly me: Member | undefined;
  readonly others: Member[];
  /** What is served: of a room with too many members only the count is sent. */
  readonly view: View;
  readonly status: Status;
  /** Why it has ended, unless it was left. */
  readonly error: ReactorError | null;
  /** Whether `away()` was called, and not `back()` since. */
  readonly isAway: boolean;
  /** Whether the last join found the member still present, so that no member was notified of the loss. */
  readonly resumed: boolean;
  /** Settings of the room, in milliseconds. */
  readonly ttl: number;
  readonly heartbeatInterval: number;
  readonly socketId: string;
  readonly epoch: string;
  readonly version: number;

  /**
   * Change the member's data (or name); undefined fields stay. Like `away` and `back` it waits while the connection is
   * lost or Redis is away, and rejects with a ReactorError when it is refused or the room has ended.
   */
  update(data: unknown, more?: { username?: string }): Promise<void>;
  /** Show the member as away: the app is in the background. */
  away(): Promise<void>;
  /** Show the member as present again. */
  back(): Promise<void>;
  /** Leave. The other members are notified at once, or after the grace while the connection is lost. Never rejects. */
  leave(): Promise<void>;

  /** Add a listener. Returns the function that removes it. */
  on<Event extends keyof RoomEvents>(event: Event, listener: (event: RoomEvents[Event]) => void): () => void;
}

/** The encoding of messages. For MessagePack use a library such as @msgpack/msgpack:
 * `{ subprotocol: "reactor.msgpack", encode: (message) => encode(message, { ignoreUndefined: true }), decode }`. */
export interface Codec {
  subprotocol: string;
  encode(message: any): any;
  /** Receives text or an ArrayBuffer. */
  decode(data: any): any;
}
/** The default. */
export const json: Codec;

/** Times in milliseconds. */
export interface Backoff {
  /** The first delay; it doubles with each failure. Each is between half of it and all of it, at random. */
  first?: number;
  /** The longest delay. */
  most?: number;
  /** How long an attempt to connect may take. */
  timeout?: number;
  /** After a connection that lasted so long the delays start again with the first. */
  steady?: number;
}

export interface ClientOptions {
  /** A token, or a function (async or not) that is called at each connect and before the token expires. */
  token?: string | (() => string | Promise<string>);
  /** For platforms without WebSocket, such as `ws` on Node.js 20. */
  WebSocket?: new (url: string, protocols: string[]) => any;
  backoff?: Backoff;
  codec?: Codec;
}

export interface ClientEvents {
  status: ClientStatus;
}

/** Requests that need no membership, and their replies. */
export interface Questions {
  "room:members": { ask: { roomId: string | number }; reply: Position & { members?: Member[] } };
  "room:count": { ask: { roomId: string | number }; reply: Position };
  "room:is_present": {
    ask: { roomId: string | number; userId: string | number };
    reply: { roomId: string; userId: string; present: boolean };
  };
}
interface Position {
  roomId: string;
  epoch: string;
  version: number;
  count: number;
}

/**
 * Rooms over one connection, which is open while a room is wanted.
 *
 *     const client = new ReactorClient("wss://example.org/ws");
 *     const room = await client.join("lobby", { userId: "7", username: "Ada" });
 *     room.on("change", () => render(room.members));
 *     room.on("force-leave", ({ message }) => alert(message));
 */
export class ReactorClient {
  /** `url`: as the platform's WebSocket takes it: wss://HOST/ws, on a page in current browsers also "/ws". */
  constructor(url: string, options?: ClientOptions);
  readonly status: ClientStatus;
  /** Why there is no connection, if known. */
  readonly error: Error | null;
  /** While `reconnecting`: when the next attempt begins, milliseconds since 1970. */
  readonly retryAt: number;
  /** The user of the token, once the server has sent it. */
  readonly userId: string;
  /** Rooms joined or being joined, by id. */
  readonly rooms: ReadonlyMap<string, Room>;
  /** Set it to withhold heartbeats, and see how a member expires. */
  silent: boolean;

  /**
   * Join a room, and stay in it until it is left or the server ends it. It waits while the server cannot be reached or
   * has no Redis; `signal` cancels it. Joining again as the same user changes the given options, and resolves to the
   * same Room. Rejects with a ReactorError that has the server's code.
   */
  join(roomId: string | number, options?: JoinOptions): Promise<Room>;
  /** Request data of a room, joined or not, as in `(await client.request({ type: "room:count", roomId })).count`. */
  request<Type extends keyof Questions>(
    question: { type: Type } & Questions[Type]["ask"],
  ): Promise<{ type: Type } & Questions[Type]["reply"]>;
  /** Leave all rooms (or, with `leave: false`, let the grace run) and close the connection; no timer remains. */
  close(options?: { leave?: boolean }): void;

  /** Reconnect or send a heartbeat at once: time has passed, or the network is another one. Automatic on pages. */
  wake(): void;
  /** Compare deadlines with the clock, and do what is due: for timers that a hidden page does not delay. */
  tick(): void;
  /** Send a heartbeat now. */
  beat(): void;
  /** Drop the connection as a lost network would, for so many milliseconds; Infinity: until `wake`. */
  drop(pause: number): void;

  /** Add a listener. Returns the function that removes it. */
  on<Event extends keyof ClientEvents>(event: Event, listener: (event: ClientEvents[Event]) => void): () => void;
}
