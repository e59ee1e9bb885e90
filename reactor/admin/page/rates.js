// Computes rates from successive readings of counters. Without a page or a clock.

/** How long (ms) readings are kept. */
export const WINDOW = 300_000;

/** The overviews of the last five minutes. Times are milliseconds of a monotonic clock. */
export class History {
  #samples = [];
  /** The reasons of departures, in the server's order: those that it knows, then any others that it has counted. */
  reasons = [];

  /** Add an overview. Increases since the former sample are stored, so a server that stops does not lower any sum. */
  add(overview, at) {
    const nodes = new Map(overview.nodes.filter((node) => node.report).map(({ node, report }) => [node, report]));
    const former = this.#samples.at(-1);
    this.reasons = [...new Set([...this.reasons, ...Object.keys(overview.departures)])];
    this.#samples.push({
      at,
      nodes,
      departures: overview.departures,
      span: former ? at - former.at : 0,
      joins: new Map([...nodes].map(([node, report]) => [node, increase(report.joins, former?.nodes.get(node)?.joins)])),
      left: Object.fromEntries(this.reasons.map((reason) => [reason, former ? increase(overview.departures[reason] ?? 0, former.departures[reason] ?? 0) : 0])),
      late: latenessIncrease(nodes, former?.nodes),
    });
    this.#samples = this.#samples.filter((sample) => at - sample.at <= WINDOW);
  }

  /** Rates per minute, from the last minute; null before there are two overviews. */
  perMinute(now, span = 60_000) {
    const recent = this.#samples.filter((sample) => sample.span > 0 && now - sample.at < span);
    const duration = sum(recent.map((sample) => sample.span));
    if (!duration) return null;
    const rate = (number) => (number * 60_000) / duration;
    const byNode = new Map();
    for (const sample of recent) for (const [node, joins] of sample.joins) byNode.set(node, (byNode.get(node) ?? 0) + joins);
    return {
      joins: rate(sum([...byNode.values()])),
      joinsOf: (node) => rate(byNode.get(node) ?? 0),
      left: Object.fromEntries(this.reasons.map((reason) => [reason, rate(sum(recent.map((sample) => sample.left[reason] ?? 0)))])),
    };
  }

  /** The upper bound (ms) of the lateness of this share of expiries within the span; null: none, Infinity: above all bounds. */
  lateness(now, share, span = WINDOW) {
    const bounds = new Map();
    for (const sample of this.#samples) {
      if (now - sample.at < span) for (const [bound, count] of sample.late) bounds.set(bound, (bounds.get(bound) ?? 0) + count);
    }
    const sorted = [...bounds].sort(([a], [b]) => a - b);
    const total = sorted.at(-1)?.[1] ?? 0;
    return total ? sorted.find(([, count]) => count >= share * total)[0] : null;
  }

  /** The increases in each of `number` equal intervals of the window, the oldest first. */
  intervals(now, number) {
    const intervals = Array.from({ length: number }, () => ({ joins: 0, ...Object.fromEntries(this.reasons.map((reason) => [reason, 0])) }));
    for (const sample of this.#samples) {
      const interval = intervals[number - 1 - Math.floor(((now - sample.at) / WINDOW) * number)];
      if (!interval) continue;
      interval.joins += sum([...sample.joins.values()]);
      for (const reason of this.reasons) interval[reason] += sample.left[reason] ?? 0;
    }
    return intervals;
  }
}

function latenessIncrease(nodes, former) {
  const increases = new Map();
  for (const [node, report] of nodes) {
    const formerCounts = new Map(former?.get(node)?.lateness ?? []);
    for (const [bound, count] of report.lateness) {
      const key = bound ?? Infinity;
      increases.set(key, (increases.get(key) ?? 0) + increase(count, former ? formerCounts.get(bound) : undefined));
    }
  }
  return increases;
}

/** The increase of a counter: 0 at its first reading, and its value after it was reset. */
function increase(value, former) {
  if (former === undefined) return 0;
  return value >= former ? value - former : value;
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
