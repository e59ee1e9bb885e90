/** The client's default encoding, which also reports each message and heartbeat to the page. */
export class ObservedCodec {
  subprotocol = "reactor.json";
  /** When the server last refreshed the TTL (ms since 1970). */
  refreshedAt = 0;
  /** When the last message arrived (ms since 1970). */
  receivedAt = 0;
  #observer;
  /** @type {Map<number, number>} times of sending, by the ids of heartbeats */
  #sentAt = new Map();

  /** @param {{frame(frame: {direction: string, text: string}): void, heartbeat(storedAfter: number): void}} observer */
  constructor(observer) {
    this.#observer = observer;
  }

  encode = (message) => {
    const text = JSON.stringify(message);
    if (message.type === "room:heartbeat") this.#sentAt.set(message.id, performance.now());
    this.#observer.frame({ direction: "sent", text });
    return text;
  };

  decode = (text) => {
    const message = JSON.parse(text);
    this.#observer.frame({ direction: "received", text });
    this.receivedAt = Date.now();
    if (message.type === "room:joined") this.refreshedAt = Date.now();
    if (message.type === "room:heartbeat:ack") {
      this.refreshedAt = Date.now();
      this.#observer.heartbeat(performance.now() - this.#sentAt.get(message.id));
      this.#sentAt.clear();
    }
    return message;
  };
}
