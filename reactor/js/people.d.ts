/** Users whom an application watches, whatever the rooms they are in. */
import type { ClientStatus, ReactorClient, ReactorError } from "./index.js";

/** A user. */
export interface Person {
  readonly userId: string;
  /** `away`: all of the user's connections are. A user whom this client may not watch, or who is unknown, is `offline`. */
  readonly status: "online" | "away" | "offline";
  /** The last activity before the user went offline, milliseconds since 1970, if it is on record; not while online. */
  readonly lastSeen?: number;
  /** The rooms that the user is in, where the token of this client has the claim `where`. */
  readonly rooms?: readonly string[];
}

export interface PeopleEvents {
  /** Those who have changed, as they are now, all of one message together; an empty list after a removal. */
  change: readonly Person[];
  /**
   * The server refused to let some users be watched, as with `too_many_people`: those in `userIds` were removed, and the
   * others are watched. Or the client has ended, without `userIds`.
   */
  error: ReactorError;
  status: ClientStatus;
}

/** Users at one moment, for a user interface; the same object until something in it changes. */
export interface PeopleSnapshot {
  readonly status: ClientStatus;
  readonly error: ReactorError | null;
  /** Those whose state is known, in the order in which they were added; each the same object until it changes. */
  readonly people: readonly Person[];
}

/** Users who are watched, kept up to date until it is closed, also after lost connections. */
export interface People {
  /** The users who are watched. */
  readonly ids: ReadonlySet<string>;
  /** As the client's; `idle` without users, `connecting` before the first answer. */
  readonly status: ClientStatus;
  /** The last refusal, or why it has ended; null after `close()`. */
  readonly error: ReactorError | null;

  /** The user as last received; undefined before that, and for one who is not watched. */
  get(userId: string | number): Person | undefined;
  /** Watch more users; those that are watched already stay. Throws a ReactorError for a wrong id, or once it is closed. */
  add(userIds: Iterable<string | number>): void;
  /** Watch these no more. */
  remove(userIds: Iterable<string | number>): void;
  /** End watching. */
  close(): void;

  /** Add a listener. Returns the function that removes it. */
  on<Event extends keyof PeopleEvents>(event: Event, listener: (event: PeopleEvents[Event]) => void): () => void;

  /** Call `run` with the present snapshot, and with each new one: a Svelte store. Returns the function that ends it. */
  subscribe(run: (snapshot: PeopleSnapshot) => void): () => void;
  /** The present snapshot. */
  getSnapshot(): PeopleSnapshot;
}

/**
 * Watch users: whether they are online, away or offline, whatever the rooms. A client may watch 1,000 users by default.
 *
 *     const friends = people(client, ["7", "8"]);
 *     friends.on("change", (changed) => changed.forEach(({ userId, status }) => show(userId, status)));
 */
export function people(client: ReactorClient, userIds?: Iterable<string | number>): People;
