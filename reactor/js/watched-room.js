/** A room that the client watches without being in it. Created by `client.watch`. */
import { FollowedRoom } from "./followed-room.js";

export class WatchedRoom extends FollowedRoom {
  /** What the application wants to receive. @type {"members" | "count"} */
  wanted;
  #close;

  /**
   * @param {import("./client.js").ReactorClient} client @param {string} id @param {"members" | "count"} view
   * @param {(room: WatchedRoom) => void} close called when the application ends it
   */
  constructor(client, id, view, close) {
    super(client, id, ["error"]);
    this.wanted = view;
    this.#close = close;
  }

  close() {
    if (this.closed) return;
    this.end(null);
    this.#close(this);
  }

  // Called by WatchedRooms.

  get snapshotRequest() {
    return { type: "room:watch", view: "members" };
  }

  /** The server has answered with what is in the room, or with its count alone. @param {any} snapshot */
  answered(snapshot) {
    this.joined = true;
    this.emitAll(this.reported.snapshot(snapshot));
    this.showStatus();
  }

  /** @param {import("./error.js").ReactorError | null} error */
  end(error) {
    if (this.closed) return;
    this.ended(error);
    this.showStatus();
    if (error) this.emit("error", error);
  }

  /** @param {any} message a message that the server sent by itself */
  receive(message) {
    if (message.type === "room:diff") this.emitAll(this.reported.diff(message));
    else if (this.joined) this.emitAll(this.reported.snapshot(message));
  }
}
