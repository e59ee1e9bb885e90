/** What the page shows of its own socket: each message, each heartbeat, and when the TTL last began anew. */

/** The client's usual encoding, which tells `watch` of all that goes through it. */
export class Watched {
  subprotocol = "reactor.json";
  /** When the server last took a sign of life (ms since 1970). */
  refreshedAt = 0;
  #watch;
  /** @type {Map<number, number>} when a heartbeat was sent, by its id */
  #sent = new Map();

  /** @param {{frame(frame: {direction: string, text: string}): void, beat(roundTrip: number): void}} watch */
  constructor(watch) {
    this.#watch = watch;
  }

  encode = (message) => {
    const text = JSON.stringify(message);
    if (message.type === "room:heartbeat") this.#sent.set(message.id, performance.now());
    this.#watch.frame({ direction: "sent", text });
    return text;
  };

  decode = (text) => {
    const message = JSON.parse(text);
    this.#watch.frame({ direction: "received", text });
    if (message.type === "room:joined") this.refreshedAt = Date.now();
    if (message.type === "room:heartbeat:ack") {
      this.refreshedAt = Date.now();
      this.#watch.beat(performance.now() - this.#sent.get(message.id));
      this.#sent.clear();
    }
    return message;
  };
}
