/** Why a WebSocket does not open: a browser does not say, but an ordinary request to the same address is answered. */

const PROBE_TIMEOUT = 5000;

/** @type {{[status: number]: string}} */
const REASONS = {
  401: "the server rejects the token",
  403: "origin not allowed: name the origin of this page in the server's setting `origins`",
  426: "a proxy does not pass WebSockets on",
  429: "too many connections from this address",
  503: "the server is full or stopping",
};

/**
 * The HTTP status of a WebSocket's address; undefined if it cannot be reached, or the page must not know.
 *
 * @param {string} url @returns {Promise<number | undefined>}
 */
export async function probe(url) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), PROBE_TIMEOUT);
  try {
    const { status } = await fetch(url.replace(/^ws/, "http"), { cache: "no-store", credentials: "omit", signal: controller.signal });
    return status;
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
    controller.abort();
  }
}

/** @param {string} url @param {number} [status] @returns {string} */
export function failureReason(url, status) {
  if (!status) return `cannot connect to ${url}: is a server there, and does the page's Content-Security-Policy allow it?`;
  return `cannot connect to ${url}: ${REASONS[status] ?? "no reactor server; its path is /ws"} (HTTP ${status})`;
}
