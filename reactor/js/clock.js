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
