/** The client of a reactor server: room presence over a WebSocket. */

/**
 * What an application's members carry, declared once:
 *
 *     declare module "reactor-presence" {
 *       interface Register {
 *         data: { mood: string };
 *         message: { typing: boolean };
 *       }
 *     }
 */
export interface Register {}
/** A member's data, as registered. */
export type MemberData = Register extends { data: infer Data } ? Data : any;
/** The data of messages to a room, as registered. */
export type MessageData = Register extends { message: infer Data } ? Data : any;

/** A change of a part of a value (RFC 7396): fields replace fields, null removes one, lists are replaced as a whole. */
export type Patch<Value> = Value extends readonly unknown[]
  ? Value
  : Value extends object
    ? { [Key in keyof Value]?: Patch<Value[Key]> | null }
    : Value;

/** A user in a room. Times are milliseconds since 1970, by the server's clock. */
export interface Member<Data = MemberData> {
  userId: string;
  username: string;
  joinedAt: number;
  lastActiveAt: number;
  /** Whether all of its connections are away. */
  away: boolean;
  /** The number of its connections: tabs and devices. */
  connections: number;
  /** The data that the member has set. */
  data?: Data;
}

/** What a client receives of a room: its members, only their count, or nothing. */
export type View = "members" | "count" | "none";

/** Why a member left; a newer server may send other reasons. */
export type LeaveReason = "left" | "inactivity_timeout" | "disconnected" | "kicked" | "banned" | (string & {});

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
export interface JoinEvent<Data = MemberData> extends EventBase {
  kind: "join";
  member: Member<Data>;
}
export interface UpdateEvent<Data = MemberData> extends EventBase {
  kind: "update";
  member: Member<Data>;
}
export interface LeaveEvent<Data = MemberData> extends EventBase {
  kind: "leave";
  /** As last received. */
  member: Member<Data>;
  reason: LeaveReason;
}
/** The whole list, at first and when the room is served as members or as a count from now on; or a new count. */
export interface SyncEvent<Data = MemberData> extends EventBase {
  kind: "sync";
  members: Member<Data>[];
}
export type RoomEvent<Data = MemberData> = JoinEvent<Data> | UpdateEvent<Data> | LeaveEvent<Data> | SyncEvent<Data>;

/** What was sent to the room: by a member, or by the application, and then without a user. */
export interface RoomMessage<Message = MessageData> {
  roomId: string;
  userId?: string;
  socketId?: string;
  data: Message;
  timestamp: number;
}

/** A request that the server refused, or what ended a room or the connection. */
export class ReactorError extends Error {
  constructor(code: string, message: string, more?: object);
  /**
   * Stable, for programs: a code of the wire; or `bad_request` (it cannot be sent; the message names the part), `too_big`
   * (it exceeds a limit of the server), `timeout` (no reply in time; the server may still execute it), `force-leave`,
   * `closed` (see `closeCode` and `status`), `aborted`.
   */
  code: string;
  /** Of `closed`: the WebSocket close code, such as 4001 when the token is rejected. */
  closeCode?: number;
  /** Of `closed`: the HTTP status of the server's address, if a connection failed and the status could be learned. */
  status?: number;
  /** How long (ms) to wait before the same request, if the server says so. */
  retryAfter?: number | undefined;
  /** Of `banned`, and of `force-leave` with that reason: when the ban ends, in milliseconds since 1970. */
  until?: number | undefined;
  /** Whether the client does not try again. */
  permanent?: boolean;
  /** Of an `error` of `people()`: the users who are not watched. */
  userIds?: string[];
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

export interface JoinOptions<Data = MemberData> {
  /** The user; may be omitted where a token names it. */
  userId?: string | number | undefined;
  /** The name that others see; the user id by default. */
  username?: string | undefined;
  /** Any small JSON value that others see. */
  data?: Data | undefined;
  /** `members` by default. */
  view?: View | undefined;
  /** Aborting it leaves the room. */
  signal?: AbortSignal | undefined;
}

export interface OnlineOptions {
  /** The user; may be omitted once `client.userId` is known from a token. */
  userId?: string | number | undefined;
  /** Aborting it makes the user offline again. */
  signal?: AbortSignal | undefined;
}

export interface RoomEvents<Data = MemberData> {
  join: JoinEvent<Data>;
  leave: LeaveEvent<Data>;
  update: UpdateEvent<Data>;
  sync: SyncEvent<Data>;
  /** All events of one message together, after each of them was emitted. */
  change: RoomEvent<Data>[];
  /** What another member, or the application, sent to the room. */
  message: RoomMessage;
  "force-leave": ForceLeave;
  status: Status;
}

/** A room at one moment, for a user interface; the same object until something in it changes. */
export interface RoomSnapshot<Data = MemberData> {
  readonly status: Status;
  readonly error: ReactorError | null;
  readonly view: View;
  readonly count: number;
  readonly members: readonly Member<Data>[];
  readonly me: Member<Data> | undefined;
}

/** A room that was joined. Applying its events always gives what `members` holds, also after lost connections. */
export interface Room<Data = MemberData> {
  readonly id: string;
  readonly userId: string;
  /** By user id; the same Map for the lifetime of the room, empty where only the count is served. */
  readonly members: ReadonlyMap<string, Member<Data>>;
  readonly count: number;
  /** This client's own member; undefined where only the count is served. */
  readonly me: Member<Data> | undefined;
  readonly others: Member<Data>[];
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
   * lost or Redis is away, and rejects with a ReactorError when it is refused or the room has ended. Changes that wait
   * are sent as one. The data is copied; what JSON cannot hold is refused.
   */
  update(data: Data | undefined, more?: { username?: string | undefined }): Promise<void>;
  /**
   * Change a part of the member's data, as `update` does; the server merges it, so that changes of several devices to
   * different fields are kept.
   */
  patch(patch: Patch<Data>, more?: { username?: string | undefined }): Promise<void>;
  /**
   * Send something to the other members, or to those in `to`, that is stored nowhere: that the user types, a cursor, a
   * reaction. It is neither kept for later nor repeated: without a connection it rejects with `unavailable`.
   */
  send(data: MessageData, more?: { to?: readonly (string | number)[] | undefined }): Promise<void>;
  /** Show the member as away: the app is in the background. */
  away(): Promise<void>;
  /** Show the member as present again. */
  back(): Promise<void>;
  /** Leave. The other members are notified at once, or when the connection returns. Never rejects. */
  leave(): Promise<void>;

  /** Add a listener. Returns the function that removes it. */
  on<Event extends keyof RoomEvents>(event: Event, listener: (event: RoomEvents<Data>[Event]) => void): () => void;

  /** Call `run` with the present snapshot, and with each new one: a room is a Svelte store. Returns the function that ends it. */
  subscribe(run: (snapshot: RoomSnapshot<Data>) => void): () => void;
  /** The present snapshot. */
  getSnapshot(): RoomSnapshot<Data>;
}

export interface WatchOptions {
  /** `members` by default; `count` where no members are shown. The counts of many rooms come in one message. */
  view?: "members" | "count" | undefined;
}

export interface WatchEvents<Data = MemberData> {
  join: JoinEvent<Data>;
  leave: LeaveEvent<Data>;
  update: UpdateEvent<Data>;
  sync: SyncEvent<Data>;
  /** All events of one message together, after each of them was emitted. */
  change: RoomEvent<Data>[];
  /** The server refused to let the room be watched, or the client has ended. */
  error: ReactorError;
  status: Status;
}

/** A room that is watched by a client that need not be in it; kept up to date until it is closed. */
export interface WatchedRoom<Data = MemberData> {
  readonly id: string;
  /** By user id; the same Map for the lifetime of the object, empty where only the count is served. */
  readonly members: ReadonlyMap<string, Member<Data>>;
  readonly count: number;
  /** What is served: of a room with too many members only the count is sent; `none` before the first answer. */
  readonly view: View;
  readonly status: Status;
  /** Why it has ended, unless it was closed. */
  readonly error: ReactorError | null;
  readonly epoch: string;
  readonly version: number;

  /** Watch no more. */
  close(): void;

  /** Add a listener. Returns the function that removes it. */
  on<Event extends keyof WatchEvents>(event: Event, listener: (event: WatchEvents<Data>[Event]) => void): () => void;

  /** Call `run` with the present snapshot, and with each new one: a Svelte store. Returns the function that ends it. */
  subscribe(run: (snapshot: RoomSnapshot<Data>) => void): () => void;
  /** The present snapshot. */
  getSnapshot(): RoomSnapshot<Data>;
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
  first?: number | undefined;
  /** The longest delay. */
  most?: number | undefined;
  /** How long an attempt to connect may take, with the token function. */
  timeout?: number | undefined;
  /** After a connection that lasted so long, or on which the server answered, the delays start again with the first. */
  steady?: number | undefined;
}

export interface ClientOptions {
  /**
   * A token, or a function (async or not) that is called at each connect and before the token expires. If it fails it is
   * called again later. It ends the client by returning null, or by an error with `permanent: true`.
   */
  token?: string | null | undefined | (() => string | null | Promise<string | null>);
  /** For platforms without WebSocket, such as `ws` on Node.js 20. */
  WebSocket?: (new (url: string, protocols: string[]) => any) | undefined;
  backoff?: Backoff | undefined;
  codec?: Codec | undefined;
  /** How long (ms) the server may take to answer a request, 10,000 by default. */
  requestTimeout?: number | undefined;
}

export interface ClientEvents {
  status: ClientStatus;
  /** The token function failed (and is called again), or the client has ended: `client.error`. */
  error: Error;
  /** An attempt to connect failed, or the server closed the connection; the client tries again. */
  "connection-error": ReactorError;
}

/** Requests that need no membership, and their replies. */
export interface Questions {
  "room:members": {
    ask: { roomId: string | number; limit?: number; cursor?: string };
    reply: Position & { members?: Member[]; cursor?: string };
  };
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
 * Rooms over one connection, which is open while a room is wanted or watched.
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
  /** Why there is no connection, or no new token, if known. */
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
   * same Room. Rejects with a ReactorError that has the server's code. The members' data is of the registered type, or of
   * a type of this room: `client.join<{ mood: string }>("lobby")`.
   */
  join<Data = MemberData>(roomId: string | number, options?: JoinOptions<Data>): Promise<Room<Data>>;
  /**
   * Be online, for those who watch this user, without being in any other room: joins the room `@USER`, which is the user's
   * alone. `away()` and `back()` of the room set the user's status, `leave()` ends being online.
   */
  online(options?: OnlineOptions): Promise<Room>;
  /**
   * Watch a room without being in it: its members or, with `{ view: "count" }`, their number. It is neither listed nor
   * counted. After lost connections the room is watched again. A refusal is its event `error`.
   */
  watch<Data = MemberData>(roomId: string | number, options?: WatchOptions): WatchedRoom<Data>;
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
