/**
 * Two clocks. `monotonic` measures elapsed time: it is never set, so it alone decides what is due. On Linux and macOS it
 * stops while the machine sleeps, as timers do, and then the wall clock has gone ahead of it. A wall clock that was set
 * looks the same. So neither deadline is moved by it: the client tests its connection instead, which is right in both
 * cases.
 */

/** The time (ms) since some moment, by the monotonic clock. */
export const monotonic = () => performance.now();

/** How much (ms) the wall clock must gain on the monotonic clock to count. */
const JUMP = 1000;

/** The longest time (ms) that a platform's timer takes, 24 days: a longer one would be over at once. */
const MAX_TIME = 2 ** 31 - 1;

/** A timer for a time that an application or a server names; none for Infinity. @param {() => void} call @param {number} ms */
export const startTimer = (call, ms) => (ms < Infinity ? setTimeout(call, Math.min(ms, MAX_TIME)) : undefined);

export class SleepDetector {
  #offset = Date.now() - monotonic();

  /** Whether the machine may have slept since the last call. */
  slept() {
    const offset = Date.now() - monotonic();
    const gained = offset - this.#offset;
    this.#offset = offset;
    return gained > JUMP;
  }
}
