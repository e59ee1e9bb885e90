/** The client of a reactor server: who is in which room, now. */

/** A user in a room. Times are milliseconds since 1970, by the server's clock. */
export interface Member {
  userId: string;
  username: string;
  joinedAt: number;
  lastActiveAt: number;
  /** Whether all of its connections said that they are away. */
  away: boolean;
  /** Its sockets: tabs and devices. */
  connections: number;
  /** What it says of itself. */
  data?: any;
}

/** What a client wants to hear of a room: who is there, only how many, or nothing. */
export type View = "members" | "count" | "none";

/** Why a member is gone; a newer server may know others. */
export type LeaveReason = "left" | "inactivity_timeout" | "disconnected" | "kicked" | (string & {});

/**
 * - `connecting`: not there yet.
 * - `connected`: all is well.
 * - `degraded`: connected, but the server has no Redis now: lists stand still, and requests wait.
 * - `reconnecting`: the connection was lost; it comes back, and the rooms with it, by itself.
 * - `closed`: over; `error` says why.
 */
export type Status = "connecting" | "connected" | "degraded" | "reconnecting" | "closed";

/** As a room's; `idle` while no room is wanted, so that there is no socket. */
export type ClientStatus = Status | "idle";

interface EventBase {
  roomId: string;
  /** How many are in the room now. */
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
  /** As last known. */
  member: Member;
  reason: LeaveReason;
}
/** The whole list is known: at first, and when the room is served by name or by count from now on; or a new count. */
export interface SyncEvent extends EventBase {
  kind: "sync";
  members: Member[];
}
export type RoomEvent = JoinEvent | UpdateEvent | LeaveEvent | SyncEvent;

/** Something the server refused, or what ended a room or the connection. */
export class ReactorError extends Error {
  constructor(code: string, message: string, more?: object);
  /**
   * Stable, for programs: a code of the wire, or `force-leave`, `closed` (see `closeCode`), `aborted`.
   */
  code: string;
  /** Of `closed`: the close code of the socket, such as 4001 when the token is not taken. */
  closeCode?: number;
  /** Of `force-leave`. */
  roomId?: string;
  reason?: LeaveReason;
  timestamp?: number;
}

/** The server ended the stay: `message` is for the user to read. */
export interface ForceLeave extends ReactorError {
  code: "force-leave";
  roomId: string;
  reason: LeaveReason;
  /** Milliseconds since 1970. */
  timestamp: number;
}

export interface JoinOptions {
  /** Who one is; may be left out where a token says it. */
  userId?: string | number;
  /** What others see; the user id if there is no other name. */
  username?: string;
  /** Any small JSON for others to see. */
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
  /** All events of one message together, after each of them was told. */
  change: RoomEvent[];
  /** What the application says to everyone in the room. */
  message: { roomId: string; data: any; timestamp: number };
  "force-leave": ForceLeave;
  status: Status;
}

/** A room that was joined. Whoever follows its events holds what `members` holds, whatever the network does. */
export interface Room {
  readonly id: string;
  readonly userId: string;
  /** By user id; the same Map for as long as the room lasts, empty where only the count is served. */
  readonly members: ReadonlyMap<string, Member>;
  readonly count: number;
  /** Oneself; undefined where only the count is served. */
  readonly me: Member | undefined;
  readonly others: Member[];
  /** What is served: a room that is too big for names is told as its count. */
  readonly view: View;
  readonly status: Status;
  /** Why it is over, unless it was left. */
  readonly error: ReactorError | null;
  /** Whether one said so by `away()`. */
  readonly isAway: boolean;
  /** Whether the last joining found the member still there, so that nobody noticed a loss. */
  readonly resumed: boolean;
  /** Terms of the room, in milliseconds. */
  readonly ttl: number;
  readonly heartbeatInterval: number;
  readonly socketId: string;
  readonly epoch: string;
  readonly version: number;

  /**
   * Change one's own data (or name), for all to see; what is undefined stays. Like `away` and `back` it waits while
   * the connection is lost or Redis is away, and rejects with a ReactorError when it is refused or the room is over.
   */
  update(data: unknown, more?: { username?: string }): Promise<void>;
  /** Be seen as away: the app is in the background. */
  away(): Promise<void>;
  /** Be seen as here again. */
  back(): Promise<void>;
  /** Leave; the others hear of it at once, or after the grace while the connection is lost. Never rejects. */
  leave(): Promise<void>;

  /** Have a function called, and get the function that ends it. */
  on<Event extends keyof RoomEvents>(event: Event, hear: (news: RoomEvents[Event]) => void): () => void;
}

/** How messages are written. MessagePack is one, by a library such as @msgpack/msgpack:
 * `{ subprotocol: "reactor.msgpack", encode: (message) => encode(message, { ignoreUndefined: true }), decode }`. */
export interface Codec {
  subprotocol: string;
  encode(message: any): any;
  /** Gets text or an ArrayBuffer. */
  decode(data: any): any;
}
/** The default. */
export const json: Codec;

/** Times in milliseconds. */
export interface Backoff {
  /** The first pause; it doubles with each failure. Each is between half of it and all of it, by chance. */
  first?: number;
  /** The longest. */
  most?: number;
  /** How long an attempt to connect may take. */
  timeout?: number;
  /** A connection that lasted so long counts as good, and the pauses start anew. */
  steady?: number;
}

export interface ClientOptions {
  /** What proves who one is; or a function, async or not, that is asked at each connecting and before it runs out. */
  token?: string | (() => string | Promise<string>);
  /** For platforms without one, such as `ws` on Node.js 20. */
  WebSocket?: new (url: string, protocols: string[]) => any;
  backoff?: Backoff;
  codec?: Codec;
}

export interface ClientEvents {
  status: ClientStatus;
}

/** A question that needs no joining, and its answer. */
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
 * Rooms over one socket, which is open while a room is wanted.
 *
 *     const client = new ReactorClient("wss://example.org/ws");
 *     const room = await client.join("lobby", { userId: "7", username: "Ada" });
 *     room.on("change", () => render(room.members));
 *     room.on("force-leave", ({ message }) => alert(message));
 */
export class ReactorClient {
  /** `url`: what the platform's WebSocket takes: wss://HOST/ws, in a page of today also "/ws". */
  constructor(url: string, options?: ClientOptions);
  readonly status: ClientStatus;
  /** Why there is no connection, as far as it is known. */
  readonly error: Error | null;
  /** While `reconnecting`: when the next attempt begins, milliseconds since 1970. */
  readonly retryAt: number;
  /** Who the token says that this is, once the server has said so. */
  readonly userId: string;
  /** Those joined or on their way, by id. */
  readonly rooms: ReadonlyMap<string, Room>;
  /** Set it to hold back the heartbeats, and see what becomes of one who says nothing any more. */
  silent: boolean;

  /**
   * Join a room, and stay in it until it is left or the server ends it. It waits as long as the server cannot be
   * reached or has no Redis; `signal` gives up. Joining again as the same user changes what is given, and resolves to
   * the same Room. Rejects with a ReactorError that has the server's code.
   */
  join(roomId: string | number, options?: JoinOptions): Promise<Room>;
  /** Ask about a room, joined or not, as in `(await client.request({ type: "room:count", roomId })).count`. */
  request<Type extends keyof Questions>(
    question: { type: Type } & Questions[Type]["ask"],
  ): Promise<{ type: Type } & Questions[Type]["reply"]>;
  /** Leave all rooms (or, with `leave: false`, have the grace run) and close the socket; no timer is left. */
  close(options?: { leave?: boolean }): void;

  /** Time may have passed, or the network be another one: connect, or send a heartbeat, at once. Pages do it alone. */
  wake(): void;
  /** Look at the clock, and do what is due: for a timer that a hidden page does not hold back. */
  tick(): void;
  /** Send a heartbeat now. */
  beat(): void;
  /** Let go of the socket as a lost network would, for so many milliseconds; Infinity: until `wake`. */
  drop(pause: number): void;

  /** Have a function called, and get the function that ends it. */
  on<Event extends keyof ClientEvents>(event: Event, hear: (news: ClientEvents[Event]) => void): () => void;
}
